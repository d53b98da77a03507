import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createRuntime, type ContainerRuntime, type ContainerSpec } from '@bulkhead/runtime';
import { startPlatform, stopPlatform } from '../deploy/platform.ts';
import { e2eOptions, Platform } from '../e2e/support/platform.ts';
import { until } from '../e2e/support/until.ts';
import { buildImage, contextOf, pushImage } from '../examples/build.ts';
import { Docker } from './docker.ts';

const run = promisify(execFile);

/** The name of the measured image in Docker. */
export const benchImage = 'bulkhead-bench:1';
const registryPort = 16_090;

/** What the benchmarks work on, each part made when it is first asked for. */
export class Bench {
  readonly dir: string;
  private readonly cleanUps: (() => Promise<unknown>)[] = [];
  private readonly made = new Map<string, Promise<unknown>>();
  private pulled: ContainerSpec['image'] | null = null;

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async create(): Promise<Bench> {
    // Short: sockets lie below it. Mapped ids must be able to pass.
    const bench = new Bench(await mkdtemp('/tmp/bulkhead-bench-'));
    await run('chmod', ['0711', bench.dir]);
    bench.cleanUps.push(() => rm(bench.dir, { recursive: true, force: true }));
    return bench;
  }

  /** Newest first, all of it, whatever fails. */
  async close(): Promise<void> {
    const failures: unknown[] = [];
    for (const cleanUp of this.cleanUps.reverse()) {
      await cleanUp().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw new AggregateError(failures, 'not all was cleaned up');
  }

  get image(): ContainerSpec['image'] {
    if (this.pulled === null) throw new Error('ask for the runtime first: it pulls the image');
    return this.pulled;
  }

  private once<T>(name: string, make: () => Promise<T>): Promise<T> {
    if (!this.made.has(name)) this.made.set(name, make());
    return this.made.get(name) as Promise<T>;
  }

  /** The static sample as an OCI layout: busybox and a page. */
  private layout() {
    return this.once('layout', async () =>
      buildImage({ context: await contextOf('static'), output: join(this.dir, 'image') }),
    );
  }

  /** The runtime as the agent uses it, with the image on the node. */
  runtime(): Promise<ContainerRuntime> {
    return this.once('runtime', async () => {
      const { layout, digest } = await this.layout();
      const repository = `127.0.0.1:${registryPort}/bench/static`;
      await this.registry();
      await pushImage({ layout, destination: `${repository}:1`, plainHttp: true });
      const authFile = join(this.dir, 'auth.json');
      await writeFile(authFile, '{"auths":{}}', { mode: 0o600 });
      const runtime = createRuntime({
        stateDir: join(this.dir, 'runtime'),
        cgroup: 'bhbench',
        nftTable: 'bhbench',
        vethPrefix: 'bhb',
        network: '10.203.0.0/16',
        idBase: 3_221_225_472,
        insecureRegistries: [`127.0.0.1:${registryPort}`],
        registryAuthFile: authFile,
      });
      this.cleanUps.push(() => runtime.destroy());
      await runtime.reconcile();
      await runtime.ensureImage({ repository, digest });
      this.pulled = {
        repository,
        digest,
        config: {
          entrypoint: [],
          cmd: [],
          env: [],
          workingDir: '/',
          user: '0',
          exposedPorts: [],
          stopSignal: null,
        },
      };
      return runtime;
    });
  }

  private registry() {
    return this.once('registry', async () => {
      const config = join(this.dir, 'registry.json');
      await writeFile(
        config,
        JSON.stringify({
          version: 0.1,
          storage: { filesystem: { rootdirectory: join(this.dir, 'registry') } },
          http: { addr: `127.0.0.1:${registryPort}` },
        }),
      );
      const server = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
      this.cleanUps.push(async () => server.kill('SIGKILL'));
      await until(
        'the registry answers',
        async () => (await fetch(`http://127.0.0.1:${registryPort}/v2/`)).ok,
      );
    });
  }

  /** Docker with the same image. */
  docker(): Promise<Docker> {
    return this.once('docker', async () => {
      const { layout } = await this.layout();
      const archive = join(this.dir, 'image.tar');
      await mkdir(join(this.dir, 'docker'));
      await run('skopeo', [
        'copy',
        '-q',
        `oci:${layout}`,
        `docker-archive:${archive}:${benchImage}`,
      ]);
      const docker = await Docker.start(join(this.dir, 'docker'));
      this.cleanUps.push(() => docker.stop());
      await docker.cli('load', '-q', '-i', archive);
      return docker;
    });
  }

  /** A whole platform: the one of the end-to-end tests. */
  platform(): Promise<Platform> {
    return this.once('platform', async () => {
      const write = () => undefined;
      const { root, stateDir } = e2eOptions;
      this.cleanUps.push(() => stopPlatform({ root, stateDir, purge: true, write }));
      await startPlatform({ ...e2eOptions, write });
      const connection = await Platform.connect();
      this.cleanUps.push(() => connection.release());
      return connection;
    });
  }
}
