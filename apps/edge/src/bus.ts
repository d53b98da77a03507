import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { inboxPrefix } from '@bulkhead/protocol';
import { connect, credsAuthenticator, type Authenticator, type NatsConnection } from 'nats';
import type { Logger } from 'pino';

export interface BusOptions {
  url: string;
  /** Names the connection and its inbox. */
  user: string;
  /** Read at each connection, so that renewed credentials need no restart. */
  credsFile: string | null;
  log: Logger;
  /** At each connection and reconnection. */
  onUp(connection: NatsConnection): void;
  onDown(): void;
}

/** The connection to NATS: kept up for ever, and never needed for traffic to flow. */
export class Bus {
  readonly #options: BusOptions;
  readonly #stop = new AbortController();
  #connection: NatsConnection | null = null;
  #connected = false;
  #running: Promise<void> = Promise.resolve();

  constructor(options: BusOptions) {
    this.#options = options;
  }

  get connected(): boolean {
    return this.#connected;
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
  publish(subject: string, payload: unknown): void {
    if (this.#connected) this.#connection?.publish(subject, JSON.stringify(payload));
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    let failures = 0;
    while (!this.#stop.signal.aborted) {
      try {
        const connection = await connect(this.#connectOptions());
        if (this.#stop.signal.aborted) {
          await connection.close();
          return;
        }
        failures = 0;
        this.#connection = connection;
        this.#up(connection);
        await this.#follow(connection);
      } catch (error) {
        failures += 1;
        if (failures === 1)
          log.warn(
            { err: error },
            'cannot connect to NATS, trying again; the last known routes are served',
          );
      }
      this.#down();
      if (!this.#stop.signal.aborted) {
        await delay(500, undefined, { ref: false, signal: this.#stop.signal }).catch(
          () => undefined,
        );
      }
    }
  }

  #connectOptions() {
    const { url, user, credsFile } = this.#options;
    return {
      servers: url,
      name: `edge ${user}`,
      inboxPrefix: inboxPrefix(user),
      maxReconnectAttempts: -1,
      // Credentials may be replaced while we try; giving up would need a person.
      ignoreAuthErrorAbort: true,
      reconnectTimeWait: 250,
      reconnectJitter: 250,
      pingInterval: 10_000,
      maxPingOut: 2,
      ...(credsFile === null ? {} : { authenticator: freshCredentials(credsFile) }),
    };
  }

  async #follow(connection: NatsConnection): Promise<void> {
    const { log } = this.#options;
    for await (const status of connection.status()) {
      switch (status.type) {
        case 'disconnect':
          log.warn('lost the connection to NATS; the last known routes are served');
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
    this.#options.onUp(connection);
  }

  #down(): void {
    if (!this.#connected) return;
    this.#connected = false;
    this.#options.onDown();
  }
}

function freshCredentials(file: string): Authenticator {
  return (nonce) => credsAuthenticator(readFileSync(file))(nonce);
}
