import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { buildImage, contextOf } from '../build.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'image-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function context(name: string, mode: number): string {
  const path = join(dir, name);
  mkdirSync(path);
  writeFileSync(
    join(path, 'Dockerfile'),
    'FROM busybox\nCOPY hello.txt /srv/\nENV A=1\nCMD ["cat", "/srv/hello.txt"]\n',
  );
  writeFileSync(join(path, 'hello.txt'), 'hello');
  chmodSync(join(path, 'hello.txt'), mode);
  utimesSync(join(path, 'hello.txt'), mode, mode);
  return path;
}

describe('buildImage', () => {
  it('gives the same digest for the same files, whatever the umask and the time', async () => {
    const first = await buildImage({ context: context('a', 0o600), output: join(dir, 'one') });
    const second = await buildImage({ context: context('b', 0o664), output: join(dir, 'two') });
    expect(second.digest).toBe(first.digest);
  });

  it('makes a layout that says how the image is run', async () => {
    const { layout, digest } = await buildImage({
      context: await contextOf('static'),
      output: join(dir, 'out'),
    });
    const blob = (name: string) =>
      JSON.parse(readFileSync(join(layout, 'blobs/sha256', name.slice(7)), 'utf8'));
    const manifest = blob(digest);
    expect(manifest.layers).toHaveLength(2);
    expect(blob(manifest.config.digest).config).toMatchObject({
      User: '1000:1000',
      ExposedPorts: { '8080/tcp': {} },
      Cmd: ['sh', '-c', expect.stringContaining('httpd')],
    });
  });

  it('knows an image without a command, and says which samples there are', async () => {
    const { layout, digest } = await buildImage({
      context: await contextOf('probe'),
      output: join(dir, 'out'),
    });
    const blob = (name: string) =>
      JSON.parse(readFileSync(join(layout, 'blobs/sha256', name.slice(7)), 'utf8'));
    expect(blob(blob(digest).config.digest).config.Cmd).toEqual([]);
    await expect(contextOf('nothing')).rejects.toThrow(/hello, static, worker/);
    await expect(contextOf('../secrets')).rejects.toThrow(/no sample/);
  });

  it('copies nothing from outside', async () => {
    const path = context('c', 0o644);
    writeFileSync(join(path, 'Dockerfile'), 'FROM busybox\nCOPY ../secret /\n');
    await expect(buildImage({ context: path, output: join(dir, 'out') })).rejects.toThrow(
      /outside/,
    );
  });
});
