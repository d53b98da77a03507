import { isIP } from 'node:net';
import type { Route, RouteBackend } from '@bulkhead/protocol';

/**
 * The route table of one edge: which hosts there are, and in which of HAProxy's backends ("slots",
 * b0, b1, ...) each lives. HAProxy 2.6 cannot make a backend while it runs, so spare ones are kept
 * ready and a new host costs no reload. A slot stays its host's until nothing is left in it, and
 * the one that has been free for longest is given out first: no late request meets the next owner.
 */
export class RouteTable {
  readonly #routes = new Map<string, Route>();
  /** Host -> slot; kept after the route is gone until the slot was released. */
  readonly #slots = new Map<string, number>();
  #free: number[] = [];
  #capacity = 0;

  constructor(stored: StoredTable = { capacity: 0, entries: [] }) {
    this.#capacity = Math.max(smallestCapacity, stored.capacity);
    const used = new Set<number>();
    for (const { host, slot, route } of stored.entries) {
      if (route !== null) this.#routes.set(host, route);
      if (slot === null) continue;
      this.#slots.set(host, slot);
      used.add(slot);
    }
    this.#free = range(0, this.#capacity).filter((slot) => !used.has(slot));
    for (const route of this.#routes.values()) if (isServing(route)) this.#ensureSlot(route.host);
  }

  get size(): number {
    return this.#routes.size;
  }
  get capacity(): number {
    return this.#capacity;
  }

  /** Takes a route unless what is known is as new. A revision that is known says "same". */
  accept(route: Route): 'new' | 'same' | 'stale' {
    const known = this.#routes.get(route.host);
    if (known && known.revision > route.revision) return 'stale';
    if (known?.revision === route.revision) return 'same';
    this.#routes.set(route.host, route);
    if (isServing(route)) this.#ensureSlot(route.host);
    return 'new';
  }

  /** The host's key was deleted. False when it was not known. */
  remove(host: string): boolean {
    return this.#routes.delete(host);
  }

  /** Gives back the slot of a host that has no backends any more; the caller knows that it is empty. */
  release(host: string): boolean {
    const route = this.#routes.get(host);
    const slot = this.#slots.get(host);
    if (slot === undefined || (route && isServing(route))) return false;
    this.#slots.delete(host);
    this.#free.push(slot);
    return true;
  }

  routes(): Iterable<Route> {
    return this.#routes.values();
  }

  /** What HAProxy should have for a host. */
  find(host: string): HostTarget {
    const route = this.#routes.get(host) ?? null;
    const slot = this.#slots.get(host) ?? null;
    return {
      host,
      revision: route?.revision ?? null,
      destination: route ? destinationOf(route, slot) : null,
      slot,
      backends: route && isServing(route) ? route.backends : [],
    };
  }

  has(host: string): boolean {
    return this.#routes.has(host) || this.#slots.has(host);
  }

  /** Every host that has a route or still holds a slot. */
  hosts(): Set<string> {
    return new Set([...this.#routes.keys(), ...this.#slots.keys()]);
  }

  toStored(): StoredTable {
    const entries = [...this.hosts()].map((host) => ({
      host,
      slot: this.#slots.get(host) ?? null,
      route: this.#routes.get(host) ?? null,
    }));
    return { capacity: this.#capacity, entries };
  }

  #ensureSlot(host: string): void {
    if (this.#slots.has(host)) return;
    // Grows while some are still free, so that a slot rests between two owners.
    if (this.#free.length <= this.#capacity / 8) {
      this.#free.push(...range(this.#capacity, this.#capacity * 2));
      this.#capacity *= 2;
    }
    const slot = this.#free.shift();
    if (slot === undefined) throw new Error('no free slot right after growing');
    this.#slots.set(host, slot);
  }
}

export interface HostTarget {
  readonly host: string;
  /** Null when the route is gone. */
  readonly revision: number | null;
  /** Value in HAProxy's map of hosts: a backend's name or why there is none. Null: no such host. */
  readonly destination: string | null;
  readonly slot: number | null;
  readonly backends: readonly RouteBackend[];
}

export interface StoredTable {
  capacity: number;
  entries: { host: string; slot: number | null; route: Route | null }[];
}

/** As many hosts as a small installation has; a spare backend costs HAProxy some 8 KiB. */
const smallestCapacity = 64;

export const backendName = (slot: number): string => `b${slot}`;
export const isAppBackend = (name: string): boolean => /^b\d+$/.test(name);

const isServing = (route: Route): boolean => route.state === 'serving' && route.backends.length > 0;

function destinationOf(route: Route, slot: number | null): string {
  if (!isServing(route)) return route.state === 'serving' ? 'starting' : route.state;
  if (slot === null) throw new Error(`${route.host} serves but has no slot`);
  return backendName(slot);
}

/**
 * Why a route cannot be taken, or null. Its texts go into HAProxy's configuration and commands, so
 * whatever is not plainly a host name or an address is refused here.
 */
export function routeProblem(route: Route): string | null {
  if (
    !/^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*$/.test(
      route.host,
    )
  )
    return 'its host is not a host name in lower case without port';
  if (!Number.isSafeInteger(route.revision)) return 'its revision is not an exact number';
  const seen = new Set<string>();
  for (const { host, port } of route.backends) {
    if (isIP(host) === 0) return `backend address ${JSON.stringify(host)} is not an IP address`;
    if (port < 1 || port > 65_535) return `backend port ${port} is out of range`;
    const key = `${host} ${port}`;
    if (seen.has(key)) return `two backends share ${key}`;
    seen.add(key);
  }
  return null;
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => from + i);
