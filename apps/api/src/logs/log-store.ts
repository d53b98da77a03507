/**
 * Reads batches of log lines of one app from the JetStream stream `logs`. Agents put them there;
 * they outlive their instances for 7 days, or until the stream is full.
 */
import { setTimeout as delay } from 'node:timers/promises';
import {
  AckPolicy,
  DeliverPolicy,
  ReplayPolicy,
  type ConsumerMessages,
  type JsMsg,
} from '@nats-io/jetstream';
import {
  DomainError,
  logBatch,
  streams,
  subjects,
  unavailable,
  type LogBatch,
} from '@bulkhead/protocol';
import type { NatsLink } from '../nats/nats.ts';

/** A batch and where it came from: the subject is what the node's credentials let it publish on. */
export interface StoredBatch {
  readonly sequence: number;
  readonly node: string;
  readonly batch: LogBatch;
}

export interface AppLogs {
  readonly tenantId: string;
  readonly appId: string;
  /** Only of this instance. */
  readonly instance: string | null;
}

/** How long to wait for messages that were counted a moment ago. Milliseconds. */
const fetchMs = 2000;
/** How long a follower waits when NATS is away. Milliseconds. */
const retryMs = 500;

export class LogStore {
  constructor(private readonly nats: NatsLink) {}

  /**
   * The batches written so far, oldest first: the last `atMost` of those from `since` on, and the
   * sequence to follow from.
   */
  async read(
    logs: AppLogs,
    since: Date | null,
    atMost: number,
  ): Promise<{ batches: StoredBatch[]; next: number }> {
    try {
      return await this.#read(logs, since, atMost);
    } catch (error) {
      if (error instanceof DomainError) throw error;
      throw unavailable(
        `Logs cannot be read at the moment (${(error as Error).name}); try again in a few seconds`,
      );
    }
  }

  async #read(logs: AppLogs, since: Date | null, atMost: number) {
    const { state } = await this.nats.jsm.streams.info(streams.logs);
    const next = state.last_seq + 1;
    if (atMost === 0 || state.messages === 0) return { batches: [], next };

    const start = await this.#findStart(logs, since, atMost, state.first_seq, state.last_seq);
    const batches: StoredBatch[] = [];
    if (start.pending === 0) return { batches, next };
    const consumer = await this.nats.js.consumers.get(streams.logs, {
      ...this.#from(logs, start.sequence),
      inactive_threshold: 10_000,
    });
    const messages = await consumer.fetch({ max_messages: start.pending, expires: fetchMs });
    for await (const message of messages) {
      if (message.seq >= next) break;
      batches.push(open(message));
      if (message.info.pending === 0) break;
    }
    await messages.close();
    return { batches, next };
  }

  /**
   * New batches from a sequence on, until `ending`. Carries on when the connection or the whole
   * stream was lost and is there again.
   */
  async *follow(
    logs: AppLogs,
    from: number,
    ending: AbortSignal,
  ): AsyncGenerator<StoredBatch, void> {
    let next = from;
    // A new stream counts from 1 again; the old place would never come.
    let renew = () => undefined as void;
    const forget = this.nats.onRecreated((made) => {
      if (!made.includes(streams.logs)) return;
      next = 1;
      renew();
    });
    try {
      while (!ending.aborted) {
        const messages = await this.#consume(logs, next);
        if (!messages) {
          await delay(retryMs, undefined, { signal: ending }).catch(() => undefined);
          continue;
        }
        const stop = () => void messages.close();
        renew = stop;
        ending.addEventListener('abort', stop, { once: true });
        if (ending.aborted) stop();
        try {
          for await (const message of messages) {
            next = message.seq + 1;
            yield open(message);
          }
        } catch {
          // The consumer cannot be had again as it was: a new one starts where this one ended.
          await delay(retryMs, undefined, { signal: ending }).catch(() => undefined);
        } finally {
          ending.removeEventListener('abort', stop);
          stop();
        }
      }
    } finally {
      forget();
    }
  }

  /** Null while NATS or the stream is away. */
  async #consume(logs: AppLogs, from: number): Promise<ConsumerMessages | null> {
    try {
      const consumer = await this.nats.js.consumers.get(streams.logs, this.#from(logs, from));
      return await consumer.consume({ max_bytes: 1_048_576 });
    } catch {
      return null;
    }
  }

  #filter({ tenantId, appId, instance }: AppLogs): string {
    return instance
      ? subjects.logs(tenantId, appId, '*', instance)
      : subjects.logsOfApp(tenantId, appId);
  }

  #from(logs: AppLogs, sequence: number) {
    return {
      filter_subjects: this.#filter(logs),
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: sequence,
    };
  }

  /**
   * The latest sequence from which at least `atMost` batches follow, or the first one from `since`.
   * JetStream cannot read backwards, but a consumer says how much it has before it: a search by
   * halves takes some 20 questions of a millisecond, whatever the size of the stream.
   */
  async #findStart(logs: AppLogs, since: Date | null, atMost: number, first: number, last: number) {
    let low = first;
    let pending: number;
    if (since) {
      const window = await this.#count(logs, { opt_start_time: since.toISOString() });
      low = Math.max(window.sequence, first);
      pending = window.pending;
    } else {
      pending = (await this.#count(logs, { opt_start_seq: low })).pending;
    }
    for (let high = last; pending > atMost && low < high;) {
      const middle = Math.ceil((low + high) / 2);
      const counted = await this.#count(logs, { opt_start_seq: middle });
      if (counted.pending >= atMost) {
        low = middle;
        pending = counted.pending;
      } else {
        high = middle - 1;
      }
    }
    return { sequence: low, pending };
  }

  async #count(
    logs: AppLogs,
    start: { opt_start_seq: number } | { opt_start_time: string },
  ): Promise<{ sequence: number; pending: number }> {
    const deliver =
      'opt_start_seq' in start ? DeliverPolicy.StartSequence : DeliverPolicy.StartTime;
    const consumer = await this.nats.jsm.consumers.add(streams.logs, {
      filter_subject: this.#filter(logs),
      deliver_policy: deliver,
      ...start,
      ack_policy: AckPolicy.None,
      replay_policy: ReplayPolicy.Instant,
      inactive_threshold: 5_000_000_000,
      mem_storage: true,
    });
    await this.nats.jsm.consumers.delete(streams.logs, consumer.name);
    return { sequence: consumer.delivered.stream_seq + 1, pending: consumer.num_pending };
  }
}

/** A message that is no batch counts as an empty one: a node can publish anything. */
function open(message: JsMsg): StoredBatch {
  const [, , , node = '', instance = ''] = message.subject.split('.');
  const parsed = logBatch.safeParse(readJson(message));
  const fits = parsed.success && parsed.data.instance === instance;
  const batch = fits
    ? parsed.data
    : { v: 1 as const, instance, process: '', lines: [], dropped: 0 };
  return { sequence: message.seq, node, batch };
}

function readJson(message: JsMsg): unknown {
  try {
    return message.json();
  } catch {
    return null;
  }
}
