import { spawn, type ChildProcess } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { eventually } from './eventually.ts';

const run = promisify(execFile);

export interface RegistryOptions {
  /** Where it sends clients for a token, and the private key (PEM) of the tokens that it trusts. */
  token?: { realm: string; key: string };
  /** Serve https with a certificate of its own for 127.0.0.1. */
  tls?: boolean;
  port?: number;
}

/** Debian's docker-registry with a storage of its own, for one test. */
export class TestRegistry {
  private constructor(
    private readonly dir: string,
    private readonly child: ChildProcess,
    readonly host: string,
    /** PEM of its certificate, with `tls`. */
    readonly certificate: string,
  ) {}

  static async start(options: RegistryOptions = {}): Promise<TestRegistry> {
    const dir = await mkdtemp(join(tmpdir(), 'bulkhead-registry-'));
    const port = options.port ?? (await freePort());
    const certificate = options.tls ? await makeCertificate(dir, 'tls') : '';
    const lines = [
      'version: 0.1',
      'log: {level: error}',
      `storage: {filesystem: {rootdirectory: ${join(dir, 'data')}}, delete: {enabled: true}}`,
      'http:',
      `  addr: 127.0.0.1:${port}`,
    ];
    if (options.tls) {
      lines.push(`  tls: {certificate: ${join(dir, 'tls.crt')}, key: ${join(dir, 'tls.key')}}`);
    }
    if (options.token) {
      await makeCertificate(dir, 'token', options.token.key);
      lines.push(
        'auth:',
        '  token:',
        `    realm: ${options.token.realm}`,
        '    service: bulkhead-registry',
        '    issuer: bulkhead',
        `    rootcertbundle: ${join(dir, 'token.crt')}`,
      );
    }
    await mkdir(join(dir, 'data'));
    await writeFile(join(dir, 'config.yml'), lines.join('\n'));
    const child = spawn('docker-registry', ['serve', join(dir, 'config.yml')], { stdio: 'ignore' });
    const registry = new TestRegistry(dir, child, `127.0.0.1:${port}`, certificate);
    await eventually('the registry answers', () => answers(port));
    return registry;
  }

  async dispose(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGKILL');
    await ended;
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** A port that is free now; the registry has no way to choose one itself. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function answers(port: number): Promise<boolean> {
  const { connect } = await import('node:net');
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => (socket.destroy(), resolve(true)));
    socket.once('error', () => resolve(false));
  });
}

/** As deploy/ makes them: EC on P-256, signed by itself. */
async function makeCertificate(dir: string, name: string, key?: string): Promise<string> {
  const file = (ending: string) => join(dir, `${name}.${ending}`);
  if (key) await writeFile(file('key'), key);
  const from = key
    ? ['-key', file('key')]
    : ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', file('key')];
  const subject = ['-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
  await run('openssl', ['req', '-x509', ...from, '-days', '2', ...subject, '-out', file('crt')]);
  return new X509Certificate(await readFile(file('crt'))).toString();
}

export interface LocalImage {
  /** For `skopeo copy dir:<path>`. */
  dir: string;
  digest: string;
}

const sha256 = (data: Buffer | string) => createHash('sha256').update(data).digest('hex');

const made: string[] = [];

/** Removes the images of this test file. */
export async function disposeLocalImages(): Promise<void> {
  await Promise.all(made.splice(0).map((dir) => rm(dir, { recursive: true, force: true })));
}

/** An image of one small layer, as `skopeo` keeps it in a directory. */
export async function makeLocalImage(
  config: object,
  platform: { os: string; architecture: string } = { os: 'linux', architecture: 'amd64' },
): Promise<LocalImage> {
  const dir = await mkdtemp(join(tmpdir(), 'bulkhead-image-'));
  made.push(dir);
  const tar = join(dir, 'layer.tar');
  await writeFile(join(dir, 'file'), String(Math.random()));
  await run('tar', ['-C', dir, '-cf', tar, 'file']);
  await rm(join(dir, 'file'));
  const uncompressed = await readFile(tar);
  await run('gzip', ['-n', tar]);
  const layer = await readFile(`${tar}.gz`);
  await rm(`${tar}.gz`);
  const image = JSON.stringify({
    ...platform,
    config,
    rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(uncompressed)}`] },
    history: [{ created_by: 'test' }],
  });
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
    config: {
      mediaType: 'application/vnd.docker.container.image.v1+json',
      size: image.length,
      digest: `sha256:${sha256(image)}`,
    },
    layers: [
      {
        mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
        size: layer.length,
        digest: `sha256:${sha256(layer)}`,
      },
    ],
  });
  await Promise.all([
    writeFile(join(dir, 'version'), 'Directory Transport Version: 1.1\n'),
    writeFile(join(dir, 'manifest.json'), manifest),
    writeFile(join(dir, sha256(image)), image),
    writeFile(join(dir, sha256(layer)), layer),
  ]);
  return { dir, digest: `sha256:${sha256(manifest)}` };
}

/** Runs skopeo; gives what it wrote and whether it succeeded. */
export async function skopeo(args: readonly string[]): Promise<{ ok: boolean; output: string }> {
  try {
    const { stdout, stderr } = await run('skopeo', ['--insecure-policy', ...args]);
    return { ok: true, output: stdout + stderr };
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    return { ok: false, output: stdout + stderr };
  }
}
