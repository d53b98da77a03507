import type { Command } from 'commander';
import { usageError } from '../errors.ts';
import {
  appInfo,
  instances,
  resize,
  restart,
  scale,
  startApp,
  stopApp,
} from '../graphql/operations.ts';
import type { Instance } from '../graphql/types.ts';
import type { Column } from '../output/table.ts';
import { relative } from '../output/time.ts';
import { paintState, stateOf } from '../progress/view.ts';
import type { Session } from '../session.ts';
import { appFields } from './apps.ts';
import { followOrDetach } from './deployments.ts';
import {
  appOptions,
  examples,
  groupDefault,
  integer,
  waitOptions,
  type Act,
  type WaitOptions,
} from './kit.ts';
import { rolloutOptions, strategyInput, type StrategyFlags } from './strategy.ts';
import { instanceOrders, replace } from './orders.ts';

type RestartOptions = WaitOptions & StrategyFlags & { instance?: string };

type ResizeOptions = WaitOptions & {
  cpu?: number;
  cpuCap?: number;
  memory?: number;
  pids?: number;
};

/** Columns of instances; the node is there only for operators, to whom alone the API tells it. */
function instanceColumns(session: Session, rows: readonly Instance[]): Column<Instance>[] {
  const { out } = session;
  const now = out.now();
  const nodes = rows.some((row) => row.node !== null);
  return [
    { title: 'PROCESS', value: (row) => row.process },
    { title: 'INSTANCE', value: (row) => row.id },
    { title: 'RELEASE', value: (row) => `v${String(row.release)}` },
    {
      title: 'STATE',
      value: stateOf,
      style: (cell, row) => paintState(stateOf(row), out.style, cell),
    },
    { title: 'RESTARTS', value: (row) => String(row.restarts), align: 'right' },
    { title: 'AGE', value: (row) => relative(row.createdAt, now).replace(' ago', '') },
    ...(nodes ? [{ title: 'NODE', value: (row: Instance) => row.node ?? '-' }] : []),
    { title: 'NOTE', value: (row) => row.message ?? row.lastExit?.message ?? '', shrink: true },
  ];
}

async function showInstances(session: Session, at: { tenant: string; app: string }, all: boolean) {
  const rows = await session
    .client()
    .all(instances, { ...at, includeGone: all }, (result) => result.app.instances);
  return [...rows].sort(
    (a, b) =>
      a.process.localeCompare(b.process) || b.release - a.release || a.id.localeCompare(b.id),
  );
}

async function showList(session: Session, all: boolean, name?: string): Promise<void> {
  const at = session.app(name);
  const rows = await showInstances(session, at, all);
  session.out.list(rows, instanceColumns(session, rows), `No instances of ${at.app}.`);
}

const down: readonly Instance['state'][] = ['BACKOFF', 'CRASHLOOP', 'FAILED'];

/** What an instance that is down wrote last. */
function lastWords({ out }: Session, { id, process, state, lastExit }: Instance): void {
  if (lastExit === null || lastExit.lastLines.length === 0 || !down.includes(state)) return;
  out.line();
  out.line(`${process} ${id} ${relative(lastExit.at, out.now())}: ${lastExit.message}`);
  for (const line of lastExit.lastLines) out.line(`  | ${line}`);
}

/** `web=3` */
export function parseFormation(texts: readonly string[]): { process: string; count: number }[] {
  return texts.map((text) => {
    const match = /^([a-z][a-z0-9-]*)=(\d{1,6})$/.exec(text);
    if (!match)
      throw usageError(`"${text}" is not process=count`, 'Example: bulkhead scale web=3 worker=1');
    return { process: match[1] ?? '', count: Number(match[2]) };
  });
}

export function runCommands(program: Command, act: Act): void {
  examples(
    appOptions(
      program
        .command('status')
        .description('How an app is doing: release, processes, instances')
        .argument('[app]'),
    ).action(
      act(async (session, _options: object, name?: string) => {
        const at = session.app(name);
        const { app } = await session.client().request(appInfo, at);
        const rows = await showInstances(session, at, false);
        session.out.data({ ...app, instances: rows });
        appFields(session, app);
        if (rows.length === 0) return;
        session.out.line();
        session.out.table(rows, instanceColumns(session, rows));
        for (const row of rows) lastWords(session, row);
      }),
    ),
    ['status hello', 'status --app hello --json'],
  );
  const list = act((session, options: { all?: boolean }, name?: string) =>
    showList(session, options.all === true, name),
  );
  const listOptions = (command: Command) =>
    appOptions(command.option('--all', 'also those that are gone'));
  examples(
    listOptions(
      program.command('ps').description('List the instances of an app').argument('[app]'),
    ).action(list),
    ['ps --app hello', 'ps hello --all', 'ps --app hello --json'],
  );
  const group = listOptions(
    program.command('instances').description('Instances one by one: list, delete'),
  );
  const listHere = act((session, options: { all?: boolean }) =>
    showList(session, options.all === true),
  );
  examples(groupDefault(group, listHere), ['instances --app hello']);
  examples(
    listOptions(group.command('list').description('As `bulkhead ps` (the default)')).action(
      listHere,
    ),
    ['instances list --app hello --all'],
  );
  instanceOrders(group, act);
  examples(
    waitOptions(
      appOptions(
        program
          .command('scale')
          .description('Set how many instances of each process run')
          .argument('<process=count...>'),
      ),
    ).action(
      act(async (session, options: WaitOptions, texts: string[]) => {
        const at = session.app();
        const input = { ...at, formation: parseFormation(texts) };
        const { scale: deployment } = await session.client().request(scale, { input });
        await followOrDetach(session, deployment.id, at, options);
      }),
    ),
    ['scale web=3 --app hello', 'scale web=2 worker=1 --app hello --detach'],
  );
  examples(
    waitOptions(
      appOptions(
        program
          .command('resize')
          .description('Change the sizes of a process while it runs')
          .argument('[process]', 'default: web')
          .option('--cpu <millis>', 'CPU, in thousandths of a core', integer(10, 64_000))
          .option('--cpu-cap <millis>', 'the most CPU', integer(10, 64_000))
          .option('--memory <MiB>', 'memory, a hard limit', integer(8, 1_048_576))
          .option('--pids <number>', 'processes and threads', integer(8, 32_768)),
      ),
    ).action(
      act(async (session, options: ResizeOptions, process?: string) => {
        const at = session.app();
        const { cpu, cpuCap, memory, pids } = options;
        if ([cpu, cpuCap, memory, pids].every((size) => size === undefined)) {
          throw usageError('no size given', 'Example: bulkhead resize web --memory 256');
        }
        const input = {
          ...at,
          process: process ?? 'web',
          cpuMillis: cpu ?? null,
          cpuCapMillis: cpuCap ?? null,
          memoryMiB: memory ?? null,
          pids: pids ?? null,
        };
        const { resize: deployment } = await session.client().request(resize, { input });
        await followOrDetach(session, deployment.id, at, options);
      }),
    ),
    ['resize web --memory 256 --cpu 500 --app hello', 'resize worker --pids 512 --app hello'],
    'Instances go on running. One is replaced where its node has no room for it, and started anew\nwhere it uses more memory than it is to have. Disk takes a deploy.',
  );
  examples(
    rolloutOptions(
      appOptions(
        program
          .command('restart')
          .description('Replace every instance, or one, without a gap')
          .argument('[app]')
          .option('--instance <id>', 'only this one; see `bulkhead ps`'),
      ),
    ).action(
      act(async (session, options: RestartOptions, name?: string) => {
        const at = session.app(name);
        if (options.instance !== undefined) {
          return replace(session, at, 'restart', options.instance, options);
        }
        const strategy = strategyInput(options);
        const { restart: deployment } = await session
          .client()
          .request(restart, { input: at, strategy });
        await followOrDetach(session, deployment.id, at, options);
      }),
    ),
    ['restart --app hello', 'restart --app hello --instance i0123456789ab'],
  );
  examples(
    waitOptions(
      appOptions(
        program
          .command('stop')
          .description('Stop an app; its releases and configuration stay')
          .argument('[app]'),
      ),
    ).action(
      act(async (session, options: WaitOptions, name?: string) => {
        const at = session.app(name);
        const { stopApp: deployment } = await session.client().request(stopApp, { input: at });
        await followOrDetach(session, deployment.id, at, options);
      }),
    ),
    ['stop --app hello'],
  );
  examples(
    waitOptions(
      appOptions(program.command('start').description('Start a stopped app').argument('[app]')),
    ).action(
      act(async (session, options: WaitOptions, name?: string) => {
        const at = session.app(name);
        const { startApp: deployment } = await session.client().request(startApp, { input: at });
        await followOrDetach(session, deployment.id, at, options);
      }),
    ),
    ['start --app hello'],
  );
}
