import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { inboxPrefix } from '@bulkhead/protocol';
import { jetstream, type JetStreamClient } from '@nats-io/jetstream';
import { connect, credsAuthenticator, type Authenticator, type NatsConnection } from 'nats';
import type { Logger } from 'pino';

export interface BusOptions {
  url: string;
  /** Names the connection and its inbox. */
  user: string;
  /** nats.creds; read at each connection, so that new credentials need no restart. */
  credsFile: string;
  log: Logger;
}

/** A publish that waits this long for its acknowledgement has failed, ms. */
const ackTimeoutMs = 5000;

/**
 * The one connection to NATS: kept up for ever, and never needed. Who sends through it keeps what
 * was not acknowledged and sends again when `onUp` says so.
 */
export class Bus {
  readonly #options: BusOptions;
  readonly #upListeners: ((connection: NatsConnection) => void)[] = [];
  readonly #downListeners: (() => void)[] = [];
  #connection: NatsConnection | null = null;
  #jetstream: JetStreamClient | null = null;
  #connected = false;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: BusOptions) {
    this.#options = options;
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** Called at each connection and reconnection. */
  onUp(listener: (connection: NatsConnection) => void): void {
    this.#upListeners.push(listener);
  }

  onDown(listener: () => void): void {
    this.#downListeners.push(listener);
  }

  /** Returns at once; connects in the background. */
  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#connection?.close().catch(() => undefined);
    // A first connection that is still being tried cannot be aborted; it is closed if it comes.
    await Promise.race([this.#running, delay(500, undefined, { ref: false })]);
  }

  /** Plain NATS, lost when there is no connection. */
  publish(subject: string, payload: string): void {
    if (this.#connected) this.#connection?.publish(subject, payload);
  }

  /** Resolves when JetStream has it. The same `id` again within two minutes is stored once. */
  async publishAcked(subject: string, payload: string, id?: string): Promise<void> {
    if (this.#jetstream === null || !this.#connected) throw new Error('not connected to NATS');
    await this.#jetstream.publish(subject, payload, {
      timeout: ackTimeoutMs,
      ...(id === undefined ? {} : { msgID: id }),
    });
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    while (!this.#stop.signal.aborted) {
      try {
        const connection = await connect(this.#connectOptions());
        if (this.#stop.signal.aborted) {
          await connection.close();
          return;
        }
        this.#connection = connection;
        this.#jetstream = jetstream(connection);
        this.#up(connection);
        await this.#follow(connection);
        const error = await connection.closed();
        if (error instanceof Error) log.warn({ err: error }, 'the connection to NATS was closed');
      } catch (error) {
        log.warn({ err: error }, 'cannot connect to NATS, trying again');
      }
      this.#down();
      if (!this.#stop.signal.aborted) await delay(1000, undefined, { ref: false });
    }
  }

  #connectOptions() {
    const { url, user, credsFile } = this.#options;
    return {
      servers: url,
      name: `agent ${user}`,
      inboxPrefix: inboxPrefix(user),
      maxReconnectAttempts: -1,
      waitOnFirstConnect: true,
      // Credentials may be replaced while we try; giving up would need a person.
      ignoreAuthErrorAbort: true,
      reconnectTimeWait: 500,
      reconnectJitter: 500,
      reconnectToServer: spreadOut,
      pingInterval: 10_000,
      maxPingOut: 2,
      authenticator: freshCredentials(credsFile),
    };
  }

  async #follow(connection: NatsConnection): Promise<void> {
    const { log } = this.#options;
    for await (const status of connection.status()) {
      switch (status.type) {
        case 'disconnect':
          log.warn('lost the connection to NATS; what runs goes on running');
          this.#down();
          break;
        case 'reconnect':
          this.#up(connection);
          break;
        case 'error':
          log.error({ err: status.error }, 'NATS refused something');
          break;
        default:
          break;
      }
    }
  }

  #up(connection: NatsConnection): void {
    this.#connected = true;
    this.#options.log.info({ server: connection.getServer() }, 'connected to NATS');
    for (const listener of this.#upListeners) listener(connection);
  }

  #down(): void {
    if (!this.#connected) return;
    this.#connected = false;
    for (const listener of this.#downListeners) listener();
  }
}

/** Over so long a fleet that lost one server comes back to it, ms. */
const spreadMs = 2000;

/** Before each try but those for a first connection: the client's own waits do not hold up its first. */
export function spreadOut<Server>(servers: readonly Server[], info: unknown) {
  const [server] = servers as readonly [Server];
  return { server, delay: info === null ? 0 : Math.random() * spreadMs };
}

/** Without a file there are none: a server that asks for some says so in the log. */
function freshCredentials(file: string): Authenticator {
  return (nonce) => {
    if (existsSync(file)) return credsAuthenticator(readFileSync(file))(nonce);
  };
}
