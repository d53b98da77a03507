/**
 * Takes the agents' reports off their stream. One durable consumer shared by all replicas; a message
 * is acknowledged after its transaction committed, so a crash delivers it again and the sequence
 * number of the row makes the second time harmless. While one batch is written the next gathers:
 * batches are as small as the load allows and as large as it demands.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { AckPolicy, DeliverPolicy } from '@nats-io/jetstream';
import type { ConsumerMessages, JsMsg } from '@nats-io/jetstream';
import { instanceReport, streams } from '@bulkhead/protocol';
import type { Tenancy } from '@bulkhead/tenancy';
import type { NatsLink } from '../../nats/nats.ts';
import { applyReports } from './apply-reports.ts';
import type { Applied, NodeReport } from './apply-reports.ts';

const durable = 'controllers';
const largestBatch = 500;
/** One pull lasts this long at most; a consumer that vanished is noticed no later, milliseconds. */
const pullMs = 5_000;
const retryMs = 1_000;
/**
 * What a replica took and did not acknowledge is another's after this long, milliseconds: a replica
 * that was killed holds up a deploy by no more. Who is at work says so in time.
 */
const ackMs = 5_000;
const atWorkMs = 1_500;
/** A report that cannot be written this often is given up, so that it blocks nobody. */
const mostDeliveries = 20;

export interface ReportConsumerOptions {
  readonly tenancy: Tenancy;
  readonly nats: NatsLink;
  readonly onApplied: (applied: Applied) => void;
  readonly onError: (what: string, error: unknown) => void;
}

export class ReportConsumer {
  readonly #options: ReportConsumerOptions;
  #waiting: JsMsg[] = [];
  #writing: JsMsg[] = [];
  #flushing: Promise<void> | null = null;
  #messages: ConsumerMessages | null = null;
  #loop: Promise<void> | null = null;
  #stopped = false;

  constructor(options: ReportConsumerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#messages?.stop();
    await this.#loop;
    await this.#flushing;
  }

  /** The stream was made again: the pull under way waits for a consumer that is no more. */
  renew(): void {
    this.#messages?.stop();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#pull();
      } catch (error) {
        if (this.#stopped) return;
        this.#options.onError('pull', error);
        await delay(retryMs);
      }
    }
  }

  async #pull(): Promise<void> {
    const { nats } = this.#options;
    await nats.whenReady();
    const config = {
      durable_name: durable,
      ack_policy: AckPolicy.Explicit,
      deliver_policy: DeliverPolicy.All,
      ack_wait: ackMs * 1e6,
      max_ack_pending: 4 * largestBatch,
    };
    const { consumers } = nats.jsm;
    const known = await consumers.info(streams.reports, durable).catch(() => null);
    if (known === null) await consumers.add(streams.reports, config);
    // An older release made it.
    else if (known.config.ack_wait !== config.ack_wait)
      await consumers.update(streams.reports, durable, { ack_wait: config.ack_wait });
    const consumer = await nats.js.consumers.get(streams.reports, durable);
    const messages = await consumer.fetch({ max_messages: largestBatch, expires: pullMs });
    this.#messages = messages;
    for await (const message of messages) {
      this.#waiting.push(message);
      this.#flushing ??= this.#flush().finally(() => {
        this.#flushing = null;
      });
    }
    await this.#flushing;
  }

  async #flush(): Promise<void> {
    // What arrived in the same packet as the first message joins its batch.
    await delay(0);
    const atWork = setInterval(() => {
      for (const message of [...this.#writing, ...this.#waiting]) message.working();
    }, atWorkMs);
    try {
      while (this.#waiting.length > 0) {
        this.#writing = this.#waiting.splice(0, largestBatch);
        await this.#write(this.#writing);
      }
    } finally {
      this.#writing = [];
      clearInterval(atWork);
    }
  }

  async #write(messages: readonly JsMsg[]): Promise<void> {
    const readable: { message: JsMsg; report: NodeReport }[] = [];
    for (const message of messages) {
      const report = parse(message);
      if (report) readable.push({ message, report });
      else {
        this.#options.onError(message.subject, new Error('not a report of the subject it came by'));
        message.term('unreadable');
      }
    }
    if (readable.length === 0) return;
    try {
      const applied = await this.#options.tenancy.platform((tx) =>
        applyReports(
          tx,
          readable.map(({ report }) => report),
        ),
      );
      for (const { message } of readable) message.ack();
      this.#options.onApplied(applied);
    } catch (error) {
      await this.#afterFailure(
        readable.map(({ message }) => message),
        error,
      );
    }
  }

  /** One bad report must not hold back the rest of its batch: each is tried alone. */
  async #afterFailure(messages: readonly JsMsg[], error: unknown): Promise<void> {
    const [only] = messages;
    if (messages.length > 1) {
      for (const message of messages) await this.#write([message]);
      return;
    }
    this.#options.onError(only?.subject ?? '', error);
    if (only && only.info.deliveryCount >= mostDeliveries) only.term('cannot be written');
    else only?.nak(retryMs);
  }
}

/** Null when it is no report, or speaks for another instance than its subject. */
function parse(message: JsMsg): NodeReport | null {
  try {
    const [, node = '', instance = ''] = message.subject.split('.');
    const parsed = instanceReport.safeParse(message.json());
    return parsed.success && parsed.data.instance === instance
      ? { node, report: parsed.data }
      : null;
  } catch {
    return null;
  }
}
