import { join } from 'node:path';
import { subjects, type InstanceReport } from '@bulkhead/protocol';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Bus } from './bus.ts';
import { JsonFolder } from './files.ts';
import type { ReportContent } from './plan.ts';
import { Semaphore } from './work-queue.ts';

/** How far ahead of the numbers in use the mark on disk lies, in microseconds. */
const markAhead = 5_000_000;
const publishedAtOnce = 32;
/** Waits after a failure, in a row: each up to twice as long as the one before, in ms. */
const retry = { first: 1000, longest: 15_000 };
/** What was acknowledged so shortly before a connection was lost may be lost with it, ms. */
const unsureMs = 60_000;
/** Everything else is said once more over so long, ms: a fleet that comes back must not be in the way of its own news. */
const repeatOverMs = 60_000;

/**
 * Numbers that grow for ever: microseconds since 1970, and never below what an agent before this
 * one gave out, even when the clock was set back.
 */
export class Sequence {
  readonly #folder: JsonFolder<{ mark: number }>;
  #last = 0;
  #mark = 0;

  constructor(nodeDir: string) {
    this.#folder = new JsonFolder(join(nodeDir, 'sequence'), { durable: false });
  }

  async load(): Promise<void> {
    const parse = (value: unknown) => z.object({ mark: z.number() }).parse(value);
    const found = await this.#folder.load(parse, () => undefined);
    this.#last = found.get('report')?.mark ?? 0;
    this.#mark = this.#last;
  }

  /** `now` in ms since 1970. */
  next(now: number): number {
    this.#last = Math.max(this.#last + 1, Math.round(now * 1000));
    if (this.#last >= this.#mark) {
      this.#mark = this.#last + markAhead;
      void this.#folder.put('report', { mark: this.#mark }).catch(() => undefined);
    }
    return this.#last;
  }

  async flush(): Promise<void> {
    await this.#folder.flush();
  }
}

interface Outgoing {
  content: ReportContent;
  json: string;
  since: Date;
  /** Grows with each change, so that an acknowledgement of an older one settles nothing. */
  version: number;
  ackedVersion: number;
  /** By `performance.now`; -Infinity: never. */
  ackedAt: number;
  sending: boolean;
}

/** Tells the control plane of each instance's state until it has heard; of one instance only the latest counts. */
export class Reporter {
  readonly #node: string;
  readonly #bus: Bus;
  readonly #sequence: Sequence;
  readonly #log: Logger;
  readonly #onAcked: (content: ReportContent) => void;
  readonly #outgoing = new Map<string, Outgoing>();
  readonly #places = new Semaphore(publishedAtOnce);
  #retry: NodeJS.Timeout | null = null;
  #failures = 0;
  #repeat: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(
    options: { node: string; bus: Bus; sequence: Sequence; log: Logger },
    onAcked: (content: ReportContent) => void,
  ) {
    this.#node = options.node;
    this.#bus = options.bus;
    this.#sequence = options.sequence;
    this.#log = options.log;
    this.#onAcked = onAcked;
  }

  /** Instances whose latest state has not been acknowledged. */
  get pending(): number {
    let count = 0;
    for (const out of this.#outgoing.values()) if (out.version !== out.ackedVersion) count += 1;
    return count;
  }

  /** The states last reported, for metrics. */
  *states(): Generator<ReportContent['state']> {
    for (const out of this.#outgoing.values()) yield out.content.state;
  }

  /** Whether the control plane has heard that the instance is in `state`. */
  hasConfirmed(instance: string, state: ReportContent['state']): boolean {
    const out = this.#outgoing.get(instance);
    return out !== undefined && out.version === out.ackedVersion && out.content.state === state;
  }

  report(content: ReportContent): void {
    const json = JSON.stringify(content);
    const known = this.#outgoing.get(content.instance);
    if (known?.json === json) return;
    if (known === undefined) {
      const fresh = {
        content,
        json,
        since: new Date(),
        version: 1,
        ackedVersion: 0,
        ackedAt: -Infinity,
        sending: false,
      };
      this.#outgoing.set(content.instance, fresh);
    } else {
      Object.assign(known, { content, json, since: new Date(), version: known.version + 1 });
    }
    this.#send(content.instance);
  }

  /** Sends the latest state of one instance once more. */
  repeat(instance: string): void {
    const out = this.#outgoing.get(instance);
    if (out === undefined) return;
    // What waits to be sent is sent anyway; what is on its way may be lost with its connection.
    if (out.sending || out.version === out.ackedVersion) out.version += 1;
    this.#send(instance);
  }

  /** There is a connection again. */
  resume(): void {
    const since = performance.now() - unsureMs;
    for (const [instance, out] of this.#outgoing)
      if (out.version !== out.ackedVersion || out.ackedAt > since) this.repeat(instance);
    this.repeatAll();
  }

  /** Says everything once more, little by little: who listens may have lost what it heard. */
  repeatAll(): void {
    if (this.#repeat !== null) clearTimeout(this.#repeat);
    const begun = performance.now();
    const left = [...this.#outgoing.keys()];
    const apart = repeatOverMs / Math.max(1, left.length);
    const next = (): void => {
      const instance = left.pop();
      if (instance === undefined || this.#stopped) return;
      const out = this.#outgoing.get(instance);
      // Unless it was said since then, for a reason of its own.
      if (out && out.ackedAt < begun) this.repeat(instance);
      this.#repeat = setTimeout(next, apart);
    };
    // Each agent of a fleet begins at another moment.
    this.#repeat = setTimeout(next, Math.random() * apart);
  }

  forget(instance: string): void {
    this.#outgoing.delete(instance);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (this.#repeat !== null) clearTimeout(this.#repeat);
  }

  #send(instance: string): void {
    const out = this.#outgoing.get(instance);
    if (out === undefined || out.sending || this.#stopped || !this.#bus.connected) return;
    out.sending = true;
    void this.#places
      .run(() => this.#publish(out))
      .finally(() => {
        out.sending = false;
        if (out.version === out.ackedVersion) return;
        if (this.#retry === null) this.#send(instance);
      });
  }

  async #publish(out: Outgoing): Promise<void> {
    const { content, version } = out;
    const report: InstanceReport = {
      v: 1,
      ...content,
      seq: this.#sequence.next(Date.now()),
      at: out.since.toISOString(),
    };
    try {
      await this.#bus.publishAcked(
        subjects.report(this.#node, content.instance),
        JSON.stringify(report),
      );
      out.ackedVersion = version;
      out.ackedAt = performance.now();
      this.#failures = 0;
      if (out.version === version) this.#onAcked(content);
    } catch (error) {
      this.#log.debug({ err: error, instance: content.instance }, 'a report was not acknowledged');
      this.#retryLater();
    }
  }

  #retryLater(): void {
    if (this.#retry !== null || this.#stopped) return;
    const longest = Math.min(retry.longest, retry.first * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 10);
    const wait = longest * (0.5 + Math.random() / 2);
    this.#retry = setTimeout(() => {
      this.#retry = null;
      for (const [instance, out] of this.#outgoing) {
        if (out.version !== out.ackedVersion) this.#send(instance);
      }
    }, wait);
  }
}
