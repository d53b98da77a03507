/** Draining a node, with real controllers, PostgreSQL and NATS, and agents that pretend. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '../testing/eventually.ts';
import { Platform } from './testing/platform.ts';

let platform: Platform;
beforeAll(async () => {
  platform = await Platform.start({ nodes: 2 });
});
afterAll(() => platform.stop());

const hostOf = (app: string) => `${app}.demo.localhost`;
const nameOf = (node: string) =>
  platform.sql(
    async (prisma) => (await prisma.node.findUniqueOrThrow({ where: { id: node } })).name,
  );
const change = (name: string, what: 'drain' | 'keep' | 'uncordon') =>
  platform.db.tenancy.platform((tx) =>
    what === 'uncordon'
      ? tx.nodes.setCordoned(name, false)
      : tx.nodes.setDraining(name, what === 'drain'),
  );
const replica = () => platform.replicas[0]!.controllers;

test('an app with one instance never goes to zero, and the node ends up empty', async () => {
  await platform.succeeded(await platform.deploy('single'));
  const [before] = await platform.instances('single');
  const node = await nameOf(before?.nodeId ?? '');
  expect(await replica().planDrain(before?.nodeId ?? '')).toMatchObject([
    { app: 'single', to: platform.agents.find(({ id }) => id !== before?.nodeId)?.id, why: null },
  ]);
  const seen: number[] = [];
  const look = setInterval(() => seen.push(platform.edge.backends(hostOf('single')).length), 5);
  await change(node, 'drain');
  await eventually('the instance is on the other node alone', async () => {
    const [only, ...more] = await platform.instances('single');
    return more.length === 0 && only?.nodeId !== before?.nodeId && only?.state === 'ready';
  });
  clearInterval(look);
  expect(Math.min(...seen)).toBeGreaterThan(0);
  await change(node, 'uncordon');
});

test('what has no room elsewhere stays and serves, and goes when there is room', async () => {
  const web = (count: number) => [
    { name: 'web', count, port: 8080, resources: { memoryMiB: 64, cpuMillis: 10, diskMiB: 16 } },
  ];
  await platform.succeeded(await platform.deploy('stuck', 'hello:1', web(1)));
  const [before] = await platform.instances('stuck');
  const node = await nameOf(before?.nodeId ?? '');
  const other = platform.agents.find(({ id }) => id !== before?.nodeId);
  const otherName = await nameOf(other?.id ?? '');
  await platform.db.tenancy.platform((tx) => tx.nodes.setCordoned(otherName, true));
  expect(
    (await replica().planDrain(before?.nodeId ?? '')).find(({ app }) => app === 'stuck'),
  ).toMatchObject({
    to: null,
    why: expect.stringContaining('2 nodes are cordoned') as unknown,
  });
  await change(node, 'drain');
  await eventually('a copy waits for room', async () =>
    (await platform.instances('stuck')).some(
      ({ nodeId, message }) => nodeId === null && message?.startsWith('no room') === true,
    ),
  );
  expect(platform.edge.backends(hostOf('stuck'))).toEqual([before?.id]);
  await change(otherName, 'uncordon');
  await eventually('it has moved', async () => {
    const rows = await platform.instances('stuck');
    return rows.length === 1 && rows[0]?.nodeId === other?.id;
  });
  await change(node, 'uncordon');
});

test('a cancelled drain takes back the copies that are not needed', async () => {
  await platform.succeeded(await platform.deploy('kept'));
  const [before] = await platform.instances('kept');
  const node = await nameOf(before?.nodeId ?? '');
  const others = platform.agents.filter(({ id }) => id !== before?.nodeId);
  for (const { id } of others)
    await platform.db.tenancy.platform(async (tx) => tx.nodes.setCordoned(await nameOf(id), true));
  await change(node, 'drain');
  await eventually('a copy waits', async () => (await platform.instances('kept')).length === 2);
  await change(node, 'keep');
  await eventually('the copy is gone, the instance stays', async () => {
    const rows = await platform.instances('kept');
    return rows.length === 1 && rows[0]?.id === before?.id;
  });
  for (const { id } of platform.agents) await change(await nameOf(id), 'uncordon');
});

test('no loop met an error', () => {
  expect(platform.replicas.flatMap(({ errors }) => errors)).toEqual([]);
});
