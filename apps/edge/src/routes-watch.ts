import { setTimeout as delay } from 'node:timers/promises';
import { route, streams, type Route } from '@bulkhead/protocol';
import {
  AckPolicy,
  DeliverPolicy,
  jetstream,
  jetstreamManager,
  type Consumer,
  type ConsumerMessages,
  type JsMsg,
} from '@nats-io/jetstream';
import { nanos, type NatsConnection } from 'nats';
import type { Logger } from 'pino';
import { routeProblem } from './table.ts';

/** What the watch tells: first each key's last value or deletion, then changes as they happen. */
export interface RoutesListener {
  onRoute(route: Route): void;
  /** The key was deleted or purged. A key that is merely not there says nothing. */
  onDeleted(host: string): void;
  onSnapshot(): void;
  onMalformed(): void;
}

const stream = `KV_${streams.routesBucket}`;
const prefix = `$KV.${streams.routesBucket}.`;
const idleHeartbeatMs = 5000;
/** Longest wait between two tries to set the watch up. */
const longestRetryMs = 2000;

/**
 * Follows the bucket `routes` through the one consumer that this edge's permissions name. Whenever
 * something may have been missed (reconnection, a gap, silence, the consumer lost) the consumer is
 * made anew and tells everything again.
 */
export class RoutesWatch {
  readonly #consumerName: string;
  readonly #listener: RoutesListener;
  readonly #log: Logger;
  #current: AbortController | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(edge: string, listener: RoutesListener, log: Logger) {
    this.#consumerName = `routes-${edge}`;
    this.#listener = listener;
    this.#log = log;
  }

  /** Starts over on a connection that has just come up. */
  restart(connection: NatsConnection): void {
    this.stop();
    const abort = new AbortController();
    this.#current = abort;
    this.#running = this.#running.then(() => this.#run(connection, abort.signal));
  }

  stop(): void {
    this.#current?.abort();
    this.#current = null;
  }

  async #run(connection: NatsConnection, signal: AbortSignal): Promise<void> {
    let failures = 0;
    while (!signal.aborted && !connection.isClosed()) {
      try {
        await this.#follow(connection, signal, () => {
          failures = 0;
        });
      } catch (error) {
        failures += 1;
        const report = failures === 1 ? 'warn' : 'debug';
        this.#log[report]({ err: error }, 'cannot watch the routes, trying again; is the API up?');
      }
      const wait = Math.min(longestRetryMs, 100 * 2 ** Math.min(failures, 10));
      await delay(wait, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  async #follow(connection: NatsConnection, signal: AbortSignal, onUp: () => void): Promise<void> {
    const { consumer, pending } = await this.#makeConsumer(connection);
    const messages = await consumer.consume({
      // Without `bind` the client would ask for stream information, which lists every subject.
      bind: true,
      idle_heartbeat: idleHeartbeatMs,
      max_messages: 512,
    });
    const stop = () => messages.stop();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    try {
      onUp();
      void this.#stopOnTrouble(messages);
      await this.#take(messages, pending);
    } finally {
      signal.removeEventListener('abort', stop);
      messages.stop();
    }
  }

  async #makeConsumer(
    connection: NatsConnection,
  ): Promise<{ consumer: Consumer; pending: number }> {
    const manager = await jetstreamManager(connection, { checkAPI: false });
    // A consumer that an earlier connection left would go on where it was, without a snapshot.
    await manager.consumers.delete(stream, this.#consumerName).catch(() => undefined);
    const info = await manager.consumers.add(stream, {
      name: this.#consumerName,
      filter_subject: `${prefix}>`,
      deliver_policy: DeliverPolicy.LastPerSubject,
      ack_policy: AckPolicy.None,
      mem_storage: true,
      num_replicas: 1,
      inactive_threshold: nanos(60_000),
    });
    return {
      consumer: jetstream(connection).consumers.getConsumerFromInfo(info),
      pending: info.num_pending,
    };
  }

  /** Ends the messages when the server says, or its silence says, that some may be missing. */
  async #stopOnTrouble(messages: ConsumerMessages): Promise<void> {
    for await (const status of messages.status()) {
      switch (status.type) {
        case 'heartbeats_missed':
        case 'consumer_not_found':
        case 'consumer_deleted':
        case 'stream_not_found':
        case 'no_responders':
        case 'exceeded_limits':
          this.#log.info({ why: status.type }, 'watching the routes anew');
          messages.stop();
          return;
        default:
          break;
      }
    }
  }

  async #take(messages: ConsumerMessages, pending: number): Promise<void> {
    let expected = 1;
    let inSnapshot = pending > 0;
    if (!inSnapshot) this.#listener.onSnapshot();
    for await (const message of messages) {
      if (message.info.deliverySequence !== expected) {
        this.#log.info('a message was missed, watching the routes anew');
        return;
      }
      expected += 1;
      this.#takeMessage(message);
      if (inSnapshot && message.info.pending === 0) {
        inSnapshot = false;
        this.#listener.onSnapshot();
      }
    }
  }

  #takeMessage(message: JsMsg): void {
    const host = message.subject.slice(prefix.length);
    const operation = message.headers?.get('KV-Operation');
    if (operation === 'DEL' || operation === 'PURGE') {
      this.#listener.onDeleted(host);
      return;
    }
    const parsed = parseRoute(host, message.string());
    if (typeof parsed === 'string') {
      this.#log.error({ host, why: parsed }, 'a route was refused; the last good one stays');
      this.#listener.onMalformed();
    } else {
      this.#listener.onRoute(parsed);
    }
  }
}

/** The route, or why it cannot be taken. */
function parseRoute(host: string, text: string): Route | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'not JSON';
  }
  const result = route.safeParse(value);
  if (!result.success)
    return result.error.issues.map((i) => `${i.path.join('.')}: ${i.message}`).join('; ');
  if (result.data.host !== host)
    return `its key is not its host, ${JSON.stringify(result.data.host)}`;
  return routeProblem(result.data) ?? result.data;
}
