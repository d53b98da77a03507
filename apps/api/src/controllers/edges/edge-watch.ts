/**
 * What the edges say, in memory: which are alive (`edge.heartbeat.*`) and which revision of each
 * host they serve by (`edge.applied.*`). Plain NATS, heard by every replica alike; nothing of it
 * is kept, because asking again (publishing the route again) brings it back.
 */
import { edgeApplied, edgeHeartbeat, subjects } from '@bulkhead/protocol';
import type { Msg, NatsConnection, Subscription } from 'nats';
import type { EdgesSnapshot } from '../rollout/app-snapshot.ts';

/** An edge unheard of for this long is not waited for, milliseconds. */
const aliveMs = 5_000;
/** Edges beat once a second: after listening for this long we know which live, milliseconds. */
const listenMs = 2_500;
/** Edges unheard of for this long are forgotten altogether, milliseconds. */
const forgetMs = 60_000;

interface Edge {
  heardAt: number;
  readonly applied: Map<string, number>;
}

export interface EdgeWatchOptions {
  /** A steady clock, milliseconds. */
  readonly now: () => number;
  /** An edge moved on with a host of this app. */
  readonly nudge: (appId: string) => void;
}

export class EdgeWatch {
  readonly #options: EdgeWatchOptions;
  readonly #edges = new Map<string, Edge>();
  readonly #appOfHost = new Map<string, string>();
  #listeningSince: number | null = null;
  #subscriptions: Subscription[] = [];

  constructor(options: EdgeWatchOptions) {
    this.#options = options;
  }

  /** Starts to listen on a connection; call it once for each connection. */
  listen(nc: NatsConnection): void {
    this.connected();
    this.#subscriptions = [
      nc.subscribe(subjects.allEdgeHeartbeats, {
        callback: (_error, message) => this.#beat(message),
      }),
      nc.subscribe(subjects.allEdgeApplied, {
        callback: (_error, message) => this.#applied(message),
      }),
    ];
  }

  /** The connection is (again) there: what was said meanwhile is unknown for a moment. */
  connected(): void {
    this.#listeningSince = this.#options.now();
  }

  disconnected(): void {
    this.#listeningSince = null;
  }

  stop(): void {
    for (const subscription of this.#subscriptions) subscription.unsubscribe();
    this.#subscriptions = [];
    this.disconnected();
  }

  look(host: string): EdgesSnapshot {
    const now = this.#options.now();
    const alive: Edge[] = [];
    for (const [name, edge] of this.#edges) {
      if (now - edge.heardAt < aliveMs) alive.push(edge);
      else if (now - edge.heardAt > forgetMs) this.#edges.delete(name);
    }
    return {
      known: this.#listeningSince !== null && now - this.#listeningSince >= listenMs,
      applied: alive.map((edge) => edge.applied.get(host) ?? null),
    };
  }

  /** Which app to nudge when an edge speaks of `host`. */
  remember(host: string, appId: string): void {
    this.#appOfHost.set(host, appId);
  }

  forget(host: string): void {
    this.#appOfHost.delete(host);
    for (const edge of this.#edges.values()) edge.applied.delete(host);
  }

  #beat(message: Msg): void {
    const parsed = edgeHeartbeat.safeParse(jsonOf(message));
    if (parsed.success) this.#edgeOf(message).heardAt = this.#options.now();
  }

  #applied(message: Msg): void {
    const parsed = edgeApplied.safeParse(jsonOf(message));
    if (!parsed.success) return;
    const { host, revision } = parsed.data;
    const edge = this.#edgeOf(message);
    edge.heardAt = this.#options.now();
    const before = edge.applied.get(host);
    edge.applied.set(host, revision);
    const appId = this.#appOfHost.get(host);
    // Only news wakes anybody: an edge that repeats itself must not keep a loop turning.
    if (appId && (before === undefined || revision > before)) this.#options.nudge(appId);
  }

  #edgeOf(message: Msg): Edge {
    const name = message.subject.split('.')[2] ?? '';
    const edge = this.#edges.get(name) ?? { heardAt: this.#options.now(), applied: new Map() };
    this.#edges.set(name, edge);
    return edge;
  }
}

function jsonOf(message: Msg): unknown {
  try {
    return message.json();
  } catch {
    return null;
  }
}
