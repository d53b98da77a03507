import type { Command } from 'commander';
import { usageError } from '../errors.ts';
import { moveNode, pools, setPool } from '../graphql/operations.ts';
import type { Pool, SetPoolInput } from '../graphql/types.ts';
import { collect, examples, groupDefault, type Act } from './kit.ts';

const columns = [
  { title: 'POOL', value: (row: Pool) => row.name },
  { title: 'NODES', value: (row: Pool) => String(row.nodes), align: 'right' as const },
  {
    title: 'CPU OVERCOMMIT',
    value: (row: Pool) => String(row.cpuOvercommit),
    align: 'right' as const,
  },
  {
    title: 'FOR',
    value: (row: Pool) => (row.open ? 'everybody' : row.tenants.join(' ') || 'nobody'),
    shrink: true,
  },
];

interface SetOptions {
  readonly cpuOvercommit?: number;
  readonly open?: boolean;
  readonly grant?: string[];
  readonly revoke?: string[];
}

function factor(text: string): number {
  const value = Number(text);
  if (!(value >= 0.1 && value <= 100))
    throw usageError(`"${text}" is not a factor`, 'It is 0.1 to 100: 4 lets four cores share one.');
  return value;
}

/** Which nodes are kept apart, and for whom. */
export function poolCommands(program: Command, act: Act): void {
  const listAction = act(async (session) => {
    const { pools: rows } = await session.client().request(pools, {});
    session.out.list(rows, columns, 'No pools.');
  });
  const group = program
    .command('pools')
    .alias('pool')
    .description('Pools of nodes: which are kept apart, and for whom');
  examples(groupDefault(group, listAction), ['pools', 'pools set batch --cpu-overcommit 8']);
  examples(group.command('list').description('List the pools (the default)').action(listAction), [
    'pools list',
    'pools list --json',
  ]);
  examples(
    group
      .command('set')
      .description('Make a pool, or change what it is for')
      .argument('<pool>')
      .option('--cpu-overcommit <factor>', 'reserved CPU may reach so many times the cores', factor)
      .option('--open', 'every tenant may use it')
      .option('--no-open', 'only tenants that it is granted to')
      .option('--grant <tenant>', 'who may use it; may be repeated', collect)
      .option('--revoke <tenant>', 'whose next deploy to it is refused; may be repeated', collect)
      .action(
        act(async (session, options: SetOptions, name: string) => {
          const { cpuOvercommit, open, grant, revoke } = options;
          const input: SetPoolInput = {
            name,
            ...(cpuOvercommit === undefined ? {} : { cpuOvercommit }),
            ...(open === undefined ? {} : { open }),
            ...(grant === undefined ? {} : { grant }),
            ...(revoke === undefined ? {} : { revoke }),
          };
          const { setPool: pool } = await session.client().request(setPool, { input });
          session.out.data(pool);
          session.out.table([pool], columns);
        }),
      ),
    [
      'pools set gpu --grant acme',
      'pools set batch --cpu-overcommit 8 --open',
      'pools set gpu --revoke acme',
    ],
    'A process is put into a pool with `bulkhead deploy --pool`; without, it runs in the pool default.',
  );
}

/** `nodes move`: beside the other commands of nodes. */
export function moveCommand(group: Command, act: Act): void {
  examples(
    group
      .command('move')
      .description('Put a node into a pool; what runs there stays')
      .argument('<name>')
      .argument('<pool>')
      .action(
        act(async (session, _options: object, node: string, pool: string) => {
          const { moveNode: moved } = await session
            .client()
            .request(moveNode, { input: { node, pool } });
          session.out.data(moved);
          session.out.line(`${moved.name} is in the pool ${moved.pool}.`);
        }),
      ),
    ['nodes move node-2 batch', 'nodes move node-2 batch && bulkhead nodes drain node-2'],
  );
}
