import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { buildImage, contextOf, pushImage } from '../build.ts';

let dir: string;
let registry: ChildProcess;
let host: string;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'push-'));
  host = `127.0.0.1:${await freePort()}`;
  const config = join(dir, 'registry.json');
  writeFileSync(
    config,
    JSON.stringify({
      version: 0.1,
      storage: { filesystem: { rootdirectory: join(dir, 'registry') } },
      http: { addr: host },
    }),
  );
  registry = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
  const deadline = Date.now() + 10_000;
  while (!(await fetch(`http://${host}/v2/`).catch(() => null))) {
    if (Date.now() > deadline) throw new Error('docker-registry does not answer');
    await delay(20);
  }
});

afterEach(async () => {
  registry.kill('SIGKILL');
  if (registry.exitCode === null && registry.signalCode === null) await once(registry, 'exit');
  rmSync(dir, { recursive: true, force: true });
});

it('pushes an image that the registry then has by the same digest', async () => {
  const image = await buildImage({
    context: await contextOf('static'),
    output: join(dir, 'image'),
  });
  const authFile = join(dir, 'auth.json');
  writeFileSync(authFile, JSON.stringify({ auths: {} }), { mode: 0o600 });
  const destination = `${host}/demo/static:1`;
  await pushImage({ layout: image.layout, destination, authFile, plainHttp: true });
  const answer = await fetch(`http://${host}/v2/demo/static/manifests/1`, {
    headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
  });
  expect(answer.headers.get('docker-content-digest')).toBe(image.digest);
});
