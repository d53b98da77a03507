/**
 * An agent without containers, on a real NATS: follows its prefix of `desired`, refuses older
 * generations, reports, beats. What becomes of an instance is decided by its image's digest.
 */
import { jetstream } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { instanceSpec, makeSealingKeyPair, streams, subjects, unseal } from '@bulkhead/protocol';
import type {
  InstanceExit,
  InstanceReport,
  InstanceSpec,
  ReportedState,
  RunningSpec,
} from '@bulkhead/protocol';
import type { JWK } from 'jose';
import { connect } from 'nats';
import type { NatsConnection } from 'nats';

/** What happens to instances of an image: all is well unless said otherwise. */
export type Fate = 'ready' | 'image-not-found' | 'crash' | 'hang' | 'never-listens';

export interface SimInstance {
  spec: RunningSpec;
  generation: number;
  state: ReportedState;
  address: string;
}

let lastSeq = 0;
/** Microseconds, made monotonic over all agents of a test. */
function nextSeq(): number {
  lastSeq = Math.max(lastSeq + 1, Date.now() * 1000);
  return lastSeq;
}

let lastAddress = 0;
/** Of all agents of a test, as hosts of one network would have them. */
function nextAddress(): string {
  lastAddress += 1;
  return `10.201.${lastAddress >> 8}.${lastAddress & 255}`;
}

export class SimAgent {
  readonly instances = new Map<string, SimInstance>();
  readonly fates = new Map<string, Fate>();
  /** Every specification delivered, in order. */
  readonly delivered: InstanceSpec[] = [];
  /** While true nothing is reported and no heart beats, as if the host were gone. */
  silent = false;
  capacity = { cpuMillis: 4000, memoryMiB: 8192, diskMiB: 50_000, maxInstances: 100 };
  #restarts = new Map<string, number>();
  #nc: NatsConnection | null = null;
  #timer: NodeJS.Timeout | null = null;

  private constructor(
    readonly id: string,
    private readonly url: string,
    private readonly privateKey: JWK,
  ) {}

  /** `register` makes the node and answers its id. */
  static async start(
    url: string,
    register: (sealingKey: JWK) => Promise<string>,
  ): Promise<SimAgent> {
    const keys = await makeSealingKeyPair();
    const agent = new SimAgent(await register(keys.publicKey), url, keys.privateKey);
    await agent.#connect();
    return agent;
  }

  async stop(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    await this.#nc?.close();
  }

  /** Reports everything it holds, as an agent does when it reconnects. */
  async reportAll(): Promise<void> {
    for (const { spec, state } of this.instances.values()) await this.report(spec.instance, state);
  }

  /** The process of an instance ends, and an agent restarts it. */
  async crash(instance: string): Promise<void> {
    await this.#crash(instance);
    await this.#become(instance, 'ready');
  }

  async report(
    instance: string,
    state: ReportedState,
    more: Partial<InstanceReport> = {},
  ): Promise<void> {
    if (this.silent || !this.#nc) return;
    const held = this.instances.get(instance);
    const report: InstanceReport = {
      v: 1,
      instance,
      generation: held?.generation ?? 1,
      seq: nextSeq(),
      at: new Date().toISOString(),
      state,
      address: held?.spec.port ? { host: held.address, port: held.spec.port } : null,
      restarts: this.#restarts.get(instance) ?? 0,
      message: null,
      exit: null,
      ...more,
    };
    const subject = subjects.report(this.id, instance);
    await jetstream(this.#nc).publish(subject, JSON.stringify(report), { retries: 10 });
  }

  async openEnv(instance: string): Promise<unknown> {
    const sealed = this.instances.get(instance)?.spec.sealedEnv ?? '';
    return unseal(sealed, this.privateKey, instance);
  }

  async #connect(): Promise<void> {
    this.#nc = await connect({
      servers: this.url,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 100,
    });
    await this.#follow();
    this.#followAgain().catch(() => undefined);
    this.#beat();
    this.#timer = setInterval(() => this.#beat(), 250);
  }

  /** After a reconnection: the snapshot again, and all reports again. */
  async #followAgain(): Promise<void> {
    for await (const status of this.#nc?.status() ?? []) {
      if (status.type !== 'reconnect') continue;
      await this.#follow();
      await this.reportAll();
    }
  }

  async #follow(): Promise<void> {
    if (!this.#nc) return;
    try {
      const bucket = await new Kvm(jetstream(this.#nc)).open(streams.desiredBucket);
      const watch = await bucket.watch({ key: `${this.id}.>` });
      void (async () => {
        for await (const entry of watch) {
          if (entry.operation !== 'PUT') continue;
          // What fails with the connection is reported again after the reconnection.
          this.#converge(instanceSpec.parse(entry.json())).catch(() => undefined);
        }
      })();
    } catch {
      setTimeout(() => void this.#follow(), 100);
    }
  }

  async #converge(spec: InstanceSpec): Promise<void> {
    this.delivered.push(spec);
    const held = this.instances.get(spec.instance);
    if (this.silent || (held && held.generation >= spec.generation)) return;
    if (spec.desired === 'gone') {
      if (held) held.generation = spec.generation;
      await this.report(spec.instance, 'gone', { address: null, generation: spec.generation });
      this.instances.delete(spec.instance);
      return;
    }
    const { instance, generation } = spec;
    // What runs runs on, at its address.
    const { address, state } = held ?? { address: nextAddress(), state: 'pulling' as const };
    this.instances.set(instance, { spec, generation, state, address });
    if (spec.paused) return this.#become(instance, 'paused');
    if (held) return this.#become(instance, held.state === 'paused' ? 'ready' : held.state);
    await this.#start(spec);
  }

  async #start({ instance, image }: RunningSpec): Promise<void> {
    await this.#become(instance, 'pulling');
    switch (this.fates.get(image.digest) ?? 'ready') {
      case 'hang':
        return;
      case 'image-not-found':
        return this.#become(instance, 'failed', {
          exit: exitOf('image-not-found', null, 'the registry has no such image'),
        });
      case 'crash':
        await this.#crash(instance);
        await this.#crash(instance);
        return;
      case 'never-listens':
        return this.#become(instance, 'backoff', {
          exit: exitOf('health', null, 'nothing listens on port 8080'),
        });
      case 'ready':
        await this.#become(instance, 'starting');
        await this.#become(instance, 'running');
        return this.#become(instance, 'ready');
    }
  }

  async #crash(instance: string): Promise<void> {
    this.#restarts.set(instance, (this.#restarts.get(instance) ?? 0) + 1);
    await this.#become(instance, 'backoff', { exit: exitOf('exited', 3, 'exited with 3') });
    await this.#become(instance, 'starting', { exit: exitOf('exited', 3, 'exited with 3') });
  }

  async #become(
    instance: string,
    state: ReportedState,
    more: Partial<InstanceReport> = {},
  ): Promise<void> {
    const held = this.instances.get(instance);
    if (!held) return;
    held.state = state;
    await this.report(instance, state, more);
  }

  #beat(): void {
    if (this.silent || !this.#nc || this.#nc.isClosed()) return;
    const beat = {
      v: 1,
      at: new Date().toISOString(),
      agentVersion: 'sim',
      capacity: this.capacity,
      facts: {
        hostname: 'sim',
        kernel: '6',
        os: 'sim',
        cgroup: 'v2',
        crun: '1',
        conmon: '2',
        diskLimit: 'none',
        diskPoolMiB: null,
        missingWalls: ['disk-limit'],
      },
      instances: this.instances.size,
      images: [],
    };
    this.#nc.publish(subjects.heartbeat(this.id), JSON.stringify(beat));
  }
}

function exitOf(
  reason: InstanceExit['reason'],
  exitCode: number | null,
  message: string,
): InstanceExit {
  const at = new Date().toISOString();
  return { reason, exitCode, signal: null, message, lastLines: ['last words'], at };
}
