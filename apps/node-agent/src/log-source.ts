import { randomUUID } from 'node:crypto';
import { defaultResources, subjects, type LogBatch, type LogLine } from '@bulkhead/protocol';
import type { ContainerLogLine, ContainerRuntime } from '@bulkhead/runtime';
import { z } from 'zod';
import { cutLine, limitLines, LogLimiter, packLines } from './log-batches.ts';

/** Whose lines they are; kept on disk since a tombstone no longer says. */
export const logOwner = z.object({ tenantId: z.string(), appId: z.string(), process: z.string() });
export type LogOwner = z.infer<typeof logOwner>;

/** What is kept on disk of a source. */
export const logPosition = z.object({
  owner: logOwner,
  cursor: z.string().nullable(),
  bytesPerSecond: z.number().int().positive().default(defaultResources.logBytesPerSecond),
});
export type LogPosition = z.infer<typeof logPosition>;

/** Lines per read; one read is one unit of progress. */
const linesPerRead = 500;
/** When only the end is wanted. */
const linesPerSkim = 5000;
const tailLines = 20;
const tailLineBytes = 1000;
const mostPlatformLines = 100;
/** Between two lines that tell of dropped ones, ms. */
const noticeEveryMs = 1000;

/** A message that waits for its acknowledgement; the same `id` is stored once. */
interface Message {
  id: string;
  payload: string;
}

/** What one read led to: sent in order, and the cursor moves when all of it was acknowledged. */
interface Chunk {
  messages: Message[];
  cursor: string | null;
  caughtUp: boolean;
  lines: number;
  dropped: number;
  droppedBytes: number;
  lostBytes: number;
}

/** The log of one instance, on its way from the runtime's files to JetStream. */
export class LogSource {
  readonly instance: string;
  readonly owner: LogOwner;
  readonly subject: string;
  /** Everything up to here is acknowledged. */
  cursor: string | null;
  chunk: Chunk | null = null;
  readonly #runtime: ContainerRuntime;
  readonly #limiter: LogLimiter;
  #platform: LogLine[] = [];
  /** Dropped lines that no platform line and no batch has counted yet. */
  #unnoticed = 0;
  #unnoticedBytes = 0;
  #untold = 0;
  #noticedAt = 0;
  #tail: ContainerLogLine[] = [];
  /** The tail knows every line since then, ms since 1970. */
  readonly #tailFrom: number;

  constructor(
    at: { instance: string; node: string; position: LogPosition; resumed: boolean },
    runtime: ContainerRuntime,
  ) {
    const { owner, cursor, bytesPerSecond } = at.position;
    this.instance = at.instance;
    this.owner = owner;
    this.cursor = cursor;
    this.subject = subjects.logs(owner.tenantId, owner.appId, at.node, at.instance);
    this.#runtime = runtime;
    this.#limiter = new LogLimiter(bytesPerSecond);
    this.#tailFrom = at.resumed ? Date.now() : 0;
  }

  /** What is kept of it on disk. */
  get position(): LogPosition {
    const { owner, cursor } = this;
    return { owner, cursor, bytesPerSecond: this.#limiter.perSecond };
  }

  /** Whether that is another rate than before. */
  limitTo(bytesPerSecond: number): boolean {
    if (bytesPerSecond === this.#limiter.perSecond) return false;
    this.#limiter.perSecond = bytesPerSecond;
    return true;
  }

  /** Lines of the platform's own wait for the next chunk. */
  say(text: string, at: Date): void {
    this.#platform.push({ at: at.toISOString(), stream: 'platform', text: cutLine(text) });
    if (this.#platform.length > mostPlatformLines) this.#platform.shift();
  }

  /** Whether lines were dropped that nobody has been told of. */
  get owesNotice(): boolean {
    return this.#unnoticed > 0;
  }

  /** Makes the next chunk; null when there is nothing to send and nothing to skip. */
  async read(now: number): Promise<Chunk | null> {
    const { lines, cursor, lostBytes } = await this.#readFrom(this.cursor, linesPerRead);
    const caughtUp = lines.length < linesPerRead;
    this.#remember(lines);
    const { passed, dropped, droppedBytes } = limitLines(lines.map(toLogLine), this.#limiter);
    this.#unnoticed += dropped;
    this.#untold += dropped;
    this.#unnoticedBytes += droppedBytes;
    const notice = this.#takeNotice(now);
    // The platform's lines belong after the app's that came before them, so they wait for those.
    const own = this.#takePlatform(caughtUp ? null : (lines.at(-1)?.at ?? null));
    const gap = describeGap(lostBytes, lines[0]?.at ?? new Date(now));
    const all = inOrder([...gap, ...passed, ...own, ...notice]);
    if (all.length === 0 && cursor === this.cursor) return null;
    const messages = this.#pack(all);
    const counts = { lines: all.length, dropped, droppedBytes, lostBytes };
    this.chunk = { messages, cursor, caughtUp, ...counts };
    return this.chunk;
  }

  /** Those up to `until`; null: all. */
  #takePlatform(until: Date | null): LogLine[] {
    const later = until === null ? [] : this.#platform.filter((line) => new Date(line.at) > until);
    const due = this.#platform.filter((line) => !later.includes(line));
    this.#platform = later;
    return due;
  }

  #pack(lines: LogLine[]): Message[] {
    return packLines(lines).map((batch) => {
      const message: LogBatch = {
        v: 1,
        instance: this.instance,
        process: this.owner.process,
        lines: batch,
        dropped: this.#untold,
      };
      this.#untold = 0;
      return { id: randomUUID(), payload: JSON.stringify(message) };
    });
  }

  #takeNotice(now: number): LogLine[] {
    if (this.#unnoticed === 0 || now - this.#noticedAt < noticeEveryMs) return [];
    const [kept, lost] = [this.#limiter.perSecond, this.#unnoticedBytes].map(kibibytes);
    const text = `${this.#unnoticed} lines were dropped (${lost}): the process writes more than its log limit of ${kept} a second`;
    this.#unnoticed = 0;
    this.#unnoticedBytes = 0;
    this.#noticedAt = now;
    return [{ at: new Date(now).toISOString(), stream: 'platform', text }];
  }

  /** The last lines written since `since`, newest last, read or not read yet. */
  async lastLines(since: Date): Promise<string[]> {
    const tailKnows = since.getTime() >= this.#tailFrom;
    let tail = tailKnows ? this.#tail : [];
    let cursor = tailKnows ? (this.chunk?.cursor ?? this.cursor) : null;
    for (;;) {
      const read = await this.#readFrom(cursor, linesPerSkim);
      tail = [...tail, ...read.lines.slice(-tailLines)].slice(-tailLines);
      cursor = read.cursor;
      if (read.lines.length < linesPerSkim) break;
    }
    return tail.filter((line) => line.at >= since).map((line) => cutLine(line.text, tailLineBytes));
  }

  async #readFrom(
    cursor: string | null,
    limit: number,
  ): Promise<{ lines: ContainerLogLine[]; cursor: string | null; lostBytes: number }> {
    // An instance whose container was never made has no log; it may still have platform lines.
    if ((await this.#runtime.find(this.instance)) === null)
      return { lines: [], cursor, lostBytes: 0 };
    return this.#runtime.readLogs(this.instance, cursor, limit);
  }

  #remember(lines: readonly ContainerLogLine[]): void {
    if (lines.length > 0)
      this.#tail = [...this.#tail, ...lines.slice(-tailLines)].slice(-tailLines);
  }
}

/** For whoever looks for what is not there: it was not within reach of the limiter, which counts lines. */
function describeGap(lostBytes: number, at: Date): LogLine[] {
  if (lostBytes === 0) return [];
  const text = `about ${kibibytes(lostBytes)} of output before this were lost: more was written than is kept until it can be sent`;
  return [{ at: at.toISOString(), stream: 'platform', text }];
}

const kibibytes = (bytes: number): string => `${Math.ceil(bytes / 1024)} KiB`;

function toLogLine(line: ContainerLogLine): LogLine {
  return { at: line.at.toISOString(), stream: line.stream, text: line.text };
}

/** By time; lines of the same millisecond stay as they came. */
function inOrder(lines: LogLine[]): LogLine[] {
  return lines.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
}
