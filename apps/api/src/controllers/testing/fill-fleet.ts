/** A fleet in the database alone, made by a few statements: for races and for measuring. */
import type { Tenancy } from '@bulkhead/tenancy';
import { makeImage, makeTenant } from '@bulkhead/tenancy/testing';

export interface FleetSize {
  readonly nodes: number;
  /** On every node already. */
  readonly placedPerNode: number;
  /** Places for instances on each node, those taken included. */
  readonly placesPerNode: number;
}

/** Makes one app, ready nodes `n000000000001`..., and instances on them; answers the app's id. */
export async function fillFleet(tenancy: Tenancy, size: FleetSize): Promise<string> {
  const owner = await makeTenant(tenancy, 'fleet');
  await tenancy.run(owner, { tenant: 'fleet', permission: 'app.create' }, (tx) =>
    tx.apps.create({ name: 'many' }),
  );
  const { appId } = await tenancy.run(owner, { tenant: 'fleet', permission: 'app.deploy' }, (tx) =>
    tx.deployments.deploy({ app: 'many', image: makeImage() }),
  );
  const { nodes, placedPerNode, placesPerNode } = size;
  await tenancy.platform(async (tx) => {
    await tx.prisma.outbox.deleteMany({});
    await tx.prisma.$executeRaw`
      INSERT INTO "Node" ("id", "name", "state", "cpuMillis", "memoryMiB", "diskMiB",
        "maxInstances", "sealingKey", "natsUser", "registryHash", "lastSeenAt")
      SELECT 'n' || lpad(n::text, 12, '0'), 'node-' || n, 'ready', 1000000, 1000000, 10000000,
        ${placesPerNode}::int, '{}', 'U' || n, decode(md5(n::text), 'hex'), now()
      FROM generate_series(1, ${nodes}::int) AS n`;
    await tx.prisma.$executeRaw`
      INSERT INTO "Instance" ("id", "tenantId", "appId", "releaseId", "process", "epoch", "nodeId",
        "state", "cpuMillis", "memoryMiB", "diskMiB")
      SELECT 'i' || lpad((n * 1000 + i)::text, 12, '0'), r."tenantId", r."appId", r."id",
        'p' || i, 1, 'n' || lpad(n::text, 12, '0'), 'ready', 10, 10, 10
      FROM "Release" r, generate_series(1, ${nodes}::int) AS n,
        generate_series(1, ${placedPerNode}::int) AS i
      WHERE r."appId" = ${appId}::uuid`;
  });
  return appId;
}

/** Instances that wait for a node, of ten processes. */
export async function addWaiting(tenancy: Tenancy, appId: string, count: number): Promise<void> {
  await tenancy.platform(
    (tx) => tx.prisma.$executeRaw`
      INSERT INTO "Instance" ("id", "tenantId", "appId", "releaseId", "process", "epoch",
        "cpuMillis", "memoryMiB", "diskMiB")
      SELECT 'i' || substr(md5(random()::text), 1, 12), r."tenantId", r."appId", r."id",
        'w' || (i % 10), 1, 10, 10, 10
      FROM "Release" r, generate_series(1, ${count}::int) AS i WHERE r."appId" = ${appId}::uuid`,
  );
}
