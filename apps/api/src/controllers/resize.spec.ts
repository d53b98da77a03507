/** Other sizes, from the tenant's door over ledger, rollout and node room to the node. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '../testing/eventually.ts';
import { Platform } from './testing/platform.ts';

let platform: Platform;
beforeAll(async () => {
  platform = await Platform.start({ nodes: 2 });
});
afterAll(async () => {
  await platform.stop();
});

type Sizes = { memoryMiB?: number; cpuMillis?: number };
const resize = (app: string, sizes: Sizes) =>
  platform.run('app.scale', (tx) => tx.deployments.resize({ app, process: 'web', ...sizes }));
const web = (count: number, memoryMiB: number) => [{ name: 'web', count, port: 8080, memoryMiB }];
const heldBy = (id: string) =>
  platform.agents.flatMap((agent) => agent.instances.get(id) ?? []).at(0);

/** What the rows of a node come to never exceeds what it has. */
async function expectRoom(): Promise<void> {
  const rows = await platform.sql((prisma) =>
    prisma.instance.groupBy({
      by: ['nodeId'],
      where: { goneAt: null, nodeId: { not: null } },
      _sum: { memoryMiB: true },
    }),
  );
  const nodes = await platform.sql((prisma) => prisma.node.findMany());
  for (const { nodeId, _sum } of rows) {
    const node = nodes.find(({ id }) => id === nodeId);
    expect(_sum.memoryMiB ?? 0).toBeLessThanOrEqual(node?.memoryMiB ?? 0);
  }
}

test('running instances get them in place, the ledger follows, and they keep their release name', async () => {
  await platform.succeeded(await platform.deploy('grown', 'hello:1', web(2, 64)));
  const before = await platform.instances('grown');
  const used = await platform.used('memoryMiB');
  const up = await resize('grown', { memoryMiB: 256, cpuMillis: 200 });
  expect(await platform.used('memoryMiB')).toBe(used + 2 * 192);
  const ended = await platform.succeeded(up);
  expect(ended.events.map(({ message }) => message).at(-1)).toBe('v2 is live, 2 web resized');
  const after = await platform.instances('grown');
  expect(after.map(({ id }) => id)).toEqual(before.map(({ id }) => id));
  for (const row of after) {
    expect(row).toMatchObject({ memoryMiB: 256, cpuMillis: 200, madeVersion: 1, restarts: 0 });
    expect(heldBy(row.id)?.spec).toMatchObject({
      ...{ release: 2, madeRelease: 1 },
      resources: { memoryMiB: 256, cpuMillis: 200 },
    });
  }
  // Going down gives it back when it is done.
  await platform.succeeded(await resize('grown', { memoryMiB: 32 }));
  expect(await platform.used('memoryMiB')).toBe(used - 2 * 32);
  expect((await platform.instances('grown')).map(({ id }) => id)).toEqual(
    before.map(({ id }) => id),
  );
});

test('one that its node has no room for is replaced elsewhere', async () => {
  await platform.succeeded(await platform.deploy('big', 'hello:1', web(1, 64)));
  const [before] = await platform.instances('big');
  const agent = platform.agents.find(({ id }) => id === before?.nodeId);
  await platform.sql((prisma) =>
    prisma.quotaLimit.createMany({
      data: [{ tenantId: before?.tenantId ?? '', resource: 'memoryMiB', limit: 100_000 }],
      skipDuplicates: true,
    }),
  );
  // The node shrinks to what is on it and a little more.
  const capacity = { ...agent!.capacity };
  agent!.capacity.memoryMiB = 1024;
  await eventually('the node to say so', async () => {
    const node = await platform.sql((prisma) =>
      prisma.node.findUniqueOrThrow({ where: { id: agent!.id } }),
    );
    return node.memoryMiB === 1024;
  });
  await platform.succeeded(await resize('big', { memoryMiB: 2048 }));
  await eventually('one is left', async () => (await platform.instances('big')).length === 1);
  const [after] = await platform.instances('big');
  expect(after?.id).not.toBe(before?.id);
  expect(after?.nodeId).not.toBe(before?.nodeId);
  await expectRoom();
  agent!.capacity = capacity;
});

test('a deploy in the middle of it takes over, and of all that race one release is left', async () => {
  await platform.succeeded(await platform.deploy('raced', 'hello:1', web(3, 64)));
  const both = await Promise.all([
    resize('raced', { memoryMiB: 96 }),
    platform.deploy('raced', 'hello:2'),
    resize('raced', { memoryMiB: 128 }),
  ]);
  const ended = await Promise.all(both.map(({ id }) => platform.ended(id)));
  expect(ended.filter(({ status }) => status === 'succeeded')).toHaveLength(1);
  await eventually('three are left', async () => (await platform.instances('raced')).length === 3);
  const rows = await platform.instances('raced');
  const { currentReleaseId } = await platform.sql((prisma) =>
    prisma.app.findFirstOrThrow({ where: { name: 'raced' } }),
  );
  for (const row of rows) {
    const held = heldBy(row.id);
    expect(held?.spec.resources.memoryMiB).toBe(row.memoryMiB);
    expect(held?.state).toBe('ready');
  }
  expect(rows.map(({ releaseId }) => releaseId)).toEqual(rows.map(() => currentReleaseId));
  await expectRoom();
});

test('a paused instance gets them too, and stays paused', async () => {
  await platform.succeeded(await platform.deploy('held', 'hello:1', web(1, 64)));
  const [one] = await platform.instances('held');
  await platform.run('app.pause', (tx) => tx.orders.pauseApp('held'));
  await eventually('it is held', () => heldBy(one?.id ?? '')?.state === 'paused');
  await platform.succeeded(await resize('held', { memoryMiB: 96 }));
  expect((await platform.instances('held'))[0]).toMatchObject({
    ...{ id: one?.id, memoryMiB: 96, state: 'paused', frozen: true },
  });
});

test('no loop met an error', () => {
  expect(platform.replicas.flatMap(({ errors }) => errors)).toEqual([]);
});
