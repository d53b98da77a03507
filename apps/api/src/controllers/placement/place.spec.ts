import pg from 'pg';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createTestDatabase } from '@bulkhead/tenancy/testing';
import type { TestDatabase } from '@bulkhead/tenancy/testing';
import { addWaiting, fillFleet } from '../testing/fill-fleet.ts';
import { takeClaims } from './claims.ts';
import { Placement } from './place.ts';

let db: TestDatabase;
beforeEach(async () => {
  db = await createTestDatabase();
});
afterEach(async () => {
  vi.restoreAllMocks();
  await db.drop();
});

const replica = (seed: number, over = {}) =>
  new Placement({ tenancy: db.tenancy, imagesOf: () => [], seed: () => seed, ...over });

/** Places until nothing is left that it could win. */
async function placeAll(placement: Placement): Promise<number> {
  let sum = 0;
  for (;;) {
    const { placed, lostRaces } = await placement.place();
    sum += placed;
    if (placed === 0 && lostRaces === 0) return sum;
  }
}

test('four replicas place thousands at once: each once, no node over its capacity, no place wasted', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 20, placedPerNode: 5, placesPerNode: 105 });
  await addWaiting(db.tenancy, app, 2_500);
  const placed = await Promise.all([1, 2, 3, 4].map((seed) => placeAll(replica(seed))));
  expect(placed.reduce((sum, each) => sum + each)).toBe(2_000);
  const { perNode, keys, refused } = await db.tenancy.platform(async (tx) => ({
    perNode: await tx.prisma.instance.groupBy({
      by: ['nodeId'],
      where: { nodeId: { not: null } },
      _count: true,
    }),
    keys: await tx.prisma.outbox.findMany({ where: { kind: 'instance' } }),
    refused: await tx.prisma.instance.count({
      where: { nodeId: null, state: 'pending', message: { startsWith: 'no room: ' } },
    }),
  }));
  expect(perNode.map(({ _count }) => _count)).toEqual(Array(20).fill(105));
  expect(keys).toHaveLength(2_000);
  expect(new Set(keys.map(({ key }) => key.split('.')[1])).size).toBe(2_000);
  expect(refused).toBe(500);
});

test('no replica puts more of a process on a node than its release allows', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 6, placedPerNode: 0, placesPerNode: 100 });
  await addWaiting(db.tenancy, app, 200);
  await db.tenancy.platform(
    (tx) => tx.prisma.$executeRaw`
      UPDATE "Release" SET "processes" = (
        SELECT jsonb_agg(jsonb_build_object('name', p, 'mostPerNode', 2))
        FROM (SELECT DISTINCT "process" AS p FROM "Instance") names)`,
  );
  await Promise.all([1, 2, 3].map((seed) => placeAll(replica(seed))));
  const groups = await db.tenancy.platform((tx) =>
    tx.prisma.instance.groupBy({
      by: ['nodeId', 'process'],
      where: { nodeId: { not: null } },
      _count: true,
    }),
  );
  expect(groups.length).toBeGreaterThan(6);
  expect(groups.map(({ _count }) => _count).every((count) => count === 2)).toBe(true);
});

test('what another release or a restart is to replace counts by itself', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 3, placedPerNode: 0, placesPerNode: 100 });
  await addWaiting(db.tenancy, app, 9);
  await db.tenancy.platform(async (tx) => {
    await tx.prisma.$executeRaw`
      UPDATE "Release" SET "processes" = '[{"name": "web", "mostPerNode": 1}]'`;
    await tx.prisma.$executeRaw`UPDATE "Instance" SET "process" = 'web'`;
  });
  const onNodes = async () =>
    (await db.tenancy.platform((tx) => tx.prisma.instance.findMany({ orderBy: { id: 'asc' } })))
      .flatMap(({ nodeId }) => nodeId ?? [])
      .sort();
  expect(await placeAll(replica(1))).toBe(3);
  const each = await onNodes();
  expect(new Set(each).size).toBe(3);
  // The rest is of the next restart now: again one on each node, though two replicas plan at once.
  await db.tenancy.platform(
    (tx) => tx.prisma.$executeRaw`UPDATE "Instance" SET "epoch" = 2 WHERE "nodeId" IS NULL`,
  );
  const placed = await Promise.all([2, 3].map((seed) => placeAll(replica(seed))));
  expect(placed.reduce((sum, count) => sum + count)).toBe(3);
  expect(await onNodes()).toEqual([...each, ...each].sort());
});

test('a process that asks for labels goes to nodes that have them, and waits while there is none', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 6, placedPerNode: 0, placesPerNode: 100 });
  await addWaiting(db.tenancy, app, 20);
  await db.tenancy.platform(
    (tx) => tx.prisma.$executeRaw`
      UPDATE "Release" SET "processes" = (
        SELECT jsonb_agg(jsonb_build_object('name', p, 'nodeLabels', '{"disk": "ssd"}'::jsonb))
        FROM (SELECT DISTINCT "process" AS p FROM "Instance") names)`,
  );
  expect(await placeAll(replica(1))).toBe(0);
  const first = () => db.tenancy.platform((tx) => tx.prisma.instance.findFirstOrThrow());
  expect((await first()).message).toContain('6 nodes have other labels');
  const labelled = ['n000000000002', 'n000000000005'];
  await db.tenancy.platform((tx) =>
    tx.prisma.node.updateMany({
      where: { id: { in: labelled } },
      data: { labels: { disk: 'ssd', zone: 'a' } },
    }),
  );
  expect(await placeAll(replica(1))).toBe(20);
  const on = await db.tenancy.platform((tx) =>
    tx.prisma.instance.findMany({ distinct: ['nodeId'], orderBy: { nodeId: 'asc' } }),
  );
  expect(on.map(({ nodeId }) => nodeId)).toEqual(labelled);
});

test('two thousand placements take as many round trips as twenty', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 20, placedPerNode: 1, placesPerNode: 1_000 });
  const placement = replica(1);
  const query = vi.spyOn(pg.Client.prototype, 'query');
  const tripsFor = async (count: number) => {
    await addWaiting(db.tenancy, app, count);
    query.mockClear();
    expect((await placement.place()).placed).toBe(count);
    return query.mock.calls.length;
  };
  const few = await tripsFor(20);
  const many = await tripsFor(2_000);
  expect(few).toBeGreaterThan(4);
  expect(many).toBe(few);
  expect(many).toBeLessThanOrEqual(16);
});

/** Waiting ones of this priority. */
async function addOf(app: string, count: number, priority: number): Promise<void> {
  await addWaiting(db.tenancy, app, count);
  await db.tenancy.platform(
    (tx) => tx.prisma.$executeRaw`
      UPDATE "Instance" SET "priority" = ${priority}, "memoryMiB" = 11 + ${priority}::int
      WHERE "nodeId" IS NULL AND "memoryMiB" = 10`,
  );
}

test('a higher priority makes room for itself once, and nobody else gets that room', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 2, placedPerNode: 0, placesPerNode: 10 });
  await addOf(app, 20, 0);
  expect(await placeAll(replica(1))).toBe(20);
  const rows = () =>
    db.tenancy.platform((tx) => tx.prisma.instance.findMany({ where: { goneAt: null } }));
  await addOf(app, 3, 0);
  await addOf(app, 4, 2);
  await Promise.all([1, 2, 3].map((seed) => replica(seed).place()));
  await replica(4).place();

  const victims = (await rows()).filter(({ desired }) => desired === 'draining');
  expect(victims).toHaveLength(4);
  expect(new Set(victims.map(({ priority }) => priority))).toEqual(new Set([0]));
  expect(victims[0]?.message).toBe('makes room for an instance of a higher priority');
  const claims = (await rows()).filter(({ claimNodeId }) => claimNodeId !== null);
  expect(claims.map(({ priority }) => priority)).toEqual([2, 2, 2, 2]);
  expect(claims[0]?.message).toContain('ending to make room for it');
  expect(claims.map(({ claimNodeId }) => claimNodeId).sort()).toEqual(
    victims.map(({ nodeId }) => nodeId).sort(),
  );
  const told = await db.tenancy.platform(async (tx) => ({
    nudges: await tx.prisma.outbox.count({ where: { kind: 'app', key: app } }),
    audit: await tx.prisma.auditEntry.count({ where: { action: 'instance.preempt' } }),
  }));
  expect(told).toMatchObject({ audit: 4 });
  expect(told.nudges).toBeGreaterThan(0);

  const gone = victims.slice(0, 2).map(({ id }) => id);
  await db.tenancy.platform((tx) =>
    tx.prisma.instance.updateMany({
      where: { id: { in: gone } },
      data: { desired: 'gone', state: 'gone', goneAt: new Date() },
    }),
  );
  await placeAll(replica(5));
  const placed = (await rows()).filter(({ priority, nodeId }) => priority === 2 && nodeId !== null);
  expect(placed).toHaveLength(2);
  expect(placed.every(({ claimNodeId }) => claimNodeId === null)).toBe(true);
  expect((await rows()).filter(({ desired }) => desired === 'draining')).toHaveLength(2);
});

test('what is no longer wanted, or has waited for too long, keeps no room', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 1, placedPerNode: 0, placesPerNode: 2 });
  await addOf(app, 2, 0);
  await placeAll(replica(1));
  await addOf(app, 2, 2);
  await replica(1).place();
  await db.tenancy.platform(async (tx) => {
    await tx.prisma.$executeRaw`
      UPDATE "Instance" SET "desired" = 'gone', "state" = 'gone', "goneAt" = now()
      WHERE "priority" = 0`;
    await tx.prisma.$executeRaw`
      UPDATE "Instance" SET "claimedAt" = now() - interval '16 minutes' WHERE "id" = (
        SELECT "id" FROM "Instance" WHERE "priority" = 2 ORDER BY "id" LIMIT 1)`;
    await tx.prisma.$executeRaw`
      UPDATE "Instance" SET "desired" = 'gone', "goneAt" = now(), "state" = 'gone' WHERE "id" = (
        SELECT "id" FROM "Instance" WHERE "priority" = 2 ORDER BY "id" DESC LIMIT 1)`;
  });
  await addOf(app, 1, 0);
  expect(await placeAll(replica(1))).toBe(2);
});

test('those that fit nowhere do not keep younger ones from being tried', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 1, placedPerNode: 0, placesPerNode: 10 });
  await addWaiting(db.tenancy, app, 25);
  await db.tenancy.platform(
    (tx) => tx.prisma.$executeRaw`
      UPDATE "Instance" SET "memoryMiB" = 2000000, "createdAt" = now() - interval '1 hour'`,
  );
  await addWaiting(db.tenancy, app, 1);
  const placement = replica(1, { batch: 10 });
  const seen = [];
  for (let pass = 0; pass < 4; pass++) seen.push(await placement.place());
  expect(seen.map(({ placed }) => placed)).toEqual([0, 0, 1, 0]);
  expect(seen.map(({ more }) => more)).toEqual([true, true, false, true]);
});

test('a process runs in its pool, by the rules of that pool', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 3, placedPerNode: 0, placesPerNode: 100 });
  await addWaiting(db.tenancy, app, 20);
  await db.tenancy.platform(async (tx) => {
    await tx.prisma.pool.create({ data: { name: 'batch', cpuOvercommit: 0.00004 } });
    await tx.prisma.$executeRaw`UPDATE "Node" SET "pool" = 'batch' WHERE "name" = 'node-2'`;
    await tx.prisma.$executeRaw`
      UPDATE "Release" SET "processes" = (
        SELECT jsonb_agg(jsonb_build_object('name', p, 'pool', 'batch'))
        FROM (SELECT DISTINCT "process" AS p FROM "Instance" WHERE "process" IN ('w1', 'w2', 'w3')) n)`;
  });
  // 1,000,000 mCPU in it, of which 40 may be promised.
  await placeAll(replica(1));
  const placed = await db.tenancy.platform((tx) =>
    tx.prisma.instance.findMany({ where: { nodeId: { not: null } }, include: { node: true } }),
  );
  const inBatch = placed.filter(({ node }) => node?.pool === 'batch');
  expect(inBatch).toHaveLength(4);
  expect(inBatch.every(({ process }) => ['w1', 'w2', 'w3'].includes(process))).toBe(true);
  expect(placed).toHaveLength(18);
});

test('a claim that runs out between plan and apply does not put a node over its capacity', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 1, placedPerNode: 2, placesPerNode: 4 });
  await addWaiting(db.tenancy, app, 2);
  await db.tenancy.platform(
    (tx) => tx.prisma.$executeRaw`
      UPDATE "Instance" SET "claimNodeId" = (SELECT "id" FROM "Node"), "claimedAt" = now()
      WHERE "id" = (SELECT "id" FROM "Instance" WHERE "nodeId" IS NULL ORDER BY "id" LIMIT 1)`,
  );
  let doors = 0;
  const tenancy = {
    platform: async (work: Parameters<typeof db.tenancy.platform>[0]) => {
      doors += 1;
      if (doors === 2) {
        await db.tenancy.platform(
          (tx) => tx.prisma.$executeRaw`UPDATE "Instance" SET "claimedAt" = '2020-01-01'`,
        );
        // Another replica takes a place.
        await addWaiting(db.tenancy, app, 1);
        await db.tenancy.platform(
          (tx) => tx.prisma.$executeRaw`
            UPDATE "Instance" SET "nodeId" = (SELECT "id" FROM "Node"), "state" = 'assigned'
            WHERE "id" = (SELECT "id" FROM "Instance" ORDER BY "createdAt" DESC LIMIT 1)`,
        );
      }
      return db.tenancy.platform(work);
    },
  };
  await replica(1, { tenancy }).place();
  const placed = await db.tenancy.platform((tx) =>
    tx.prisma.instance.count({ where: { nodeId: { not: null } } }),
  );
  expect(placed).toBe(4);
});

test('no room is made on a node for more of a process than it may have there', async () => {
  const app = await fillFleet(db.tenancy, { nodes: 1, placedPerNode: 0, placesPerNode: 10 });
  await addOf(app, 10, 0);
  expect(await placeAll(replica(1))).toBe(10);
  await addOf(app, 2, 2);
  const rows = await db.tenancy.platform((tx) => tx.prisma.instance.findMany());
  const [waiting, victims] = [
    rows.filter(({ nodeId }) => nodeId === null),
    rows.filter(({ nodeId }) => nodeId !== null),
  ];
  const node = victims[0]?.nodeId ?? '';
  const release = waiting[0]?.releaseId ?? '';
  const wants = new Map(
    waiting.map(({ id, cpuMillis, memoryMiB, diskMiB, priority }) => [
      id,
      {
        ...{
          id,
          process: `${app}/w0/${release}/1`,
          image: 'x',
          pool: 'default',
          labels: {},
          priority,
        },
        ...{ needs: { cpuMillis, memoryMiB, diskMiB }, mostPerNode: 1, claim: null },
      },
    ]),
  );
  await db.tenancy.platform((tx) =>
    tx.prisma.instance.updateMany({
      where: { id: { in: [...wants.keys()] } },
      data: { process: 'w0' },
    }),
  );
  await db.tenancy.platform((tx) =>
    tx.prisma.instance.updateMany({
      where: { nodeId: { not: null } },
      data: { process: 'other' },
    }),
  );
  // As two replicas that planned at the same time, each for one of them.
  const claim = (index: number) =>
    db.tenancy.platform((tx) =>
      takeClaims(
        tx,
        [{ want: waiting[index]?.id ?? '', node, victims: [victims[index]?.id ?? ''] }],
        wants,
      ),
    );
  expect(await claim(0)).not.toEqual([]);
  expect(await claim(1)).toEqual([]);
  const left = await db.tenancy.platform((tx) =>
    tx.prisma.instance.count({ where: { desired: 'draining' } }),
  );
  expect(left).toBe(1);
});
