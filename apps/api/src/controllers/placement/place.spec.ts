import pg from 'pg';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createTestDatabase } from '@bulkhead/tenancy/testing';
import type { TestDatabase } from '@bulkhead/tenancy/testing';
import { addWaiting, fillFleet } from '../testing/fill-fleet.ts';
import { Placement } from './place.ts';

let db: TestDatabase;
beforeEach(async () => {
  db = await createTestDatabase();
});
afterEach(async () => {
  vi.restoreAllMocks();
  await db.drop();
});

const replica = (seed: number) =>
  new Placement({ tenancy: db.tenancy, imagesOf: () => [], pools: {}, seed: () => seed });

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
