import { createHash, type Hash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { runStreaming } from './run.ts';

/** A layer as an image's manifest and config name it, and the file that has it. */
export interface Layer {
  file: string;
  size: number;
  /** sha256 of the compressed file. */
  digest: string;
  /** sha256 of the tar inside. */
  diffId: string;
}

/**
 * Packs a directory as a layer. The same files give the same digest, whenever and wherever: names
 * are sorted, times are zero, everything is root's. The file is left in `outputDir` under its digest.
 */
export async function packLayer(tree: string, outputDir: string): Promise<Layer> {
  const partial = join(outputDir, `layer-${process.pid}-${Date.now()}.partial`);
  const tarHash = createHash('sha256');
  const fileHash = createHash('sha256');
  const args = [
    ...['--create', '--format=gnu', '--sort=name', '--mtime=@0'],
    ...['--owner=0', '--group=0', '--numeric-owner', '--directory', tree, '.'],
  ];
  await runStreaming('tar', args, (output) =>
    pipeline(
      output,
      tap(tarHash),
      createGzip({ level: 6 }),
      tap(fileHash),
      createWriteStream(partial),
    ),
  );
  const hex = fileHash.digest('hex');
  const file = join(outputDir, hex);
  await rename(partial, file);
  return {
    file,
    size: (await stat(file)).size,
    digest: `sha256:${hex}`,
    diffId: `sha256:${tarHash.digest('hex')}`,
  };
}

function tap(hash: Hash): Transform {
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      done(null, chunk);
    },
  });
}
