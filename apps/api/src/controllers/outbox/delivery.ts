/**
 * Where the publisher's values go: one small port to NATS. Every call resolves only after the
 * server acknowledged it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { route, streams } from '@bulkhead/protocol';
import type { InstanceSpec, Route } from '@bulkhead/protocol';
import type { NatsLink } from '../../nats/nats.ts';

/** Longest wait for an acknowledgement, milliseconds. Well below what a transaction may take. */
const ackMs = 3_000;

export interface Delivery {
  putInstance(key: string, spec: InstanceSpec): Promise<void>;
  /** The instance is proven gone: its node sees the key deleted, and forgets it too. */
  dropInstance(key: string): Promise<void>;
  putRoute(value: Route): Promise<void>;
  /** Edges see the key deleted. */
  dropRoute(host: string): Promise<void>;
  /** Whether nothing that was sent before can still arrive. */
  isSettled(): Promise<boolean>;
}

export class NatsDelivery implements Delivery {
  readonly #nats: NatsLink;

  constructor(nats: NatsLink) {
    this.#nats = nats;
  }

  async putInstance(key: string, spec: InstanceSpec): Promise<void> {
    await this.#put(`$KV.${streams.desiredBucket}.${key}`, spec);
  }

  async dropInstance(key: string): Promise<void> {
    const bucket = await this.#nats.kv(streams.desiredBucket);
    await bucket.purge(key);
  }

  async putRoute(value: Route): Promise<void> {
    await this.#put(`$KV.${streams.routesBucket}.${value.host}`, route.parse(value));
  }

  async dropRoute(host: string): Promise<void> {
    const bucket = await this.#nats.kv(streams.routesBucket);
    await bucket.purge(host);
  }

  async isSettled(): Promise<boolean> {
    const flushed = this.#nats.nc.flush().then(
      () => true,
      () => false,
    );
    return Promise.race([flushed, delay(ackMs, false)]);
  }

  async #put(subject: string, value: unknown): Promise<void> {
    await this.#nats.js.publish(subject, JSON.stringify(value), { timeout: ackMs });
  }
}
