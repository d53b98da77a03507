import type { Command } from 'commander';
import { CliError } from '../errors.ts';
import type { GraphqlClient } from '../graphql/client.ts';
import { followLogs, logs } from '../graphql/operations.ts';
import { ConnectionLost, subscribe } from '../graphql/subscription.ts';
import type { LogLine } from '../graphql/types.ts';
import type { Style } from '../output/style.ts';
import { colouredText, plainText } from '../output/text.ts';
import { clock, parseSince } from '../output/time.ts';
import { pause } from '../progress/follow.ts';
import { appOptions, examples, integer, type Act } from './kit.ts';

interface LogOptions {
  readonly follow?: boolean;
  readonly process?: string;
  readonly instance?: string;
  readonly since?: string;
  readonly lines: number;
  readonly tail?: number;
}

type LogQuery = {
  tenant: string;
  app: string;
  process: string | null;
  instance: string | null;
  since: string | null;
  tail: number;
};

const retryMs = 1_000;
const socketAttempts = 3;
const patienceMs = 60_000;
/** Lines to ask for after a gap; more than this in a gap are lost to the reader. */
const catchUpLines = 1_000;
/** Lines of several instances do not arrive in order; what is this much older may still come. */
const overlapMs = 5_000;
const remembered = 10_000;

/**
 * Log lines as they come, over a subscription. After a loss it asks again from a little before the
 * newest line and leaves out what was already read. Where sockets do not pass it polls.
 */
async function* tail(
  client: GraphqlClient,
  query: LogQuery,
  trouble: (text: string) => void,
): AsyncGenerator<LogLine, void, void> {
  const read = new Read();
  let failures = 0;
  let away: number | null = null;
  const back = () => {
    if (away !== null) trouble('connected again');
    away = null;
  };
  for (;;) {
    if (failures < socketAttempts) {
      try {
        const isNew = read.filter();
        const live = subscribe(client, followLogs, read.since(query), true);
        for await (const { logs: line } of live) {
          failures = 0;
          back();
          if (isNew(line)) yield line;
        }
        failures += 1;
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
        failures += 1;
      }
    }
    try {
      const isNew = read.filter();
      const answer = await client.request(logs, read.since(query), true);
      back();
      for (const line of answer.logs) if (isNew(line)) yield line;
    } catch (error) {
      if (!(error instanceof CliError) || error.exit !== 'UNAVAILABLE') throw error;
      if (away === null) trouble(`${error.message}; trying again`);
      away ??= Date.now();
      if (Date.now() - away >= patienceMs) throw error;
    }
    await pause(retryMs, client.options.signal);
  }
}

/** What has been read, to ask for the rest and to tell it apart. */
class Read {
  #newest: string | null = null;
  #keys: string[] = [];

  /** The query for what comes next. */
  since(query: LogQuery): LogQuery {
    if (this.#newest === null) return query;
    const since = new Date(Date.parse(this.#newest) - overlapMs).toISOString();
    return { ...query, since, tail: Math.max(query.tail, catchUpLines) };
  }

  /**
   * Whether a line of the next answer is new. Counts, because an app may write the same line twice
   * within a millisecond: each copy that was read is left out once.
   */
  filter(): (line: LogLine) => boolean {
    const known = new Map<string, number>();
    for (const key of this.#keys) known.set(key, (known.get(key) ?? 0) + 1);
    return (line) => {
      const key = JSON.stringify([line.at, line.instance, line.stream, line.text]);
      const copies = known.get(key) ?? 0;
      if (copies > 0) {
        known.set(key, copies - 1);
        return false;
      }
      this.#keys.push(key);
      if (this.#keys.length > 2 * remembered) this.#keys = this.#keys.slice(-remembered);
      if (this.#newest === null || line.at > this.#newest) this.#newest = line.at;
      return true;
    };
  }
}

/** A line for people: short on a terminal, complete in a file. */
export function formatLine(line: LogLine, style: Style, terminal: boolean): string {
  const at = terminal ? clock(line.at) : line.at;
  const source = plainText(`${line.process}/${line.instance}`);
  const text = style.enabled ? colouredText(line.text) : plainText(line.text);
  const shown = line.stream === 'platform' ? style.warn(text) : text;
  return `${style.dim(at)} ${style.named(source, source)} ${shown}`;
}

export function logsCommand(program: Command, act: Act): void {
  examples(
    appOptions(
      program
        .command('logs')
        .description('Show what an app writes')
        .argument('[app]')
        .option('-f, --follow', 'go on with new lines as they come')
        .option('-p, --process <name>', 'only this process')
        .option('--instance <id>', 'only this instance')
        .option('--since <time>', 'only newer lines: 10m, 2h, or a date')
        .option('-n, --lines <count>', 'at most this many earlier lines', integer(0, 1000), 100)
        .option('--tail <count>', 'the same as --lines', integer(0, 1000)),
    ).action(
      act(async (session, options: LogOptions, name?: string) => {
        const { out } = session;
        const query: LogQuery = {
          ...session.app(name),
          process: options.process ?? null,
          instance: options.instance ?? null,
          since: options.since === undefined ? null : parseSince(options.since, out.now()),
          tail: options.tail ?? options.lines,
        };
        const client = session.client();
        const terminal = session.io.streams.stdout.isTTY;
        const show = (line: LogLine) => {
          out.record(line);
          out.line(formatLine(line, out.style, terminal));
        };
        if (options.follow !== true) {
          const answer = await client.request(logs, query, true);
          answer.logs.forEach(show);
          if (answer.logs.length === 0) out.note('No lines.');
          return;
        }
        for await (const line of tail(client, query, (text) => out.note(text))) show(line);
      }),
    ),
    [
      'logs --app hello',
      'logs hello -f --process web',
      'logs --app hello --since 10m -n 1000',
      'logs --app hello --instance iabcdefghijkl --tail 20',
      'logs --app hello --json | jq -r \'select(.stream == "stderr").text\'',
    ],
    'With --json: one JSON object per line.',
  );
}
