/**
 * From lines read to batches sent: cutting, limiting and packing. Pure: the time of a line is the
 * time at which it was written, so that lines that waited for NATS are judged by the rate at which
 * they were written and not by the rate at which they are caught up with.
 */
import type { LogLine } from '@bulkhead/protocol';

/** Longest line in bytes; what is longer is cut. */
export const longestLine = 16_384;
/** Most characters of text in a batch: escaped as \uXXXX each, they still fit the protocol's 256 KiB. */
const batchCharacters = 40_000;
/** What a line costs besides its text: time, stream, punctuation. */
const lineOverhead = 20;

/** What may come at once, in seconds of the rate. */
const burstSeconds = 4;

/** A token bucket whose clock is the lines' own; bytes per second in the long run, and a burst. */
export class LogLimiter {
  #perSecond: number;
  #tokens: number;
  #at = 0;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond * burstSeconds;
  }

  get perSecond(): number {
    return this.#perSecond;
  }

  /** What was saved up before is not worth more than the new burst. */
  set perSecond(perSecond: number) {
    this.#perSecond = perSecond;
    this.#tokens = Math.min(this.#tokens, perSecond * burstSeconds);
  }

  /** Whether a line written at `at` (ms since 1970) may pass. */
  take(at: number, bytes: number): boolean {
    const elapsed = Math.max(0, at - this.#at);
    this.#at = Math.max(this.#at, at);
    const burst = this.#perSecond * burstSeconds;
    this.#tokens = Math.min(burst, this.#tokens + (elapsed / 1000) * this.#perSecond);
    if (bytes > this.#tokens) return false;
    this.#tokens -= bytes;
    return true;
  }
}

/** At most `most` bytes of `text`, never ending inside a character. */
export function cutLine(text: string, most = longestLine): string {
  if (text.length * 3 <= most) return text;
  const bytes = Buffer.from(text);
  if (bytes.length <= most) return text;
  // A streaming decoder keeps the incomplete character at the end to itself.
  return `${new TextDecoder().decode(bytes.subarray(0, most), { stream: true })} [cut]`;
}

/** Lines of the app that may pass, cut; and how many may not, and their bytes. */
export function limitLines(
  lines: readonly LogLine[],
  limiter: LogLimiter,
): { passed: LogLine[]; dropped: number; droppedBytes: number } {
  const passed: LogLine[] = [];
  let droppedBytes = 0;
  for (const line of lines) {
    const text = cutLine(line.text);
    // An empty line costs as well: a loop of newlines is a flood too.
    const cost = Buffer.byteLength(text) + lineOverhead;
    if (limiter.take(Date.parse(line.at), cost)) passed.push({ ...line, text });
    else droppedBytes += Buffer.byteLength(line.text) + 1;
  }
  return { passed, dropped: lines.length - passed.length, droppedBytes };
}

/** Splits lines so that each batch fits a message; `[]` gives none. */
export function packLines(lines: readonly LogLine[]): LogLine[][] {
  const batches: LogLine[][] = [];
  let batch: LogLine[] = [];
  let characters = 0;
  for (const line of lines) {
    const cost = line.text.length + lineOverhead;
    if (batch.length > 0 && characters + cost > batchCharacters) {
      batches.push(batch);
      batch = [];
      characters = 0;
    }
    batch.push(line);
    characters += cost;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}
