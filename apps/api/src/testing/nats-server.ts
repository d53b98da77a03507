import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';

/** A real nats-server with JetStream on a port of its own, for one test. */
export class TestNatsServer {
  #child: ChildProcess | null = null;
  #port = -1;

  private constructor(private readonly dir: string) {}

  static async start(): Promise<TestNatsServer> {
    const server = new TestNatsServer(await mkdtemp(join(tmpdir(), 'bulkhead-nats-')));
    await server.restart();
    return server;
  }

  get url(): string {
    return `nats://127.0.0.1:${this.#port}`;
  }

  /** Starts again on the same port, with whatever data there is. */
  async restart(): Promise<void> {
    const binary = process.env['NATS_SERVER_BIN'];
    if (!binary) throw new Error('no nats-server: `npm test` fetches one and sets NATS_SERVER_BIN');
    const portsDir = await mkdtemp(join(this.dir, 'ports-'));
    const store = join(this.dir, 'store');
    await mkdir(store, { recursive: true });
    const child = spawn(
      binary,
      [
        '-a',
        '127.0.0.1',
        '-p',
        String(this.#port),
        '-js',
        '-sd',
        store,
        '--ports_file_dir',
        portsDir,
      ],
      { stdio: 'ignore' },
    );
    this.#child = child;
    this.#port = await eventually('nats-server names its port', async () => {
      const [file] = (await readdir(portsDir)).filter((name) => name.endsWith('.ports'));
      const text = file ? await readFile(join(portsDir, file), 'utf8') : '';
      const [url] = text.endsWith('}') ? (JSON.parse(text) as { nats: string[] }).nats : [];
      return url ? Number(new URL(url).port) : null;
    });
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  /** Loses everything it held. Only while it is stopped. */
  async wipe(): Promise<void> {
    await rm(join(this.dir, 'store'), { recursive: true, force: true });
  }

  async dispose(): Promise<void> {
    await this.stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}
