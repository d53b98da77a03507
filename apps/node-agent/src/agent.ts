import { join } from 'node:path';
import type { ContainerRuntime } from '@bulkhead/runtime';
import type { Logger } from 'pino';
import { Bus } from './bus.ts';
import { DesiredStore } from './desired-store.ts';
import { DesiredWatch } from './desired-watch.ts';
import { JsonFolder } from './files.ts';
import { HeartbeatSender, measureCapacity } from './heartbeat.ts';
import type { NodeIdentity } from './identity.ts';
import { LogShipper } from './log-shipper.ts';
import { defaultRestartPolicy, type InstanceMemory, type RestartPolicy } from './memory.ts';
import { AgentMetrics, type AgentHealth } from './metrics.ts';
import { RestartPacer } from './pacer.ts';
import { Reconciler } from './reconciler.ts';
import { Reporter, Sequence } from './reporter.ts';
import type { Settings } from './settings.ts';
import { Streams } from './streams/dialer.ts';
import { timedRuntime } from './timed-runtime.ts';

/** Everything is reported again this often, in case what heard it has lost it, ms. */
const repeatEveryMs = 1_800_000;
/** Restarts after a mass failure. */
const restartRate = { perSecond: 15, burst: 20 };

export interface AgentOptions {
  settings: Settings;
  identity: NodeIdentity;
  runtime: ContainerRuntime;
  version: string;
  /** Walls that this host lacks, as it may; for the node's facts. */
  missingWalls?: readonly string[];
  /** Those that the runtime counts in already; new ones when left out. */
  metrics?: AgentMetrics;
  log: Logger;
  policy?: RestartPolicy;
}

/** The agent of one host, wired together. */
export class Agent {
  readonly identity: NodeIdentity;
  readonly metrics: AgentMetrics;
  readonly #options: AgentOptions;
  readonly #runtime: ContainerRuntime;
  readonly #bus: Bus;
  readonly #desired: DesiredStore;
  readonly #sequence: Sequence;
  readonly #reporter: Reporter;
  readonly #logs: LogShipper;
  readonly #reconciler: Reconciler;
  readonly #watch: DesiredWatch;
  readonly #streams: Streams;
  #heartbeat: HeartbeatSender | null = null;
  #repeat: NodeJS.Timeout | null = null;
  #started = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.identity = options.identity;
    const { settings, identity, log } = options;
    const nodeDir = settings.NODE_DIR;
    const node = identity.id;
    const metrics = (this.metrics = options.metrics ?? new AgentMetrics());
    const runtime = (this.#runtime = timedRuntime(options.runtime, (verb, outcome, seconds) =>
      metrics.verbSeconds.observe({ verb, outcome }, seconds),
    ));
    const credsFile = join(nodeDir, 'nats.creds');
    this.#bus = new Bus({ url: settings.NATS_URL, user: node, credsFile, log });
    this.#desired = new DesiredStore(nodeDir, log);
    this.#sequence = new Sequence(nodeDir);
    this.#reporter = new Reporter(
      { node, bus: this.#bus, sequence: this.#sequence, log },
      (content) => this.#forgetIfDone(content.instance),
    );
    this.#logs = new LogShipper({ node, nodeDir, runtime, bus: this.#bus, metrics, log });
    this.#reconciler = new Reconciler({
      identity,
      runtime,
      desired: this.#desired,
      memories: new JsonFolder<InstanceMemory>(join(nodeDir, 'instances'), { durable: false }),
      reporter: this.#reporter,
      logs: this.#logs,
      metrics,
      policy: options.policy ?? defaultRestartPolicy,
      pacer: new RestartPacer(restartRate),
      log,
    });
    this.#streams = new Streams({
      ...{ node, tlsDir: join(nodeDir, 'tls'), runtime, metrics, log },
      tasks: this.#reconciler,
    });
    this.#watch = this.#makeWatch(node, log);
    this.#bus.onUp((connection) => {
      this.#watch.restart(connection);
      this.#streams.listen(connection);
      this.#reporter.resume();
      this.#logs.resume();
      void this.#heartbeat?.beat();
    });
    this.#bus.onDown(() => this.#watch.stop());
  }

  /** For /healthz. */
  health(): AgentHealth {
    return {
      status: this.#started ? 'ok' : 'starting',
      node: this.#options.identity.id,
      nats: this.#bus.connected ? 'connected' : 'away',
      instances: this.#desired.instances().length,
      reportsPending: this.#reporter.pending,
    };
  }

  /** Takes over what runs on this host; NATS is neither needed nor waited for. */
  async start(): Promise<void> {
    const { settings, identity, version, log } = this.#options;
    const runtime = this.#runtime;
    await this.#desired.load();
    await this.#sequence.load();
    await runtime.reconcile();
    await this.#logs.load();
    await this.#reconciler.load();
    this.metrics.observe({
      states: () => this.#reporter.states(),
      reportsPending: () => this.#reporter.pending,
      natsConnected: () => this.#bus.connected,
      diskPool: () => runtime.diskPool(),
      usage: () => runtime.usage(),
      load: () => runtime.load(),
    });
    const facts = {
      ...(await runtime.facts()),
      missingWalls: [...(this.#options.missingWalls ?? [])],
    };
    this.#heartbeat = new HeartbeatSender({
      node: identity.id,
      version,
      capacity: await measureCapacity(settings, facts),
      facts,
      bus: this.#bus,
      runtime,
      countInstances: () => this.#desired.instances().length,
      log,
    });
    for (const instance of this.#desired.instances()) this.#reconciler.nudge(instance);
    this.#bus.start();
    this.#heartbeat.start();
    this.#repeat = setInterval(() => this.#reporter.repeatAll(), repeatEveryMs);
    await this.#warnOfStrangers();
    this.#started = true;
  }

  /** Stops this process's part and leaves every container running. */
  async stop(): Promise<void> {
    if (this.#repeat !== null) clearInterval(this.#repeat);
    this.#heartbeat?.stop();
    this.#watch.stop();
    this.#streams.stop();
    await this.#reconciler.stop();
    await this.#logs.stop();
    this.#reporter.stop();
    await this.#bus.stop();
    await this.#desired.flush();
    await this.#sequence.flush();
  }

  #makeWatch(node: string, log: Logger): DesiredWatch {
    const refused = this.metrics.specsRefused;
    // What a host that was away must stop comes before anything it is to start. A snapshot that
    // breaks off keeps its starts for the next.
    const toStart = new Set<string>();
    return new DesiredWatch(
      node,
      {
        onSpec: (spec, inSnapshot) => {
          const { verdict, saved } = this.#desired.accept(spec);
          const { instance, generation } = spec;
          if (verdict === 'refused') {
            log.warn({ instance, generation }, 'refused a desired state older than the one held');
            refused.inc({ why: 'stale' });
          }
          // Told again what we know: whoever asks has not heard our answer. A snapshot asks nothing.
          if (verdict === 'repeated' && !inSnapshot) this.#reporter.repeat(instance);
          if (verdict !== 'accepted') return;
          saved.catch((error: unknown) => {
            log.error({ instance, err: error }, 'a desired state could not be written to disk');
          });
          if (inSnapshot && spec.desired === 'running') toStart.add(instance);
          else this.#reconciler.nudge(instance);
        },
        onKeyGone: (instance) => {
          this.#desired.noteKeyAbsent(instance);
          this.#forgetIfDone(instance);
        },
        onSnapshot: (seen) => {
          log.info({ instances: seen.size }, 'has the desired state of this node');
          for (const instance of toStart) this.#reconciler.nudge(instance);
          toStart.clear();
          for (const instance of this.#desired.instances()) {
            if (seen.has(instance)) continue;
            this.#desired.noteKeyAbsent(instance);
            this.#forgetIfDone(instance);
          }
        },
        onMalformed: () => refused.inc({ why: 'malformed' }),
      },
      log,
    );
  }

  /** A tombstone is kept until the control plane has heard and its key is gone. */
  #forgetIfDone(instance: string): void {
    if (!this.#desired.isForgettable(instance)) return;
    if (!this.#reporter.hasConfirmed(instance, 'gone')) return;
    this.#reconciler.forget(instance).catch((error: unknown) => {
      this.#options.log.warn(
        { instance, err: error },
        'the remains of an instance were not deleted',
      );
    });
  }

  /** Containers without a desired state are left alone: only `gone` removes. */
  async #warnOfStrangers(): Promise<void> {
    for (const { id } of await this.#runtime.list()) {
      if (this.#desired.get(id) !== undefined) continue;
      this.#options.log.warn({ instance: id }, 'runs without a desired state and is left alone');
    }
  }
}
