import { afterEach, expect, test } from 'vitest';
import { eventually } from '../../testing/eventually.ts';
import { Platform } from '../testing/platform.ts';
import { orderMoves } from './rebalance.ts';

let platform: Platform;
afterEach(() => platform.stop());

const order = (mostMoves = 5) =>
  orderMoves({ tenancy: platform.db.tenancy, imagesOf: () => [], mostMoves, seed: () => 1 });
const perNode = async () => {
  const instances = await platform.instances('wide');
  const counts = platform.agents.map(
    ({ id }) => instances.filter(({ nodeId }) => nodeId === id).length,
  );
  return counts.join();
};
/** They have been ready for so long that they may be moved. */
const settle = () =>
  platform.sql(
    (prisma) => prisma.$executeRaw`
      UPDATE "Instance" SET "readyAt" = "readyAt" - interval '2 minutes' WHERE "goneAt" IS NULL`,
  );

test('what stands is spread over a node that joined, one after another, each replaced before it stops', async () => {
  platform = await Platform.start();
  await platform.succeeded(await platform.deploy('wide', 'hello:1', [{ name: 'web', count: 5 }]));
  await platform.addNode();
  await eventually('the node is ready', async () =>
    platform.sql(async (prisma) => (await prisma.node.count({ where: { state: 'ready' } })) === 2),
  );
  // What became ready just now is left alone.
  expect(await order()).toEqual([]);
  await settle();
  expect(await order(0)).toEqual([]);

  const backends = () => platform.edge.backends('wide.demo.localhost').length;
  let least = Infinity;
  const watching = setInterval(() => (least = Math.min(least, backends())), 5);
  expect(await order()).toHaveLength(1);
  // One at a time of an app.
  expect(await order()).toEqual([]);
  await eventually('one has moved', async () => (await perNode()) === '4,1');
  await settle();
  expect(await order()).toHaveLength(1);
  await eventually('two have', async () => (await perNode()) === '3,2');
  await settle();
  expect(await order()).toEqual([]);
  clearInterval(watching);
  expect(least).toBe(5);
});

test('a move without room is given up, and nothing is lost', async () => {
  platform = await Platform.start();
  await platform.succeeded(await platform.deploy('wide', 'hello:1', [{ name: 'web', count: 2 }]));
  const before = await platform.instances('wide');
  await platform.sql((prisma) => prisma.node.updateMany({ data: { cordoned: true } }));
  const note = (minutesAgo: number) =>
    platform.db.tenancy.platform(async (tx) => {
      await tx.prisma.$executeRaw`
        UPDATE "Instance" SET "moveTo" = ${platform.agent.id},
          "moveAt" = clock_timestamp() - make_interval(mins => ${minutesAgo}::int)
        WHERE "id" = ${before[0]?.id}`;
      await tx.outbox.add('app', before[0]?.appId ?? '');
    });
  await note(0);
  await eventually('a copy waits', async () => {
    const copy = (await platform.instances('wide')).find(({ nodeId }) => nodeId === null);
    return copy?.claimNodeId === platform.agent.id && copy.message?.startsWith('no room');
  });
  await note(11);
  const ids = (rows: readonly { id: string }[]) => rows.map(({ id }) => id);
  await eventually('it is forgotten', async () =>
    (await platform.instances('wide')).every(({ nodeId }) => nodeId !== null),
  );
  const after = await platform.instances('wide');
  expect(ids(after)).toEqual(ids(before));
  expect(after.every(({ state }) => state === 'ready')).toBe(true);
});
