/** An edge without HAProxy, on a real NATS: follows `routes`, says what it applied, beats. */
import { jetstream } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { route, streams, subjects } from '@bulkhead/protocol';
import type { Route } from '@bulkhead/protocol';
import { connect } from 'nats';
import type { NatsConnection } from 'nats';

export class SimEdge {
  readonly routes = new Map<string, Route>();
  /** While true it applies routes and says nothing of it. */
  mute = false;
  #nc: NatsConnection | null = null;
  #timer: NodeJS.Timeout | null = null;

  private constructor(readonly id: string) {}

  static async start(url: string, id = 'edge1'): Promise<SimEdge> {
    const edge = new SimEdge(id);
    edge.#nc = await connect({ servers: url, maxReconnectAttempts: -1, reconnectTimeWait: 100 });
    await edge.#follow();
    edge.#beat();
    edge.#timer = setInterval(() => edge.#beat(), 200);
    void edge.#followAgain();
    return edge;
  }

  async stop(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    await this.#nc?.close();
  }

  backends(host: string): string[] {
    return this.routes.get(host)?.backends.map(({ instance }) => instance) ?? [];
  }

  async #followAgain(): Promise<void> {
    for await (const status of this.#nc?.status() ?? []) {
      if (status.type === 'reconnect') await this.#follow();
    }
  }

  async #follow(): Promise<void> {
    if (!this.#nc) return;
    try {
      const bucket = await new Kvm(jetstream(this.#nc)).open(streams.routesBucket);
      const watch = await bucket.watch();
      void (async () => {
        for await (const entry of watch) {
          if (entry.operation === 'PUT') this.#apply(route.parse(entry.json()));
          else this.routes.delete(entry.key);
        }
      })();
    } catch {
      setTimeout(() => void this.#follow(), 100);
    }
  }

  #apply(value: Route): void {
    const known = this.routes.get(value.host);
    if (known && known.revision > value.revision) return;
    this.routes.set(value.host, value);
    if (this.mute) return;
    const { host, revision } = value;
    this.#nc?.publish(subjects.edgeApplied(this.id), JSON.stringify({ v: 1, host, revision }));
  }

  #beat(): void {
    if (!this.#nc || this.#nc.isClosed()) return;
    const beat = { v: 1, at: new Date().toISOString(), routes: this.routes.size };
    this.#nc.publish(subjects.edgeHeartbeat(this.id), JSON.stringify(beat));
  }
}
