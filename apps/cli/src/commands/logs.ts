import { InvalidArgumentError, type Command } from 'commander';
import { usageError } from '../errors.ts';
import type { WhichLogs } from '../graphql/operations.ts';
import type { LogLine } from '../graphql/types.ts';
import type { Style } from '../output/style.ts';
import { colouredText, plainText } from '../output/text.ts';
import { clock, parseMoment } from '../output/time.ts';
import { InOrder, keptLines, lastLines, newLines } from '../progress/log-lines.ts';
import type { Session } from '../session.ts';
import { instanceId } from './instance-name.ts';
import { appOptions, examples, integer, type Act } from './kit.ts';

type Count = number | 'all';

interface LogOptions {
  readonly follow?: boolean;
  readonly process?: string;
  readonly instance?: string;
  readonly since?: string;
  readonly until?: string;
  readonly lines?: Count;
  readonly tail?: Count;
  readonly timestamps?: boolean;
  readonly bare?: boolean;
}

/** What stands before a line: the time of day, the whole time, or nothing at all. */
export type Prefix = 'clock' | 'whole' | 'none';

const defaultLines = 100;
const mostLines = 1000;

/** A line for people. */
export function formatLine(line: LogLine, style: Style, prefix: Prefix): string {
  const text = style.enabled ? colouredText(line.text) : plainText(line.text);
  const shown = line.stream === 'platform' ? style.warn(text) : text;
  if (prefix === 'none') return shown;
  const at = prefix === 'clock' ? clock(line.at) : line.at;
  const source = plainText(`${line.process}/${line.instance}`);
  return `${style.dim(at)} ${style.named(source, source)} ${shown}`;
}

function countOf(text: string): Count {
  if (text === 'all') return 'all';
  try {
    return integer(0, mostLines)(text);
  } catch {
    throw new InvalidArgumentError(`Not a whole number from 0 to ${String(mostLines)}, nor "all".`);
  }
}

function prefixOf(session: Session, options: LogOptions): Prefix {
  if (options.bare === true) return 'none';
  return session.io.streams.stdout.isTTY && options.timestamps !== true ? 'clock' : 'whole';
}

/** A pipe that is full holds us up, so that a long history does not pile up in memory. */
async function drained(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.writableNeedDrain) await new Promise((resolve) => stream.once('drain', resolve));
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
        .option('--instance <id>', 'only this instance, also when it is gone')
        .option('--since <time>', 'only lines from then on: 10m, 2h, or a date')
        .option('--until <time>', 'only lines up to then')
        .option(
          '-n, --lines <count>',
          'at most this many earlier lines, or "all" (default: 100; with --since: all)',
          countOf,
        )
        .option('--tail <count>', 'the same as --lines', countOf)
        .option('--timestamps', 'with the date and parts of a second, also on a terminal')
        .option('--bare', 'without time, process and instance'),
    ).action(
      act(async (session, options: LogOptions, name?: string) => {
        const { out } = session;
        if (options.follow === true && options.until !== undefined)
          throw usageError('--until and --follow exclude each other', 'Leave out one of them.');
        const at = session.app(name);
        const moment = (option: 'since' | 'until') => {
          const text = options[option];
          return text === undefined ? null : parseMoment(text, `--${option}`, out.now());
        };
        const times = { since: moment('since'), until: moment('until') };
        const client = session.client();
        const which: WhichLogs = {
          ...at,
          ...times,
          process: options.process ?? null,
          instance:
            options.instance === undefined ? null : await instanceId(client, at, options.instance),
        };
        const prefix = prefixOf(session, options);
        let shown = 0;
        const show = async (lines: readonly LogLine[]) => {
          for (const line of lines) {
            const { cursor: _, ...record } = line;
            out.record(record);
            out.line(formatLine(line, out.style, prefix));
          }
          shown += lines.length;
          await drained(session.io.streams.stdout);
        };

        const count =
          options.tail ?? options.lines ?? (which.since === null ? defaultLines : 'all');
        let end = '';
        if (count === 'all') {
          const inOrder = new InOrder();
          for await (const piece of keptLines(client, which)) {
            await show(inOrder.add(piece.lines));
            end = piece.end;
          }
          await show(inOrder.rest());
        } else {
          const last = await lastLines(client, which, count);
          await show(last.lines);
          end = last.end;
        }
        if (options.follow !== true) {
          if (shown === 0) out.note('No lines.');
          return;
        }
        for await (const line of newLines(client, which, end, (text) => out.note(text)))
          await show([line]);
      }),
    ),
    [
      'logs --app hello',
      'logs hello -f --process web',
      'logs --app hello --since 2h --until 90m',
      'logs --app hello --instance i3k9 -n all --bare > web.log',
      'logs --app hello --json | jq -r \'select(.stream == "stderr").text\'',
    ],
    'With --json: one JSON object per line. Lines are kept for 7 days, also of instances that are\ngone; where an instance wrote more than its limit, a line says how much was dropped.',
  );
}
