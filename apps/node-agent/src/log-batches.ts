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

/** Bytes per second in the long run and bytes at once. */
export interface LogRate {
  perSecond: number;
  burst: number;
}

/** A token bucket whose clock is the lines' own. */
export class LogLimiter {
  readonly #rate: LogRate;
  #tokens: number;
  #at = 0;

  constructor(rate: LogRate) {
    this.#rate = rate;
    this.#tokens = rate.burst;
  }

  /** Whether a line written at `at` (ms since 1970) may pass. */
  take(at: number, bytes: number): boolean {
    const elapsed = Math.max(0, at - this.#at);
    this.#at = Math.max(this.#at, at);
    this.#tokens = Math.min(
      this.#rate.burst,
      this.#tokens + (elapsed / 1000) * this.#rate.perSecond,
    );
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

/** Lines of the app that may pass, cut; and how many may not. */
export function limitLines(
  lines: readonly LogLine[],
  limiter: LogLimiter,
): { passed: LogLine[]; dropped: number } {
  const passed: LogLine[] = [];
  for (const line of lines) {
    const text = cutLine(line.text);
    // An empty line costs as well: a loop of newlines is a flood too.
    const cost = Buffer.byteLength(text) + lineOverhead;
    if (limiter.take(Date.parse(line.at), cost)) passed.push({ ...line, text });
  }
  return { passed, dropped: lines.length - passed.length };
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
