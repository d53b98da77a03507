import { InvalidArgumentError, type Command } from 'commander';
import { createLogUpdate } from 'log-update';
import { followUsage, instanceChanges, usage } from '../graphql/operations.ts';
import type { GraphqlClient } from '../graphql/client.ts';
import { ConnectionLost, subscribe } from '../graphql/subscription.ts';
import type { FileChange, InstanceUsage } from '../graphql/types.ts';
import { table, type Column } from '../output/table.ts';
import { clock } from '../output/time.ts';
import type { Session } from '../session.ts';
import { pause } from '../progress/follow.ts';
import { instanceId } from './instance-name.ts';
import { appOptions, examples, seconds, type Act } from './kit.ts';
import { bytes } from './sizes.ts';

const letters: Record<FileChange['change'], string> = { ADDED: 'A', CHANGED: 'C', DELETED: 'D' };

const rate = (value: number | null) => (value === null ? '-' : `${bytes(value)}/s`);
const of = (used: string, limit: string) => `${used} / ${limit}`;
const percent = (share: number) => `${String(Math.round(share * 100))}%`;

/** At this share of a limit it is shown as trouble. */
const tight = 0.9;

export function usageColumns(session: Session): Column<InstanceUsage>[] {
  const { style } = session.out;
  const warnAt = (share: (row: InstanceUsage) => number) => (cell: string, row: InstanceUsage) =>
    share(row) >= tight ? style.warn(cell) : cell;
  return [
    { title: 'PROCESS', value: (row) => row.process },
    { title: 'INSTANCE', value: (row) => row.instance },
    {
      title: 'CPU',
      value: (row) =>
        of(
          row.cpuMillis === null ? '-' : `${String(Math.round(row.cpuMillis))}m`,
          `${String(row.cpuCapMillis)}m`,
        ),
      align: 'right',
      style: warnAt((row) => (row.cpuMillis ?? 0) / row.cpuCapMillis),
    },
    {
      title: 'THROTTLED',
      value: (row) => (row.throttled === null ? '-' : percent(row.throttled)),
      align: 'right',
      style: warnAt((row) => (row.throttled ?? 0) * 2),
    },
    {
      title: 'MEMORY',
      value: (row) => of(bytes(row.memoryBytes), bytes(row.memoryLimitBytes)),
      align: 'right',
      style: warnAt((row) => row.memoryBytes / row.memoryLimitBytes),
    },
    {
      title: 'DISK',
      value: (row) =>
        row.diskBytes === null || row.diskLimitBytes === null
          ? '-'
          : of(bytes(row.diskBytes), bytes(row.diskLimitBytes)),
      align: 'right',
      style: warnAt((row) => (row.diskBytes ?? 0) / (row.diskLimitBytes ?? 1)),
    },
    { title: 'READ', value: (row) => rate(row.readBytesPerSecond), align: 'right' },
    { title: 'WRITTEN', value: (row) => rate(row.writtenBytesPerSecond), align: 'right' },
    { title: 'RECEIVED', value: (row) => rate(row.receivedBytesPerSecond), align: 'right' },
    { title: 'SENT', value: (row) => rate(row.sentBytesPerSecond), align: 'right' },
    {
      title: 'PIDS',
      value: (row) => of(String(row.pids), String(row.pidsLimit)),
      align: 'right',
      style: warnAt((row) => row.pids / row.pidsLimit),
    },
  ];
}

const sorted = (rows: readonly InstanceUsage[]) =>
  [...rows].sort(
    (a, b) => a.process.localeCompare(b.process) || a.instance.localeCompare(b.instance),
  );

function interval(text: string): number {
  const value = seconds(text);
  if (value < 1 || value > 60) throw new InvalidArgumentError('From 1s to 60s.');
  return value;
}

interface TopOptions {
  readonly once?: boolean;
  readonly interval: number;
}

/** Readings as they come. Where no socket passes, and each time one is lost, it asks over HTTP. */
async function* readings(
  client: GraphqlClient,
  at: { tenant: string; app: string },
  intervalSeconds: number,
): AsyncGenerator<InstanceUsage[], void, void> {
  for (;;) {
    try {
      for await (const answer of subscribe(client, followUsage, { ...at, intervalSeconds }))
        yield answer.usage;
    } catch (error) {
      if (!(error instanceof ConnectionLost)) throw error;
    }
    yield (await client.request(usage, at)).usage;
    await pause(intervalSeconds * 1000, client.options.signal);
  }
}

async function top(session: Session, options: TopOptions, name?: string): Promise<void> {
  const { out } = session;
  const at = session.app(name);
  const client = session.client();
  const empty = `Nothing of ${at.app} runs.`;
  const columns = usageColumns(session);
  if (options.once === true) {
    const rows = sorted((await client.request(usage, at)).usage);
    rows.forEach((row) => out.record(row));
    if (rows.length === 0) out.note(empty);
    else out.table(rows, columns);
    return;
  }
  const { stdout } = out.streams;
  const screen = !out.json && stdout.isTTY ? createLogUpdate(stdout) : null;
  let titles = true;
  try {
    for await (const reading of readings(client, at, options.interval)) {
      const rows = sorted(reading);
      rows.forEach((row) => out.record(row));
      if (screen !== null) {
        const lines = table(rows, columns, out.columns, (title) => out.style.dim(title));
        const shown = lines.slice(0, Math.max(2, (stdout.rows || 24) - 2));
        const cut = lines.length - shown.length;
        if (cut > 0) shown.push(out.style.dim(`and ${String(cut)} more`));
        screen(rows.length === 0 ? empty : shown.join('\n'));
      } else {
        const time = { title: 'TIME', value: (row: InstanceUsage) => clock(row.at) };
        const lines = table(rows, [time, ...columns], null);
        for (const line of titles ? lines : lines.slice(1)) out.line(line);
        titles &&= rows.length === 0;
      }
    }
  } finally {
    screen?.done();
  }
}

export function inspectCommands(program: Command, act: Act): void {
  examples(
    appOptions(
      program
        .command('top')
        .description('Show live what the instances of an app use')
        .argument('[app]')
        .option('--once', 'one reading, then end')
        .option('--interval <duration>', 'between two readings: 1s to 60s', interval, 2),
    ).action(act((session, options: TopOptions, name?: string) => top(session, options, name))),
    ['top hello', 'top --app hello --once', "top hello --json | jq -c '{instance, cpuMillis}'"],
    'CPU in thousandths of a core, of the cap; THROTTLED: of the time, how much it was held back at\nthe cap. With --json: one JSON object per instance and reading.',
  );
  examples(
    appOptions(
      program
        .command('diff')
        .description('List the files of an instance that differ from its image')
        .argument('<instance>'),
    ).action(
      act(async (session, _options: object, text: string) => {
        const { out } = session;
        const at = session.app();
        const client = session.client();
        const instance = await instanceId(client, at, text);
        const { instanceChanges: found } = await client.request(instanceChanges, {
          ...at,
          instance,
        });
        const changes = found.changes.toSorted((a, b) => (a.path < b.path ? -1 : 1));
        out.data({ ...found, changes });
        for (const { change, path } of changes) out.line(`${letters[change]} ${path}`);
        if (found.truncated) out.warn('there are more; these are only the first ones');
        if (changes.length === 0) out.note('No changes.');
      }),
    ),
    ['diff i3k9 --app hello', "diff i3k9 --app hello --json | jq -r '.changes[].path'"],
    'A: added, C: changed, D: deleted.',
  );
}
