import type { Command } from 'commander';
import { nodeInfo, nodes } from '../graphql/operations.ts';
import type { Node } from '../graphql/types.ts';
import type { Style } from '../output/style.ts';
import { relative } from '../output/time.ts';
import { examples, groupDefault, type Act } from './kit.ts';
import { drainCommands } from './node-drain.ts';
import { joinCommands } from './node-join.ts';
import { moveCommand } from './pools.ts';
import { topCommand } from './node-top.ts';

const share = (used: number, of: number) =>
  of > 0 ? `${String(Math.round((used / of) * 100))}%` : '-';

function paintNode(state: Node['state'], style: Style, text: string): string {
  switch (state) {
    case 'READY':
      return style.good(text);
    case 'SUSPECT':
      return style.warn(text);
    case 'LOST':
      return style.bad(text);
    case 'JOINING':
      return text;
  }
}

/** `ready, cordoned, without io-limit`: what an operator must know first. */
const stateOf = (node: Node) =>
  [
    node.state.toLowerCase(),
    ...(node.draining ? ['draining'] : node.cordoned ? ['cordoned'] : []),
    ...(node.missingWalls.length > 0 ? [`without ${node.missingWalls.join(' ')}`] : []),
  ].join(', ');

/** `crun 1.8.1, conmon 2.1.6` */
function programs(versions: Record<string, string | null>): string {
  const known = Object.entries(versions).filter(([, version]) => version !== null);
  return known.map(([name, version]) => `${name} ${String(version)}`).join(', ') || '-';
}

export function nodeCommands(program: Command, act: Act): void {
  const listAction = act(async (session) => {
    const { out } = session;
    const now = out.now();
    const rows = await session.client().all(nodes, {}, (result) => result.nodes);
    out.list(
      rows,
      [
        { title: 'NODE', value: (row) => row.name },
        {
          title: 'STATE',
          value: stateOf,
          style: (cell, row) => paintNode(row.state, out.style, cell),
        },
        { title: 'POOL', value: (row) => row.pool },
        {
          title: 'ZONE',
          value: (row) => row.labels.find(({ name }) => name === 'zone')?.value ?? '-',
        },
        {
          title: 'INSTANCES',
          value: (row) => `${String(row.instanceCount)}/${String(row.capacity.instances)}`,
          align: 'right',
        },
        {
          title: 'CPU',
          value: (row) => share(row.reserved.cpuMillis, row.capacity.cpuMillis),
          align: 'right',
        },
        {
          title: 'MEMORY',
          value: (row) => share(row.reserved.memoryMiB, row.capacity.memoryMiB),
          align: 'right',
        },
        {
          title: 'DISK',
          value: (row) => share(row.reserved.diskMiB, row.capacity.diskMiB),
          align: 'right',
        },
        { title: 'HEARD', value: (row) => relative(row.lastSeenAt, now) },
        { title: 'AGENT', value: (row) => row.agentVersion ?? '-' },
      ],
      'No nodes have joined.',
    );
  });
  const group = program.command('nodes').alias('node').description('Hosts of the fleet');
  examples(groupDefault(group, listAction), ['nodes', 'nodes info node-1']);
  examples(group.command('list').description('List the nodes (the default)').action(listAction), [
    'nodes list',
    'nodes list --json',
  ]);
  examples(
    group
      .command('info')
      .description('Show a node: capacity, versions, what runs on it')
      .argument('<name>')
      .action(
        act(async (session, _options: object, name: string) => {
          const { node } = await session.client().request(nodeInfo, { name });
          const { out } = session;
          const now = out.now();
          const { capacity, reserved } = node;
          const of = (used: number, all: number, unit: string) =>
            `${String(used)} of ${String(all)}${unit} reserved (${share(used, all)})`;
          out.data({ ...node, instances: node.instances.nodes });
          out.fields([
            ['Node', `${node.name} (${node.id})`],
            ['State', paintNode(node.state, out.style, stateOf(node))],
            ['Pool', node.pool],
            ['Labels', node.labels.map(({ name, value }) => `${name}=${value}`).join(' ') || '-'],
            ['Address', node.address ?? 'loopback only'],
            ['Network', node.network ?? '-'],
            [
              'Certificate',
              node.certificateEndsAt === null
                ? '-'
                : `ends ${relative(node.certificateEndsAt, now)}; renewed before`,
            ],
            ['Heard', relative(node.lastSeenAt, now)],
            ['Joined', relative(node.createdAt, now)],
            ['CPU', of(reserved.cpuMillis, capacity.cpuMillis, 'm')],
            ['Memory', of(reserved.memoryMiB, capacity.memoryMiB, ' MiB')],
            ['Disk', of(reserved.diskMiB, capacity.diskMiB, ' MiB')],
            ['Instances', `${String(node.instanceCount)} of ${String(capacity.instances)}`],
            ['Agent', node.agentVersion ?? '-'],
            ['System', [node.os, node.kernel].filter((part) => part !== null).join(', ') || '-'],
            ['Containers', programs({ crun: node.crun, conmon: node.conmon })],
            ['cgroup', node.cgroup ?? '-'],
            ['Disk limits', node.diskLimit ?? '-'],
            [
              'Walls',
              node.missingWalls.length === 0
                ? 'whole'
                : out.style.bad(`missing: ${node.missingWalls.join(', ')}`),
            ],
          ]);
          if (node.instances.nodes.length === 0) return;
          out.line();
          out.table(node.instances.nodes, [
            { title: 'INSTANCE', value: (row) => row.id },
            { title: 'TENANT', value: (row) => row.tenant },
            { title: 'APP', value: (row) => row.app },
            { title: 'PROCESS', value: (row) => row.process },
            { title: 'STATE', value: (row) => row.state.toLowerCase() },
            { title: 'CPU', value: (row) => `${String(row.cpuMillis)}m`, align: 'right' },
            { title: 'MEMORY', value: (row) => `${String(row.memoryMiB)} MiB`, align: 'right' },
          ]);
          const hidden = node.instances.totalCount - node.instances.nodes.length;
          if (hidden > 0) out.note(`… and ${String(hidden)} more.`);
        }),
      ),
    ['nodes info node-1', 'nodes info node-1 --json'],
  );
  topCommand(group, act);
  drainCommands(group, act);
  moveCommand(group, act);
  joinCommands(group, act);
}
