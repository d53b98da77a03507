/**
 * The one connection of this process to NATS. It is sought in the background and for ever: the API
 * starts and answers without NATS, and says so on /readyz. Streams and buckets that are missing
 * are made again (NATS may lose everything), and whoever filled them is told to fill them again.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import {
  jetstream,
  jetstreamManager,
  type JetStreamClient,
  type JetStreamManager,
} from '@nats-io/jetstream';
import { Kvm, type Bucket } from '@nats-io/kv';
import { connect, credsAuthenticator, type NatsConnection } from 'nats';
import { unavailable } from '@bulkhead/protocol';
import { ensureStreams, wantedStreams } from './streams.ts';

/** The key of the NatsLink in Nest's container. */
export const NATS = Symbol('NATS');

export interface NatsLinkOptions {
  url: string;
  credsFile: string | null;
  logsMaxBytes: number;
  /** Told of what an operator should know; never of a message's content. */
  log: (message: string, detail?: Record<string, unknown>) => void;
  /** Milliseconds between two looks at the streams. */
  checkEveryMs?: number;
}

interface Link {
  nc: NatsConnection;
  js: JetStreamClient;
  jsm: JetStreamManager;
}

export class NatsLink {
  readonly #options: NatsLinkOptions;
  readonly #stopping = new AbortController();
  readonly #ready = Promise.withResolvers<void>();
  readonly #recreatedListeners = new Set<(streams: string[]) => void>();
  readonly #buckets = new Map<string, Bucket>();
  #lookAgain = new AbortController();
  #link: Link | null = null;
  #streamsInPlace = false;
  #loop: Promise<void> | null = null;

  constructor(options: NatsLinkOptions) {
    this.#options = options;
    this.#ready.promise.catch(() => undefined);
  }

  /** @throws DomainError UNAVAILABLE until the first connection. */
  get nc(): NatsConnection {
    return this.#getLink().nc;
  }
  get js(): JetStreamClient {
    return this.#getLink().js;
  }
  get jsm(): JetStreamManager {
    return this.#getLink().jsm;
  }

  /** Opens a KV bucket that `ensureStreams` has made. */
  async kv(name: string): Promise<Bucket> {
    const known = this.#buckets.get(name);
    if (known) return known;
    // The interface that `open` promises leaves out what the class can do.
    const opened = (await new Kvm(this.js).open(name)) as Bucket;
    this.#buckets.set(name, opened);
    return opened;
  }

  /** Whether messages flow now and the streams are in place. */
  async isUp(): Promise<boolean> {
    if (!this.#link || !this.#streamsInPlace) return false;
    // `rtt` waits for the reconnection when the connection is lost: bounded here.
    const answered = this.#link.nc.rtt().then(
      () => true,
      () => false,
    );
    return Promise.race([answered, delay(1000, false)]);
  }

  /** Settles after the first connection, with the streams in place; fails when the process ends first. */
  whenReady(): Promise<void> {
    return this.#ready.promise;
  }

  /**
   * Called with the names of streams whenever some had to be made, also at the very start and after
   * NATS lost its data: what they held must be published again. Gives the way to stop listening.
   */
  onRecreated(listener: (streams: string[]) => void): () => void {
    this.#recreatedListeners.add(listener);
    return () => this.#recreatedListeners.delete(listener);
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** The process ends: whoever waits for the first connection is let go. What is connected stays so. */
  giveUpWaiting(): void {
    this.#ready.reject(new Error('the process ended before NATS could be reached'));
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.giveUpWaiting();
    await this.#loop?.catch(() => undefined);
    // A drain waits for the server; without one there is nothing to flush.
    await Promise.race([this.#link?.nc.drain().catch(() => undefined), delay(2000)]);
    await this.#link?.nc.close().catch(() => undefined);
  }

  #getLink(): Link {
    if (!this.#link)
      throw unavailable('The message bus cannot be reached yet; try again in a few seconds');
    return this.#link;
  }

  async #run(): Promise<void> {
    const nc = await this.#connectForEver();
    if (!nc) return;
    this.#link = {
      nc,
      js: jetstream(nc),
      jsm: await jetstreamManager(nc, { checkAPI: false, timeout: 2000 }),
    };
    this.#options.log('connected to NATS', { server: nc.getServer() });
    void this.#watchStatus(nc);
    let failing = false;
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#ensureStreams();
        failing = false;
      } catch (error) {
        if (!failing)
          this.#options.log('streams cannot be ensured, trying on', { error: String(error) });
        failing = true;
        this.#streamsInPlace = false;
      }
      await this.#pause(this.#streamsInPlace ? (this.#options.checkEveryMs ?? 2000) : 200);
    }
  }

  async #ensureStreams(): Promise<void> {
    const made = await ensureStreams(this.jsm, wantedStreams(this.#options.logsMaxBytes));
    this.#streamsInPlace = true;
    this.#ready.resolve();
    if (made.length === 0) return;
    this.#options.log('made streams', { made });
    for (const listener of this.#recreatedListeners) listener(made);
  }

  async #connectForEver(): Promise<NatsConnection | null> {
    let failures = 0;
    while (!this.#stopping.signal.aborted) {
      try {
        return await connect({
          servers: this.#options.url,
          name: 'bulkhead-api',
          maxReconnectAttempts: -1,
          reconnectTimeWait: 500,
          ignoreAuthErrorAbort: true,
          pingInterval: 10_000,
          timeout: 3000,
          ...(await this.#authentication()),
        });
      } catch (error) {
        failures += 1;
        if (failures === 1)
          this.#options.log('NATS cannot be reached, trying on', { error: String(error) });
        await this.#pause(500);
      }
    }
    return null;
  }

  async #authentication() {
    if (!this.#options.credsFile) return {};
    return { authenticator: credsAuthenticator(await readFile(this.#options.credsFile)) };
  }

  async #watchStatus(nc: NatsConnection): Promise<void> {
    for await (const status of nc.status()) {
      if (status.type !== 'disconnect' && status.type !== 'reconnect') continue;
      this.#options.log(`NATS: ${status.type}`);
      // Whether the streams are still there must be seen again, and at once.
      this.#streamsInPlace = false;
      this.#lookAgain.abort();
    }
  }

  async #pause(milliseconds: number): Promise<void> {
    this.#lookAgain = new AbortController();
    const signal = AbortSignal.any([this.#stopping.signal, this.#lookAgain.signal]);
    await delay(milliseconds, undefined, { signal }).catch(() => undefined);
  }
}
