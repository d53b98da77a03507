/** What nodes say of instances: changed files and use, by streams that no client sees. */
import { setTimeout as delay } from 'node:timers/promises';
import {
  DomainError,
  fileChange,
  instanceUsage,
  unavailable,
  type FileChange,
} from '@bulkhead/protocol';
import type { InstancePlace } from '@bulkhead/tenancy';
import { endable } from '../graphql/endable.ts';
import { patiently } from '../graphql/patiently.ts';
import type { Relay } from './relay.ts';
import type { InstanceChanges, InstanceUsage } from './streams.models.ts';

const mostChanges = 10_000;
/** A node that has not said all until then is given up. Milliseconds. */
const changesMs = 25_000;
const firstIntervalMs = 1000;
/** A node that has said nothing until then is left out. Milliseconds. */
const usageMs = 5000;

export class Readings {
  readonly #relay: Relay;

  constructor(relay: Relay) {
    this.#relay = relay;
  }

  async changes({ id, nodeId }: InstancePlace): Promise<InstanceChanges> {
    const stream = await this.#relay.open(nodeId, { kind: 'changes', instance: id });
    const late = setTimeout(() => stream.close(), changesMs);
    const changes: FileChange[] = [];
    try {
      for await (const frame of stream.frames()) {
        if (frame.value !== undefined) changes.push(fileChange.parse(JSON.parse(frame.value)));
        if (frame.exit) return { changes, truncated: false };
        if (frame.failure) throw failureOf(frame.failure);
        if (changes.length >= mostChanges) return { changes, truncated: true };
      }
    } finally {
      clearTimeout(late);
      stream.close();
    }
    throw unavailable('The node of this instance was lost; try again');
  }

  /** Waits for the second reading of each, which has the rates. */
  async usage(find: () => Promise<readonly InstancePlace[]>): Promise<InstanceUsage[]> {
    const places = await find();
    const board = new Board(places);
    const ending = AbortSignal.timeout(usageMs);
    const stop = new AbortController();
    const signal = AbortSignal.any([ending, stop.signal]);
    const streams = this.#watch(board, firstIntervalMs, signal);
    while (!signal.aborted && !board.isComplete())
      await delay(50, undefined, { signal }).catch(() => undefined);
    stop.abort();
    await streams;
    return board.rows();
  }

  async follow(find: () => Promise<readonly InstancePlace[]>, intervalMs: number) {
    const first = await find();
    return endable((ending) => this.#follow(find, first, intervalMs, ending));
  }

  /** Streams of one set of instances, until the set is another. */
  async *#follow(
    find: () => Promise<readonly InstancePlace[]>,
    first: readonly InstancePlace[],
    intervalMs: number,
    ending: AbortSignal,
  ) {
    let places = first;
    while (!ending.aborted) {
      const round = new AbortController();
      const signal = AbortSignal.any([ending, round.signal]);
      const board = new Board(places);
      const streams = this.#watch(board, intervalMs, signal);
      let now = places;
      while (!ending.aborted && sameSet(now, places)) {
        await delay(intervalMs, undefined, { signal: ending }).catch(() => undefined);
        if (ending.aborted) break;
        yield { usage: board.rows() };
        now = await patiently(find, ending);
      }
      places = now;
      round.abort();
      await streams;
    }
  }

  /** One stream to each node; resolves when all have ended. */
  async #watch(board: Board, intervalMs: number, signal: AbortSignal): Promise<void> {
    const read = async (node: string, instances: string[]) => {
      const open = { kind: 'usage' as const, instances, intervalMs };
      const stream = await this.#relay.open(node, open, signal);
      const close = () => stream.close();
      signal.addEventListener('abort', close, { once: true });
      try {
        for await (const frame of stream.frames())
          if (frame.value !== undefined) board.put(JSON.parse(frame.value));
      } finally {
        signal.removeEventListener('abort', close);
        stream.close();
      }
    };
    // A node that is away is missing from the table, no reason to show nothing of the others.
    await Promise.allSettled([...board.byNode()].map(([node, ids]) => read(node, ids)));
  }
}

/** The latest value of each instance. */
class Board {
  readonly #places: readonly InstancePlace[];
  readonly #latest = new Map<string, InstanceUsage>();

  constructor(places: readonly InstancePlace[]) {
    this.#places = places;
  }

  byNode(): Map<string, string[]> {
    const nodes = new Map<string, string[]>();
    for (const { id, nodeId } of this.#places) {
      const ids = nodes.get(nodeId) ?? [];
      nodes.set(nodeId, [...ids, id]);
    }
    return nodes;
  }

  /** A node speaks only for what was asked of it: other instances have no row. */
  put(value: unknown): void {
    const parsed = instanceUsage.safeParse(value);
    const place = this.#places.find(({ id }) => id === parsed.data?.instance);
    if (!parsed.success || !place) return;
    this.#latest.set(place.id, { ...parsed.data, process: place.process });
  }

  isComplete(): boolean {
    return this.#places.every(({ id }) => typeof this.#latest.get(id)?.cpuMillis === 'number');
  }

  rows(): InstanceUsage[] {
    return this.#places.flatMap(({ id }) => this.#latest.get(id) ?? []);
  }
}

const sameSet = (a: readonly InstancePlace[], b: readonly InstancePlace[]): boolean =>
  a.length === b.length && a.every(({ id }, index) => id === b[index]?.id);

function failureOf({ code, message }: { code?: string; message?: string }): DomainError {
  const known = code === 'CONFLICT' || code === 'NOT_FOUND' || code === 'INVALID';
  return new DomainError(known ? code : 'UNAVAILABLE', message ?? 'The node failed');
}
