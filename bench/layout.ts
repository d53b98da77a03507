import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

const run = promisify(execFile);

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
}
interface Manifest {
  config: Descriptor;
  layers: Descriptor[];
}

export const blobOf = (layout: string, digest: string): string =>
  join(layout, 'blobs', digest.replace(':', '/'));

const digestOf = (content: Buffer): string =>
  `sha256:${createHash('sha256').update(content).digest('hex')}`;

const readJson = async <T>(file: string): Promise<T> =>
  JSON.parse(await readFile(file, 'utf8')) as T;

/** The one image of an OCI layout. */
export async function readManifest(layout: string): Promise<Manifest> {
  const { manifests } = await readJson<{ manifests: Descriptor[] }>(join(layout, 'index.json'));
  return readJson<Manifest>(blobOf(layout, manifests[0]!.digest));
}

/** A copy of the image in `layout` with more layers, a file in each, until it has `count`. */
export async function withLayers(
  layout: string,
  output: string,
  count: number,
): Promise<{ layout: string; digest: string }> {
  await cp(layout, output, { recursive: true });
  const manifest = await readManifest(layout);
  const config = await readJson<{
    rootfs: { diff_ids: string[] };
    history?: unknown;
  }>(blobOf(layout, manifest.config.digest));
  delete config.history;
  const put = async (mediaType: string, content: Buffer): Promise<Descriptor> => {
    const digest = digestOf(content);
    await writeFile(blobOf(output, digest), content);
    return { mediaType, digest, size: content.length };
  };
  const work = `${output}.work`;
  for (let n = manifest.layers.length; n < count; n++) {
    await mkdir(join(work, 'layers'), { recursive: true });
    await writeFile(join(work, 'layers', String(n)), `${n}\n`);
    const { stdout } = await run('tar', ['-C', work, '--sort=name', '-cf', '-', 'layers'], {
      encoding: 'buffer',
    });
    // Compressed as a registry has it: skopeo would do it on the way, and the digest would be another.
    manifest.layers.push(
      await put('application/vnd.oci.image.layer.v1.tar+gzip', gzipSync(stdout)),
    );
    config.rootfs.diff_ids.push(digestOf(stdout));
    await rm(work, { recursive: true });
  }
  manifest.config = await put(manifest.config.mediaType, Buffer.from(JSON.stringify(config)));
  const made = await put(
    'application/vnd.oci.image.manifest.v1+json',
    Buffer.from(JSON.stringify(manifest)),
  );
  await writeFile(
    join(output, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [made] }),
  );
  return { layout: output, digest: made.digest };
}
