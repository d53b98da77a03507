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
import { pastLines, type LogPlace } from './log-place.ts';

/** A batch and where it came from: the subject is what the node's credentials let it publish on. */
export interface StoredBatch {
  /** When the stream was made that it lies in: see LogPlace. */
  readonly made: number;
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

/** From when to when, by the clocks of nodes; null: no border. */
export interface LogWindow {
  readonly since: Date | null;
  readonly until: Date | null;
}

type ConsumerStart = { opt_start_seq: number } | { opt_start_time: string };

/** How far a node's clock may be ahead of ours for `since` to miss nothing. Milliseconds. */
const aheadMs = 5_000;
/** How late lines may come for `until` to miss nothing: agents wait while NATS is away. Milliseconds. */
const lateMs = 600_000;
/** Batches that are asked for at once. */
const fetchBatches = 500;
/** How long to wait for messages that were counted a moment ago. Milliseconds. */
const fetchMs = 2000;
/** How long a follower waits when NATS is away. Milliseconds. */
const retryMs = 500;

export class LogStore {
  constructor(private readonly nats: NatsLink) {}

  /**
   * Hands over the batches written so far, oldest first: the last `atMost` of those that a window
   * may have lines of. Gives how many they were, and the place to follow from.
   */
  last(
    logs: AppLogs,
    window: LogWindow,
    atMost: number,
    take: (stored: StoredBatch) => Promise<void>,
  ): Promise<{ count: number; next: LogPlace }> {
    return readable(async () => {
      const stream = await this.#stream();
      const next = { made: stream.made, sequence: stream.last + 1, line: 0 };
      if (atMost === 0) return { count: 0, next };
      const border = await this.#findBorder(logs, window.until, stream);
      const start = await this.#findStart(logs, window.since, atMost, { ...stream, ...border });
      let count = 0;
      for await (const stored of this.#between(logs, stream.made, start, border.end)) {
        count += 1;
        await take(stored);
      }
      return { count, next };
    });
  }

  /**
   * Hands over the batches written so far that a window may have lines of, from the oldest or from
   * a place on, until `take` says that it has enough. Gives the place behind the last one.
   */
  page(
    logs: AppLogs,
    window: LogWindow,
    after: LogPlace | null,
    take: (stored: StoredBatch) => Promise<'more' | 'enough'>,
  ): Promise<LogPlace> {
    return readable(async () => {
      const stream = await this.#stream();
      const { made } = stream;
      const { end } = await this.#findBorder(logs, window.until, stream);
      const first = after?.made === made ? Math.max(after.sequence, stream.first) : stream.first;
      const all = { first, end, beyond: 0 };
      const start = await this.#findStart(logs, window.since, Number.POSITIVE_INFINITY, all);
      for await (const stored of this.#between(logs, made, start, end)) {
        if ((await take(stored)) === 'enough')
          return { made, sequence: stored.sequence, line: pastLines };
      }
      return { made, sequence: end - 1, line: pastLines };
    });
  }

  async #stream() {
    const { created, state } = await this.nats.jsm.streams.info(streams.logs);
    // The first of a stream that never had a message is 0, and none has that number.
    const first = Math.max(1, state.first_seq);
    return { made: Date.parse(created), first, last: state.last_seq };
  }

  /** Batches from a sequence up to, not including, another; `pending` is how many at most. */
  async *#between(
    logs: AppLogs,
    made: number,
    start: { sequence: number; pending: number },
    end: number,
  ): AsyncGenerator<StoredBatch, void> {
    let left = start.pending;
    if (left === 0 || start.sequence >= end) return;
    const consumer = await this.nats.js.consumers.get(streams.logs, {
      ...this.#from(logs, start.sequence),
      inactive_threshold: 10_000,
    });
    while (left > 0) {
      const messages = await consumer.fetch({
        max_messages: Math.min(left, fetchBatches),
        expires: fetchMs,
      });
      let got = 0;
      try {
        for await (const message of messages) {
          if (message.seq >= end) return;
          yield open(message, made);
          got += 1;
          left -= 1;
          if (message.info.pending === 0) return;
        }
      } finally {
        await messages.close();
      }
      // Counted a moment ago and gone now: the stream was full, or was lost.
      if (got === 0) return;
    }
  }

  /**
   * New batches from a place on, until `ending`. Carries on when the connection or the whole
   * stream was lost and is there again.
   */
  async *follow(
    logs: AppLogs,
    from: LogPlace,
    ending: AbortSignal,
  ): AsyncGenerator<StoredBatch, void> {
    let next = from;
    let renew = () => undefined as void;
    const forget = this.nats.onRecreated((made) => {
      if (made.includes(streams.logs)) renew();
    });
    try {
      while (!ending.aborted) {
        const consumed = await this.#consume(logs, next);
        if (!consumed) {
          await delay(retryMs, undefined, { signal: ending }).catch(() => undefined);
          continue;
        }
        const { messages, made } = consumed;
        const stop = () => void messages.close();
        renew = stop;
        ending.addEventListener('abort', stop, { once: true });
        if (ending.aborted) stop();
        try {
          for await (const message of messages) {
            next = { made, sequence: message.seq + 1, line: 0 };
            yield open(message, made);
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
  async #consume(
    logs: AppLogs,
    from: LogPlace,
  ): Promise<{ messages: ConsumerMessages; made: number } | null> {
    try {
      const { made } = await this.#stream();
      // A new stream counts from 1 again; the old place would never come.
      const sequence = from.made === made ? from.sequence : 1;
      const consumer = await this.nats.js.consumers.get(streams.logs, this.#from(logs, sequence));
      return { messages: await consumer.consume({ max_bytes: 1_048_576 }), made };
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

  /** The first sequence that has nothing for `until` any more, and how much of the logs lies beyond. */
  async #findBorder(logs: AppLogs, until: Date | null, { last }: { last: number }) {
    if (until === null) return { end: last + 1, beyond: 0 };
    const late = new Date(until.getTime() + lateMs).toISOString();
    const { sequence, pending } = await this.#count(logs, { opt_start_time: late });
    return { end: Math.min(sequence, last + 1), beyond: pending };
  }

  /**
   * The latest sequence from which at least `atMost` batches follow, or the first one from `since`.
   * JetStream cannot read backwards, but a consumer says how much it has before it: a search by
   * halves takes some 20 questions of a millisecond, whatever the size of the stream.
   */
  async #findStart(
    logs: AppLogs,
    since: Date | null,
    atMost: number,
    { first, end, beyond }: { first: number; end: number; beyond: number },
  ): Promise<{ sequence: number; pending: number }> {
    if (first >= end) return { sequence: end, pending: 0 };
    const count = async (start: ConsumerStart) => {
      const counted = await this.#count(logs, start);
      return { ...counted, pending: Math.max(0, counted.pending - beyond) };
    };
    let low = first;
    if (since) {
      const from = new Date(since.getTime() - aheadMs).toISOString();
      low = Math.max((await count({ opt_start_time: from })).sequence, first);
      if (low >= end) return { sequence: end, pending: 0 };
    }
    let { pending } = await count({ opt_start_seq: low });
    for (let high = end - 1; pending > atMost && low < high;) {
      const middle = Math.ceil((low + high) / 2);
      const counted = await count({ opt_start_seq: middle });
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
    start: ConsumerStart,
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

/** Reads; what is no error of ours is said to pass. */
async function readable<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof DomainError) throw error;
    throw unavailable(
      `Logs cannot be read at the moment (${(error as Error).name}); try again in a few seconds`,
    );
  }
}

/** A message that is no batch counts as an empty one: a node can publish anything. */
function open(message: JsMsg, made: number): StoredBatch {
  const [, , , node = '', instance = ''] = message.subject.split('.');
  const parsed = logBatch.safeParse(readJson(message));
  const fits = parsed.success && parsed.data.instance === instance;
  const batch = fits
    ? parsed.data
    : { v: 1 as const, instance, process: '', lines: [], dropped: 0 };
  return { made, sequence: message.seq, node, batch };
}

function readJson(message: JsMsg): unknown {
  try {
    return message.json();
  } catch {
    return null;
  }
}
