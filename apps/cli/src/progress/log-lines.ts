import { CliError } from '../errors.ts';
import type { GraphqlClient } from '../graphql/client.ts';
import { followLogs, logPage, type WhichLogs } from '../graphql/operations.ts';
import { ConnectionLost, subscribe } from '../graphql/subscription.ts';
import type { LogLine } from '../graphql/types.ts';
import { pause } from './follow.ts';

// Log lines of an app as the API gives them. A page, and each line, says where it ends, so whatever
// happens to the connection the next question goes on from there: no gap, and no line twice.

const retryMs = 1_000;
const socketAttempts = 3;
const patienceMs = 60_000;

/** Lines that have been asked for together, and the place to go on from. */
export interface Lines {
  readonly lines: readonly LogLine[];
  readonly end: string;
}

/** The last lines that are kept, in the order of their time. */
export async function lastLines(
  client: GraphqlClient,
  which: WhichLogs,
  last: number,
): Promise<Lines> {
  return (await client.request(logPage, { ...which, last }, true)).logPage;
}

/** Every line that is kept, or came after a place, in pieces. */
export async function* keptLines(
  client: GraphqlClient,
  which: WhichLogs,
  after: string | null = null,
): AsyncGenerator<Lines, void, void> {
  let place = after;
  for (;;) {
    const { lines, end, more } = (await client.request(logPage, { ...which, after: place }, true))
      .logPage;
    yield { lines, end };
    if (!more) return;
    place = end;
  }
}

/**
 * Lines that come after a place, as they come, over a subscription. Where sockets do not pass, and
 * each time one is lost, it asks over HTTP.
 */
export async function* newLines(
  client: GraphqlClient,
  which: WhichLogs,
  after: string,
  trouble: (text: string) => void,
): AsyncGenerator<LogLine, void, void> {
  let place = after;
  let failures = 0;
  let away: number | null = null;
  const back = () => {
    if (away !== null) trouble('connected again');
    away = null;
  };
  for (;;) {
    if (failures < socketAttempts) {
      try {
        for await (const { logs: line } of subscribe(
          client,
          followLogs,
          { ...which, after: place },
          true,
        )) {
          failures = 0;
          back();
          place = line.cursor;
          yield line;
        }
        failures += 1;
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
        failures += 1;
      }
    }
    try {
      for await (const { lines, end } of keptLines(client, which, place)) {
        back();
        yield* lines;
        place = end;
      }
    } catch (error) {
      if (!(error instanceof CliError) || error.exit !== 'UNAVAILABLE') throw error;
      if (away === null) trouble(`${error.message}; trying again`);
      away ??= Date.now();
      if (Date.now() - away >= patienceMs) throw error;
    }
    await pause(retryMs, client.options.signal);
  }
}

/**
 * Lines of several instances arrive a moment apart from each other. Puts them in the order of their
 * time, as far as that can be had without waiting for the last one: a line that is later than
 * `lateMs` keeps its place.
 */
export class InOrder {
  #held: LogLine[] = [];
  readonly #lateMs: number;

  constructor(lateMs = 5_000) {
    this.#lateMs = lateMs;
  }

  /** The lines that nothing will come before any more. */
  add(lines: readonly LogLine[]): LogLine[] {
    this.#held = [...this.#held, ...lines].sort((a, b) => Date.parse(a.at) - Date.parse(b.at));
    const newest = this.#held.at(-1);
    if (newest === undefined) return [];
    const border = Date.parse(newest.at) - this.#lateMs;
    const ready = this.#held.findIndex((line) => Date.parse(line.at) > border);
    return this.#held.splice(0, ready);
  }

  rest(): LogLine[] {
    return this.#held.splice(0);
  }
}
