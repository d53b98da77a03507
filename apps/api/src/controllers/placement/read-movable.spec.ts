import { expect, test } from 'vitest';
import { createTestDatabase } from '@bulkhead/tenancy/testing';
import { fillFleet } from '../testing/fill-fleet.ts';
import { readMovable } from './read-fleet.ts';

test('with zones, what has two in one zone could be spread better', async () => {
  const db = await createTestDatabase();
  try {
    await fillFleet(db.tenancy, { nodes: 3, placedPerNode: 1, placesPerNode: 2 });
    const movable = (zones: boolean, names: readonly string[]) =>
      db.tenancy.platform(async (tx) => {
        await tx.prisma.$executeRaw`
          UPDATE "Node" SET "labels" = CASE "id"
            WHEN 'n000000000001' THEN jsonb_build_object('zone', ${names[0]}::text)
            WHEN 'n000000000002' THEN jsonb_build_object('zone', ${names[1]}::text) ELSE '{}' END`;
        await tx.prisma
          .$executeRaw`UPDATE "Deployment" SET "status" = 'succeeded', "finishedAt" = now()`;
        await tx.prisma.$executeRaw`
          UPDATE "Instance" SET "readyAt" = now() - interval '1 hour'`;
        return (await readMovable(tx, zones, 1)).map(({ node }) => node).sort();
      });
    const all = ['n000000000001', 'n000000000002', 'n000000000003'];
    expect(await movable(true, ['a', 'a'])).toEqual(all);
    // Those without a zone are in one.
    expect(await movable(true, ['a', ''])).toEqual(all);
    expect(await movable(true, ['a', 'b'])).toEqual([]);
    expect(await movable(false, ['a', 'a'])).toEqual([]);
  } finally {
    await db.drop();
  }
});
