import { setTimeout as delay } from 'node:timers/promises';
import {
  desiredConsumer,
  instanceSpec,
  streams,
  subjects,
  type InstanceSpec,
} from '@bulkhead/protocol';
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

/** What the watch tells. A snapshot comes first, value by value, then changes as they happen. */
export interface DesiredListener {
  onSpec(spec: InstanceSpec, inSnapshot: boolean): void;
  /** The key was deleted or purged. */
  onKeyGone(instance: string): void;
  /** The snapshot is complete; `seen` are the instances that it had. */
  onSnapshot(seen: ReadonlySet<string>): void;
  onMalformed(): void;
}

const stream = `KV_${streams.desiredBucket}`;
const idleHeartbeatMs = 5000;
/** Longest wait between two tries to set the watch up. */
const longestRetryMs = 5000;

/**
 * Follows this node's keys of the bucket `desired` through one pinned consumer: the stock KV client
 * wants permissions that would show a node everybody's keys. Whenever something may have been
 * missed (reconnection, a gap, silence, the consumer lost) the consumer is made anew and tells
 * everything again.
 */
export class DesiredWatch {
  readonly #node: string;
  /** Before the instance, in the subjects of our keys. */
  readonly #prefix: string;
  readonly #listener: DesiredListener;
  readonly #log: Logger;
  #current: AbortController | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(node: string, listener: DesiredListener, log: Logger) {
    this.#node = node;
    this.#prefix = subjects.desiredOfNode(node).slice(0, -'>'.length);
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
        this.#log[report]({ err: error }, 'cannot watch the desired state, trying again');
      }
      const longest = Math.min(longestRetryMs, 100 * 2 ** Math.min(failures, 10));
      await delay(longest * (0.5 + Math.random() / 2), undefined, { signal, ref: false }).catch(
        () => undefined,
      );
    }
  }

  async #follow(connection: NatsConnection, signal: AbortSignal, onUp: () => void): Promise<void> {
    const { consumer, pending } = await this.#makeConsumer(connection);
    const messages = await consumer.consume({
      // Without `bind` the client would ask for stream information, which a node may not have.
      bind: true,
      idle_heartbeat: idleHeartbeatMs,
      max_messages: 256,
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
    const name = desiredConsumer(this.#node);
    // A consumer that an earlier connection left would go on where it was, without a snapshot.
    await manager.consumers.delete(stream, name).catch(() => undefined);
    const info = await manager.consumers.add(stream, {
      name,
      filter_subject: subjects.desiredOfNode(this.#node),
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
          this.#log.info({ why: status.type }, 'watching the desired state anew');
          messages.stop();
          return;
        default:
          break;
      }
    }
  }

  async #take(messages: ConsumerMessages, pending: number): Promise<void> {
    const seen = new Set<string>();
    let expected = 1;
    let inSnapshot = true;
    const endSnapshot = () => {
      inSnapshot = false;
      this.#listener.onSnapshot(seen);
    };
    if (pending === 0) endSnapshot();
    for await (const message of messages) {
      if (!this.#isOurs(message)) continue;
      if (message.info.deliverySequence !== expected) {
        this.#log.info('a message was missed, watching the desired state anew');
        return;
      }
      expected += 1;
      const instance = this.#takeMessage(message, inSnapshot);
      if (!inSnapshot) continue;
      if (instance !== null) seen.add(instance);
      if (message.info.pending === 0) endSnapshot();
    }
  }

  /** Whoever may pull from another consumer can name our inbox as the place to deliver to. */
  #isOurs(message: JsMsg): boolean {
    const { stream: from, consumer } = message.info;
    const isOurs =
      message.subject.startsWith(this.#prefix) &&
      from === stream &&
      consumer === desiredConsumer(this.#node);
    if (!isOurs) this.#log.error({ from, consumer }, 'a message that is not ours was ignored');
    return isOurs;
  }

  /** The instance whose key now exists, null when it does not. */
  #takeMessage(message: JsMsg, inSnapshot: boolean): string | null {
    const instance = message.subject.slice(this.#prefix.length);
    const operation = message.headers?.get('KV-Operation');
    if (operation === 'DEL' || operation === 'PURGE') {
      this.#listener.onKeyGone(instance);
      return null;
    }
    const spec = parseSpec(message.string());
    if (spec === null || spec.instance !== instance) {
      // The value is not logged: it may hold somebody's config.
      this.#log.error(
        { instance },
        'the desired state of an instance is malformed and was skipped',
      );
      this.#listener.onMalformed();
    } else {
      this.#listener.onSpec(spec, inSnapshot);
    }
    return instance;
  }
}

function parseSpec(text: string): InstanceSpec | null {
  try {
    const result = instanceSpec.safeParse(JSON.parse(text));
    return result.success ? result.data : null;
  } catch {
    return null;
  }
}
