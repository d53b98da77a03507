import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { ImageConfig } from '@bulkhead/protocol';
import { cleanEnv, run } from '../exec.ts';

/** A docker-registry of a test's own, with the images that tests run. */
export interface TestRegistry {
  host: string;
  /** Pushes an image made of the layers, bottom first. */
  push(
    repository: string,
    layers: readonly LayerFiles[],
    config?: Partial<ImageConfig>,
  ): Promise<TestImage>;
  close(): Promise<void>;
}

export interface TestImage {
  repository: string;
  digest: string;
  config: ImageConfig;
}

/** Path to content, to what a symbolic link points at, or to the number of a block device. */
export type LayerFiles = Record<
  string,
  | string
  | { link: string }
  | { copy: string; mode?: number }
  | { mode: number; text: string }
  | { disk: { major: number; minor: number } }
>;

const applets =
  'sh sleep cat id ls echo ip wget nc env touch chown ps stat hostname ping dd yes seq kill wc httpd head mkdir mknod ln pwd true false grep mount mv rm tr test';

/** Busybox, and the host's perl, whose `syscall` can try any system call. */
export const baseLayer: LayerFiles = {
  'bin/busybox': { copy: '/bin/busybox' },
  ...Object.fromEntries(applets.split(' ').map((name) => [`bin/${name}`, { link: 'busybox' }])),
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n',
  'etc/group': 'root:x:0:\napp:x:1001:\nextra:x:1500:app\n',
  'root/.keep': '',
  'usr/bin/perl': { copy: '/usr/bin/perl' },
  ...Object.fromEntries(
    [
      'lib/x86_64-linux-gnu/libm.so.6',
      'lib/x86_64-linux-gnu/libc.so.6',
      'lib/x86_64-linux-gnu/libcrypt.so.1',
      'lib64/ld-linux-x86-64.so.2',
    ].map((file) => [file, { copy: `/${file}` }]),
  ),
};

export async function startRegistry(): Promise<TestRegistry> {
  const dir = mkdtempSync(`${tmpdir()}/bulkhead-registry-`);
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const settings = {
    version: 0.1,
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: `${dir}/data` } },
    http: { addr: host },
  };
  writeFileSync(`${dir}/config.yml`, JSON.stringify(settings));
  const registry = spawn('docker-registry', ['serve', `${dir}/config.yml`], {
    stdio: 'ignore',
    env: cleanEnv(),
  });
  await answers(`http://${host}/v2/`);
  let count = 0;
  return {
    host,
    push: async (repository, layers, config = {}) => {
      const layout = `${dir}/layout-${count++}`;
      await writeLayout(layout, layers);
      await run('skopeo', [
        '--insecure-policy',
        'copy',
        '--quiet',
        '--dest-tls-verify=false',
        '--digestfile',
        `${layout}.digest`,
        `oci:${layout}`,
        `docker://${host}/${repository}:latest`,
      ]);
      // Layers are compressed on the way, so the digest is known only now.
      const digest = readFileSync(`${layout}.digest`, 'utf8').trim();
      const complete = {
        entrypoint: [],
        cmd: [],
        env: [],
        workingDir: '',
        user: '',
        exposedPorts: [],
        stopSignal: null,
        ...config,
      };
      return { repository: `${host}/${repository}`, digest, config: complete };
    },
    close: async () => {
      const ended = new Promise((resolve) => registry.once('exit', resolve));
      registry.kill('SIGKILL');
      await ended;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

async function writeLayout(layout: string, layers: readonly LayerFiles[]): Promise<void> {
  mkdirSync(`${layout}/blobs/sha256`, { recursive: true });
  const put = (data: string | Buffer): { digest: string; size: number } => {
    const hex = createHash('sha256').update(data).digest('hex');
    writeFileSync(`${layout}/blobs/sha256/${hex}`, data);
    return { digest: `sha256:${hex}`, size: data.length };
  };
  const blobs = [];
  for (const [index, files] of layers.entries())
    blobs.push(put(await tar(`${layout}/layer-${index}`, files)));
  const config = put(
    JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: {},
      rootfs: { type: 'layers', diff_ids: blobs.map((blob) => blob.digest) },
    }),
  );
  const manifest = put(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
      layers: blobs.map((blob) => ({
        mediaType: 'application/vnd.oci.image.layer.v1.tar',
        ...blob,
      })),
    }),
  );
  writeFileSync(`${layout}/oci-layout`, '{"imageLayoutVersion":"1.0.0"}');
  const descriptor = { mediaType: 'application/vnd.oci.image.manifest.v1+json', ...manifest };
  writeFileSync(
    `${layout}/index.json`,
    JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }),
  );
}

async function tar(dir: string, files: LayerFiles): Promise<Buffer> {
  for (const [path, content] of Object.entries(files)) {
    const target = `${dir}/${path}`;
    mkdirSync(target.slice(0, target.lastIndexOf('/')), { recursive: true });
    if (typeof content === 'string') writeFileSync(target, content);
    else if ('link' in content) symlinkSync(content.link, target);
    else if ('disk' in content) {
      const { major, minor } = content.disk;
      await run('mknod', ['-m', '600', target, 'b', String(major), String(minor)]);
    } else if ('copy' in content) {
      copyFileSync(content.copy, target);
      if (content.mode !== undefined) chmodSync(target, content.mode);
    } else writeFileSync(target, content.text, { mode: content.mode });
  }
  await run('tar', [
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '-C',
    dir,
    '-cf',
    `${dir}.tar`,
    '.',
  ]);
  return readFileSync(`${dir}.tar`);
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });

async function answers(url: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const ok = await fetch(url).then(
      (r) => r.ok,
      () => false,
    );
    if (ok) return;
    if (performance.now() > deadline) throw new Error(`${url} did not answer within 20 s.`);
    await delay(20);
  }
}
