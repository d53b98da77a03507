import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { CliError, Interrupted, usageError } from '../errors.ts';
import {
  cancelDrain,
  cordonNode,
  drainNode,
  drainPlan,
  labelNode,
  nodeInfo,
  uncordonNode,
  type Operation,
} from '../graphql/operations.ts';
import type { DrainMove, NodeInfo } from '../graphql/types.ts';
import type { Session } from '../session.ts';
import { examples, parseLabel, seconds, type Act } from './kit.ts';

const pollMs = 1_000;

/** `zone=a` sets, `zone-` removes, as kubectl has it. */
export function parseLabels(texts: readonly string[]): { name: string; value: string | null }[] {
  return texts.map((text) => {
    const removed = /^([^=]+)-$/.exec(text);
    if (removed) return { name: removed[1] ?? '', value: null };
    if (!text.includes('='))
      throw usageError(
        `"${text}" is neither name=value nor name-`,
        'Example: bulkhead nodes label node-1 zone=a disk-',
      );
    return parseLabel(text);
  });
}

export function drainCommands(group: Command, act: Act): void {
  const simple = <Answer>(
    name: string,
    description: string,
    operation: Operation<Answer, { input: { node: string } }>,
    done: string,
  ) =>
    examples(
      group
        .command(name)
        .description(description)
        .argument('<name>')
        .action(
          act(async (session, _options: object, node: string) => {
            session.out.data(await session.client().request(operation, { input: { node } }));
            session.out.line(`${node} ${done}.`);
          }),
        ),
      [`nodes ${name} node-1`],
    );
  simple('cordon', 'Give a node no new instances', cordonNode, 'gets no new instances');
  simple('uncordon', 'Give it instances again; ends a drain', uncordonNode, 'gets instances again');
  examples(
    group
      .command('label')
      .description('Set and remove labels of a node')
      .argument('<name>')
      .argument('<label...>', 'name=value, or name- to remove it')
      .action(
        act(async (session, _options: object, node: string, texts: string[]) => {
          const input = { node, labels: parseLabels(texts) };
          const { labelNode: after } = await session.client().request(labelNode, { input });
          session.out.data(after);
          const labels = after.labels.map(({ name, value }) => `${name}=${value}`);
          session.out.line(`${node}: ${labels.join(' ') || 'no labels'}`);
        }),
      ),
    ['nodes label node-1 zone=a', 'nodes label node-1 zone-'],
    'The label `zone` names a failure zone: apps are spread over zones before nodes.',
  );
  examples(
    group
      .command('drain')
      .description('Move what runs on a node elsewhere, each instance start-first')
      .argument('<name>')
      .option('--dry-run', 'only show what would happen')
      .option('--cancel', 'stop draining; what is still there stays, and the node stays cordoned')
      .option('-d, --detach', 'do not wait until the node is empty')
      .option('--timeout <duration>', 'stop waiting after this time (the drain goes on)', seconds)
      .action(act(drain)),
    ['nodes drain node-1 --dry-run', 'nodes drain node-1', 'nodes drain node-1 --cancel'],
    'An instance stops when its copy elsewhere is ready and in the route.',
  );
}

interface DrainOptions {
  readonly dryRun?: boolean;
  readonly cancel?: boolean;
  readonly detach?: boolean;
  readonly timeout?: number;
}

async function drain(session: Session, options: DrainOptions, node: string): Promise<void> {
  const { out } = session;
  if (options.cancel === true) {
    out.data(await session.client().request(cancelDrain, { input: { node } }));
    out.line(
      `${node} is no longer drained, and stays cordoned. Undo that: bulkhead nodes uncordon ${node}`,
    );
    return;
  }
  const { drainPlan: moves } = await session.client().request(drainPlan, { node });
  if (options.dryRun === true) {
    out.list(moves, moveColumns, `Nothing runs on ${node}.`);
    return;
  }
  showStaying(session, moves);
  await session.client().request(drainNode, { input: { node } });
  if (options.detach === true) {
    out.data({ node, moves });
    out.line(
      `${node} is being drained: ${String(moves.length)} instances. Watch: bulkhead nodes info ${node}`,
    );
    return;
  }
  const last = await untilEmpty(session, node, options.timeout ?? null);
  out.data(last);
  out.line(`${node} is empty and cordoned.`);
}

const moveColumns = [
  { title: 'INSTANCE', value: (row: DrainMove) => row.instance },
  { title: 'TENANT', value: (row: DrainMove) => row.tenant },
  { title: 'APP', value: (row: DrainMove) => row.app },
  { title: 'PROCESS', value: (row: DrainMove) => row.process },
  { title: 'TO', value: (row: DrainMove) => row.to ?? 'stays' },
  { title: 'WHY', value: (row: DrainMove) => row.why ?? '', shrink: true },
];

function showStaying({ out }: Session, moves: readonly DrainMove[]): void {
  for (const { instance, tenant, app, why } of moves)
    if (why !== null) out.warn(`${instance} (${tenant}/${app}) stays for now: ${why}`);
}

async function untilEmpty(
  session: Session,
  node: string,
  timeout: number | null,
): Promise<NodeInfo> {
  const { out, io } = session;
  const goOn = `The drain goes on. Watch: bulkhead nodes info ${node}; end it: bulkhead nodes drain ${node} --cancel`;
  const deadline = timeout === null ? Infinity : Date.now() + timeout * 1000;
  let told = -1;
  for (;;) {
    const { node: now } = await session.client().request(nodeInfo, { name: node });
    if (!now.draining)
      throw new CliError('CONFLICT', `the drain of ${node} was ended by somebody else`);
    if (now.instanceCount === 0) return now;
    if (now.instanceCount !== told) out.note(`${String(now.instanceCount)} left on ${node}`);
    told = now.instanceCount;
    if (Date.now() >= deadline)
      throw new CliError('UNAVAILABLE', `${String(told)} instances are still on ${node}`, {
        code: 'TIMEOUT',
        hint: goOn,
      });
    await delay(pollMs, undefined, { signal: io.signal }).catch(() => {
      throw new Interrupted('no longer watching', goOn);
    });
  }
}
