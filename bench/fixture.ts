import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  createRuntime,
  type ContainerRuntime,
  type ContainerSpec,
  type RuntimeOptions,
} from '@bulkhead/runtime';
import { startPlatform, stopPlatform } from '../deploy/platform.ts';
import { e2eOptions, Platform } from '../e2e/support/platform.ts';
import { until } from '../e2e/support/until.ts';
import { buildImage, contextOf, pushImage } from '../examples/build.ts';
import { BareCrun } from './crun.ts';
import { Docker } from './docker.ts';
import { blobOf, readManifest } from './layout.ts';
import { specOf } from './start.ts';

const run = promisify(execFile);

/** The name of the measured image in Docker. */
export const benchImage = 'bulkhead-bench:1';
export const benchCgroup = 'bhbench';
const registryPort = 16_090;
const prefix = '/tmp/bulkhead-bench-';

const runtimeOptions = (dir: string): RuntimeOptions => ({
  stateDir: join(dir, 'runtime'),
  cgroup: benchCgroup,
  nftTable: 'bhbench',
  vethPrefix: 'bhb',
  network: '10.251.0.0/16',
  idBase: 3_221_225_472,
  insecureRegistries: [`127.0.0.1:${registryPort}`],
  registryAuthFile: join(dir, 'auth.json'),
  // Room for thousands of layers in which nobody writes.
  diskPoolMiB: 8192,
});

/** Removes what a run that was killed left behind. */
async function sweep(): Promise<void> {
  for (const name of await readdir('/tmp')) {
    const dir = join('/tmp', name);
    if (!dir.startsWith(prefix) || isAlive(await pidIn(join(dir, 'pid')))) continue;
    for (const file of ['registry.pid', 'docker/docker.pid']) {
      const pid = await pidIn(join(dir, file));
      if (await isNamed(pid, ['docker-registry', 'dockerd'])) process.kill(pid!, 'SIGTERM');
    }
    if (await stat(join(dir, 'runtime')).catch(() => null))
      await createRuntime(runtimeOptions(dir)).destroy();
    await rm(dir, { recursive: true, force: true });
  }
}

async function pidIn(file: string): Promise<number | null> {
  const pid = Number(await readFile(file, 'utf8').catch(() => ''));
  return pid > 0 ? pid : null;
}

function isAlive(pid: number | null): boolean {
  try {
    return pid !== null && process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function isNamed(pid: number | null, names: readonly string[]): Promise<boolean> {
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
  return pid !== null && names.some((each) => name.trim() === each.slice(0, 15));
}

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
    await sweep();
    const bench = new Bench(await mkdtemp(prefix));
    await run('chmod', ['0711', bench.dir]);
    await writeFile(join(bench.dir, 'pid'), String(process.pid));
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

  /** At the latest when the run ends, in whatever way; it must do no harm twice. */
  finally(cleanUp: () => Promise<unknown>): void {
    this.cleanUps.push(cleanUp);
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
  layout() {
    return this.once('layout', async () =>
      buildImage({ context: await contextOf('static'), output: join(this.dir, 'image') }),
    );
  }

  /** The runtime as the agent uses it, with the image on the node. */
  runtime(): Promise<ContainerRuntime> {
    return this.once('runtime', async () => {
      const { layout, digest } = await this.layout();
      await this.registry();
      await writeFile(join(this.dir, 'auth.json'), '{"auths":{}}', { mode: 0o600 });
      const runtime = createRuntime(runtimeOptions(this.dir));
      this.cleanUps.push(() => runtime.destroy());
      await runtime.reconcile();
      this.pulled = await this.pull(runtime, 'static', layout, digest);
      return runtime;
    });
  }

  /** Brings an image onto the node, through the registry. */
  async pull(
    runtime: ContainerRuntime,
    name: string,
    layout: string,
    digest: string,
  ): Promise<ContainerSpec['image']> {
    const repository = `127.0.0.1:${registryPort}/bench/${name}`;
    await pushImage({ layout, destination: `${repository}:1`, plainHttp: true });
    await runtime.ensureImage({ repository, digest });
    return {
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
  }

  /** crun alone, with the configuration of one of our containers. */
  crun(): Promise<BareCrun> {
    return this.once('crun', async () => {
      const runtime = await this.runtime();
      const { layout } = await this.layout();
      const spec = specOf('ibench-template', this);
      await runtime.start(spec);
      const bundle = join(this.dir, 'runtime/run/containers', spec.id, 'bundle');
      const { layers } = await readManifest(layout);
      const crun = await BareCrun.create(
        join(this.dir, 'crun'),
        bundle,
        layers.map((layer) => blobOf(layout, layer.digest)),
      );
      this.cleanUps.push(() => crun.close());
      await runtime.remove(spec.id);
      return crun;
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
      await writeFile(join(this.dir, 'registry.pid'), String(server.pid));
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
      await mkdir(join(this.dir, 'docker'));
      const docker = await Docker.start(join(this.dir, 'docker'));
      this.cleanUps.push(() => docker.stop());
      await docker.load(layout, benchImage, this.dir);
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
