import type { Command } from 'commander';
import { createLogUpdate } from 'log-update';
import { nodesTop } from '../graphql/operations.ts';
import type { NodeTop } from '../graphql/types.ts';
import { table, type Column } from '../output/table.ts';
import { pause } from '../progress/follow.ts';
import type { Session } from '../session.ts';
import { examples, type Act } from './kit.ts';

/** As often as nodes say what they use. */
const everyMs = 2_000;

const of = (used: number | null | undefined, all: number, unit: string): string =>
  used == null ? '-' : `${String(used)} / ${String(all)}${unit}`;

const columns: readonly Column<NodeTop>[] = [
  { title: 'NODE', value: (row) => row.name },
  { title: 'STATE', value: (row) => row.state.toLowerCase() },
  {
    title: 'INSTANCES',
    value: (row) => `${String(row.instanceCount)} / ${String(row.capacity.instances)}`,
    align: 'right',
  },
  {
    title: 'CPU',
    value: (row) => of(row.use?.cpuMillis, row.capacity.cpuMillis, 'm'),
    align: 'right',
  },
  {
    title: 'RESERVED',
    value: (row) => `${String(row.reserved.cpuMillis)}m`,
    align: 'right',
  },
  {
    title: 'MEMORY',
    value: (row) => of(row.use?.memoryMiB, row.capacity.memoryMiB, ' MiB'),
    align: 'right',
  },
  {
    title: 'DISK',
    value: (row) => of(row.use?.diskMiB, row.capacity.diskMiB, ' MiB'),
    align: 'right',
  },
  { title: 'LOAD', value: (row) => row.use?.load.toFixed(2) ?? '-', align: 'right' },
];

async function top(session: Session, { watch = false }: { watch?: boolean }): Promise<void> {
  const { out } = session;
  const client = session.client();
  const read = () => client.all(nodesTop, {}, (result) => result.nodes);
  if (!watch) return out.list(await read(), [...columns], 'No nodes have joined.');
  const { stdout } = out.streams;
  const screen = !out.json && stdout.isTTY ? createLogUpdate(stdout) : null;
  try {
    for (;;) {
      const rows = await read();
      rows.forEach((row) => out.record(row));
      const lines = table(rows, [...columns], screen ? out.columns : null);
      if (screen) screen(lines.join('\n'));
      else for (const line of lines) out.line(line);
      await pause(everyMs, client.options.signal);
    }
  } finally {
    screen?.done();
  }
}

export function topCommand(group: Command, act: Act): void {
  examples(
    group
      .command('top')
      .description('Show what each host uses now, containers and all')
      .option('-w, --watch', 'again and again')
      .action(act((session, options: { watch?: boolean }) => top(session, options))),
    ['nodes top', 'nodes top --watch', "nodes top --json | jq '.[].use'"],
    'CPU in thousandths of a core; RESERVED: what its instances may count on.',
  );
}
