import { execFile } from 'node:child_process';
import { globSync } from 'node:fs';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { jetstream } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { connect, credsAuthenticator } from 'nats';
import { readCredentials } from '../../deploy/credentials.ts';
import { renewCertificates } from '../../deploy/renew.ts';
import { lockHolder } from '../../deploy/supervise.ts';
import { apiReplicas, edgeReplicas } from '../../deploy/replicas.ts';
import { layout, makeSettings, type Layout, type PlatformOptions } from '../../deploy/settings.ts';
import { buildImage, contextOf, pushImage } from '../../examples/build.ts';
import { ApiClient } from './client.ts';
import type { TenantFixture } from './tenant.ts';
import { until } from './until.ts';

const run = promisify(execFile);

/** A whole platform beside whatever else runs here: nothing of it is named or numbered alike. */
export const e2eOptions = {
  root: dirname(dirname(import.meta.dirname)),
  stateDir: '/tmp/bulkhead-e2e',
  portBase: 16_000,
  node: {
    cgroup: 'bhe2e',
    nftTable: 'bhe2e',
    vethPrefix: 'bhe',
    network: '10.250.0.0/16',
    idBase: 2_684_354_560,
    diskPoolMiB: 24_576,
  },
} satisfies PlatformOptions;

type Numbered = 'api' | 'edge' | 'haproxy';
export async function killService(paths: Layout, service: string): Promise<void> {
  const pid = await lockHolder(paths, service);
  if (pid === null) throw new Error(`${service} does not run`);
  process.kill(pid, 'SIGKILL');
  await until(`${service} runs again`, async () => {
    const next = await lockHolder(paths, service);
    return next !== null && next !== pid;
  });
}

export type ServiceName =
  'postgres' | 'nats' | 'registry' | 'balancer' | 'gate' | 'agent' | Numbered | `${Numbered}-2`;

type Options = typeof e2eOptions & Pick<PlatformOptions, 'apiReplicas' | 'edges'>;

/** The running platform, seen from outside and, where a scenario needs it, from the machine below. */
export class Platform {
  readonly apiUrl: string;
  readonly edgePort: number;
  /** Of all edges. */
  readonly edgePorts: readonly number[];
  /** GraphQL of each replica of the API itself, beside the balancer that is at `apiUrl`. */
  readonly replicaUrls: readonly string[];
  readonly registry: string;
  readonly platformPorts: readonly number[];
  readonly operator: ApiClient;
  private readonly natsUrl: string;
  private readonly cgroup: string;
  private readonly paths: Layout;
  private readonly images = new Map<string, Promise<string>>();
  private readonly work: string;

  private constructor(options: Options, operator: ApiClient, work: string) {
    const settings = makeSettings(options);
    const { ports } = settings;
    this.apiUrl = operator.url;
    this.edgePort = ports.edge;
    this.registry = `127.0.0.1:${ports.registry}`;
    this.natsUrl = `nats://127.0.0.1:${ports.nats}`;
    this.platformPorts = Object.values(ports);
    this.cgroup = options.node.cgroup;
    this.paths = layout(options.stateDir);
    this.edgePorts = edgeReplicas(settings, this.paths).map(({ port }) => port);
    this.replicaUrls = apiReplicas(settings).map(({ port }) => `http://127.0.0.1:${port}/graphql`);
    this.operator = operator;
    this.work = work;
  }

  /** Signs in as the operator of the platform that `setup.ts` started, or of another. */
  static async connect(options: Options = e2eOptions): Promise<Platform> {
    const credentials = await readCredentials(layout(options.stateDir));
    const { ports } = makeSettings(options);
    if (credentials === null) throw new Error('the platform of these tests does not run');
    const anonymous = new ApiClient(`http://127.0.0.1:${ports.api}/graphql`);
    const { signIn } = await anonymous.ask(
      `mutation ($input: SignInInput!) { signIn(input: $input) { token } }`,
      { input: credentials.operator },
    );
    const work = await mkdtemp(join(tmpdir(), 'bulkhead-e2e-images-'));
    return new Platform(options, anonymous.as(signIn.token), work);
  }

  /** Deletes what this connection kept; the platform runs on for the next file. */
  async release(): Promise<void> {
    await rm(this.work, { recursive: true, force: true });
  }

  /**
   * Builds one of the samples or of `e2e/images` and pushes it with skopeo, signed in as the
   * tenant's owner; gives the reference to deploy.
   */
  async push(
    tenant: TenantFixture,
    name: string,
    tag: string,
    owner = tenant.slug,
  ): Promise<string> {
    if (!this.images.has(name)) this.images.set(name, this.build(name));
    const destination = `${this.registry}/${owner}/${tag}`;
    const authFile = join(this.work, `${tenant.slug}.json`);
    const auth = Buffer.from(`${tenant.email}:${tenant.password}`).toString('base64');
    await writeFile(authFile, JSON.stringify({ auths: { [this.registry]: { auth } } }), {
      mode: 0o600,
    });
    const layoutDir = await this.images.get(name)!;
    await pushImage({ layout: layoutDir, destination, authFile, plainHttp: true });
    return destination;
  }

  private async build(name: string): Promise<string> {
    const output = join(this.work, name);
    await buildImage({ context: await contextOf(name), output });
    return output;
  }

  /** kill -9 of a service's main process; returns when another one has taken its place. */
  kill(service: ServiceName): Promise<void> {
    return killService(this.paths, service);
  }

  /** Keys of a bucket of NATS, as the API sees it. */
  async keysOf(bucket: string): Promise<string[]> {
    const creds = await readFile(join(this.paths.apiKeys, 'nats.creds'));
    const nc = await connect({ servers: this.natsUrl, authenticator: credsAuthenticator(creds) });
    try {
      const keys: string[] = [];
      const kv = await new Kvm(jetstream(nc)).open(bucket);
      for await (const key of await kv.keys()) keys.push(key);
      return keys;
    } finally {
      await nc.close();
    }
  }

  /** As twice a day, with a certificate of the API that was lost; answers who was restarted. */
  async renewLostCertificate(): Promise<string[]> {
    await rm(join(this.paths.apiTls, 'cert.pem'));
    return renewCertificates(join(this.paths.run, '..'));
  }

  /** A service that hangs: it has its connections and locks, and does nothing. Answers how to end that. */
  async freeze(service: ServiceName): Promise<() => void> {
    const pid = await lockHolder(this.paths, service);
    if (pid === null) throw new Error(`${service} does not run`);
    process.kill(pid, 'SIGSTOP');
    return () => process.kill(pid, 'SIGCONT');
  }

  /** Stops NATS, deletes everything it stored, and starts it again. */
  async wipeNats(): Promise<void> {
    const service = join(this.paths.service, 'nats');
    await run('sv', ['-w', '20', 'force-stop', service]);
    await rm(join(this.paths.nats, 'jetstream'), { recursive: true });
    await run('sv', ['start', service]);
  }

  /** The process that is PID 1 inside a container, by its number out here. */
  async containerPid(instance: string): Promise<number> {
    for (const file of this.cgroups(instance).map((dir) => join(dir, 'cgroup.procs'))) {
      const pids = (await readFile(file, 'utf8')).split('\n').filter((line) => line !== '');
      for (const pid of pids) {
        const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
        if (/^NSpid:.*\s1$/m.test(status)) return Number(pid);
      }
    }
    throw new Error(`${instance} has no process`);
  }

  /** What a file of a container's cgroup says: `pids.max`. */
  async cgroupFile(instance: string, name: string): Promise<string> {
    const [file] = this.cgroups(instance).flatMap((dir) => globSync(join(dir, name)));
    if (file === undefined) throw new Error(`${instance} has no ${name}`);
    return (await readFile(file, 'utf8')).trim();
  }

  private cgroups(instance: string): string[] {
    return globSync([
      `/sys/fs/cgroup/*/${this.cgroup}/*/${instance}`,
      `/sys/fs/cgroup/${this.cgroup}/*/${instance}`,
    ]);
  }

  /** A container's address on its node's network. */
  async addressOf(instance: string): Promise<string> {
    const pid = String(await this.containerPid(instance));
    const { stdout } = await run('nsenter', [
      '-t',
      pid,
      '-n',
      'ip',
      '-j',
      '-4',
      'addr',
      'show',
      'eth0',
    ]);
    const [device] = JSON.parse(stdout) as { addr_info: { local: string }[] }[];
    return device!.addr_info[0]!.local;
  }

  /** This machine's own IPv4 addresses. */
  get hostAddresses(): string[] {
    return Object.values(networkInterfaces())
      .flatMap((addresses) => addresses ?? [])
      .filter(({ family }) => family === 'IPv4')
      .map(({ address }) => address)
      .filter((address) => !address.startsWith('10.250.'));
  }

  /** Whether the host can open a TCP connection there. */
  reaches(host: string, port: number): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = net.connect({ host, port, timeout: 2_000 });
      const end = (reached: boolean) => {
        socket.destroy();
        resolve(reached);
      };
      socket
        .once('connect', () => end(true))
        .once('error', () => end(false))
        .once('timeout', () => end(false));
    });
  }

  /** Processes, cgroups and files on this machine that bear an instance's name. */
  async remainsOf(instance: string): Promise<string[]> {
    const remains = [
      ...this.cgroups(instance),
      ...globSync(`${this.paths.node}/**/${instance}*`, { exclude: ['**/diff/**'] }),
    ];
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (command.includes(instance)) remains.push(command.replaceAll('\0', ' '));
    }
    return remains;
  }
}

export const platform = () => Platform.connect();
