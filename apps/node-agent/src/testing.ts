/** What the service specs stand on: a real nats-server, a stand-in for the control plane, and an agent on a fake host. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  instanceReport,
  logBatch,
  makeSealingKeyPair,
  seal,
  subjects,
  type InstanceReport,
  type InstanceSpec,
  type LogBatch,
  type RunningSpec,
  type SealingKeyPair,
} from '@bulkhead/protocol';
import type { ContainerRuntime } from '@bulkhead/runtime';
import { jetstream, jetstreamManager, type JetStreamManager } from '@nats-io/jetstream';
import { Kvm, type KV } from '@nats-io/kv';
import { connect, type ConnectionOptions, type NatsConnection } from 'nats';
import { pino } from 'pino';
import { onTestFinished } from 'vitest';
import { Agent } from './agent.ts';
import { FakeRuntime } from './fake-runtime.ts';
import type { RestartPolicy } from './memory.ts';
import { readSettings } from './settings.ts';
import { appId, running, tenantId } from './spec-fixtures.ts';

export const node = 'naaaaaaaaaaaa';

/** Resolves with what `probe` gives as soon as that is neither null, undefined nor false. */
export async function eventually<T>(
  what: string,
  probe: () => T | Promise<T>,
  deadlineMs = 15_000,
): Promise<NonNullable<Exclude<T, false>>> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const found = await probe();
    if (found !== null && found !== undefined && found !== false) {
      return found as NonNullable<Exclude<T, false>>;
    }
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await delay(20);
  }
}

/** Again when the connection was just being lost. */
async function persistently<T>(work: () => Promise<T>): Promise<T> {
  return work().catch(work);
}

export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'bulkhead-agent-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

function natsServerBinary(): string {
  const found = process.env['NATS_SERVER_BIN'];
  if (!found) throw new Error('no nats-server: `npm test` fetches one and sets NATS_SERVER_BIN');
  return found;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** A nats-server that can be stopped, wiped and started again on its port. */
export class NatsServer {
  readonly port: number;
  readonly #directory: string;
  readonly #config: string;
  #process: ChildProcess | null = null;

  private constructor(port: number, directory: string, config: string) {
    this.port = port;
    this.#directory = directory;
    this.#config = config;
  }

  /** `config` is added to the configuration file. */
  static async start(config = ''): Promise<NatsServer> {
    const server = new NatsServer(await freePort(), await temporaryDirectory(), config);
    await server.up();
    onTestFinished(() => server.down());
    return server;
  }

  get url(): string {
    return `nats://127.0.0.1:${this.port}`;
  }

  async up(): Promise<void> {
    const file = join(this.#directory, 'nats.conf');
    const store = join(this.#directory, 'store');
    const base = `listen: "127.0.0.1:${this.port}"\njetstream { store_dir: ${JSON.stringify(store)} }\n`;
    await writeFile(file, base + this.#config);
    const child = spawn(natsServerBinary(), ['-c', file], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process = child;
    let output = '';
    child.stderr.on('data', (data: Buffer) => (output += data.toString()));
    await eventually('nats-server to be ready', () => {
      if (child.exitCode !== null) throw new Error(`nats-server ended:\n${output}`);
      return output.includes('Server is ready');
    });
  }

  async down(): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (child === null || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  /** Loses everything it ever stored. */
  async wipe(): Promise<void> {
    await rm(join(this.#directory, 'store'), { recursive: true, force: true });
  }
}

/** What the controllers do, as far as an agent can tell: streams, desired keys, reports heard, logs kept. */
export class ControlPlane {
  readonly reports: InstanceReport[] = [];
  readonly batches: LogBatch[] = [];
  readonly #connection: NatsConnection;
  readonly manager: JetStreamManager;
  #desired!: KV;

  private constructor(connection: NatsConnection, manager: JetStreamManager) {
    this.#connection = connection;
    this.manager = manager;
  }

  static async on(server: NatsServer, options: ConnectionOptions = {}): Promise<ControlPlane> {
    const connection = await connect({
      servers: server.url,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 100,
      ...options,
    });
    onTestFinished(() => connection.close());
    const plane = new ControlPlane(connection, await jetstreamManager(connection));
    await plane.makeStreams();
    plane.#listen();
    return plane;
  }

  async makeStreams(): Promise<void> {
    this.#desired = await new Kvm(this.#connection).create('desired');
    await this.manager.streams.add({ name: 'reports', subjects: ['report.*.*'] });
    await this.manager.streams.add({ name: 'logs', subjects: ['logs.>'] });
  }

  #listen(): void {
    const take = <T>(subject: string, parse: (value: unknown) => T, into: T[]) =>
      this.#connection.subscribe(subject, {
        callback: (_, message) => void into.push(parse(message.json())),
      });
    take('report.>', (value) => instanceReport.parse(value), this.reports);
    take('logs.>', (value) => logBatch.parse(value), this.batches);
  }

  get connection(): NatsConnection {
    return this.#connection;
  }

  async want(spec: InstanceSpec): Promise<void> {
    await this.wantGarbage(spec.instance, JSON.stringify(spec));
  }

  async wantGarbage(instance: string, text: string): Promise<void> {
    await persistently(() => this.#desired.put(subjects.desiredKey(node, instance), text));
  }

  async dropKey(instance: string): Promise<void> {
    await persistently(() => this.#desired.purge(subjects.desiredKey(node, instance)));
  }

  latest(instance: string): InstanceReport | undefined {
    return this.reports
      .filter((r) => r.instance === instance)
      .sort((a, b) => a.seq - b.seq)
      .at(-1);
  }

  /** Waits until the latest report of the instance says so. */
  async state(instance: string, state: InstanceReport['state']): Promise<InstanceReport> {
    return eventually(`${instance} to be ${state} (is ${this.latest(instance)?.state})`, () => {
      const report = this.latest(instance);
      return report?.state === state && report;
    });
  }

  /** The log lines heard of an instance: `stream: text` for the platform's, the text for the app's. */
  lines(instance: string): string[] {
    return this.batches
      .filter((batch) => batch.instance === instance)
      .flatMap((batch) => batch.lines)
      .map((line) => (line.stream === 'platform' ? `platform: ${line.text}` : line.text));
  }

  /** What the stream keeps, in order; unlike what was heard it has nothing twice. */
  async storedLines(): Promise<string[]> {
    return persistently(() => this.#readStoredLines());
  }

  async #readStoredLines(): Promise<string[]> {
    const consumer = await jetstream(this.#connection).consumers.get('logs');
    const { num_pending: waiting } = await consumer.info();
    const lines: string[] = [];
    if (waiting === 0) return lines;
    for await (const message of await consumer.fetch({ max_messages: waiting, expires: 2000 })) {
      for (const line of logBatch.parse(message.json()).lines) {
        if (line.stream !== 'platform') lines.push(line.text);
      }
    }
    return lines;
  }
}

/** Fast enough for specs, and still a back-off. */
const quickPolicy: RestartPolicy = {
  firstDelay: 30,
  longestDelay: 200,
  healthyAfter: 60_000,
  hopelessDelay: 60_000,
  loopAfter: 5,
  longestLoopDelay: 400,
};

/** A host: its state directory, its containers and, at times, an agent. */
export class Host<Runtime extends ContainerRuntime = FakeRuntime> {
  readonly runtime: Runtime;
  readonly nodeDir: string;
  readonly keys: SealingKeyPair;
  readonly #url: string;
  readonly #env: Record<string, string>;
  agent: Agent | null = null;

  private constructor(
    runtime: Runtime,
    nodeDir: string,
    keys: SealingKeyPair,
    url: string,
    env: Record<string, string>,
  ) {
    this.runtime = runtime;
    this.nodeDir = nodeDir;
    this.keys = keys;
    this.#url = url;
    this.#env = env;
  }

  static on(server: NatsServer, env: Record<string, string> = {}): Promise<Host> {
    return Host.over(new FakeRuntime(), server, env);
  }

  static async over<Runtime extends ContainerRuntime>(
    runtime: Runtime,
    server: NatsServer,
    env: Record<string, string> = {},
  ): Promise<Host<Runtime>> {
    const keys = await makeSealingKeyPair();
    const host = new Host(runtime, await temporaryDirectory(), keys, server.url, env);
    onTestFinished(() => host.stopAgent());
    return host;
  }

  async startAgent(policy: Partial<RestartPolicy> = {}): Promise<Agent> {
    const settings = readSettings({ NODE_DIR: this.nodeDir, NATS_URL: this.#url, ...this.#env });
    const sealingKey = this.keys.privateKey as Agent['identity']['sealingKey'];
    const agent = new Agent({
      settings,
      identity: { id: node, name: 'test', sealingKey },
      runtime: this.runtime,
      version: 'test',
      missingWalls: ['io-limit'],
      log: pino({ level: process.env['TEST_LOG_LEVEL'] ?? 'silent' }),
      policy: { ...quickPolicy, ...policy },
    });
    this.agent = agent;
    await agent.start();
    return agent;
  }

  async stopAgent(): Promise<void> {
    await this.agent?.stop();
    this.agent = null;
  }

  /** A specification with the app's config sealed for this host. */
  async spec(
    over: Partial<RunningSpec> = {},
    config: Record<string, string> = {},
  ): Promise<RunningSpec> {
    const instance = over.instance ?? 'iaaaaaaaaaaaa';
    const sealedEnv = await seal(config, this.keys.publicKey, instance);
    return running({ port: null, ...over, instance, sealedEnv });
  }
}

export const logSubject = (instance: string) => subjects.logs(tenantId, appId, node, instance);
