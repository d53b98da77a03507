import type { NodeSnapshot, Want } from '@bulkhead/scheduler';
import { Prisma, type PlatformTx } from '@bulkhead/tenancy';
import type { Occupant } from './plan-drain.ts';

/** Nodes without a pool asked for get this one's. */
export const defaultPool = 'default';
/** Most wants of one plan; the rest follow in the next. */
const batch = 20_000;

type ImagesOf = (node: string) => readonly string[];
type WantRow = Want['needs'] & Pick<Want, 'id' | 'process' | 'image' | 'mostPerNode'>;
type OccupantRow = WantRow & Pick<Occupant, 'tenant' | 'app' | 'processName' | 'oneOff'>;

/** Instances that wait for a node. Nothing is locked: the plan is checked again when it is applied. */
export async function readWants(tx: PlatformTx): Promise<Want[]> {
  const rows = await tx.prisma.$queryRaw<WantRow[]>`
    SELECT i."id", i."appId" || '/' || i."process" AS "process", r."imageDigest" AS "image",
      i."cpuMillis", i."memoryMiB", i."diskMiB", ${mostPerNode} AS "mostPerNode"
    FROM "Instance" i JOIN "Release" r ON r."id" = i."releaseId"
    WHERE i."state" = 'pending' AND i."desired" = 'running' AND i."nodeId" IS NULL
      AND i."goneAt" IS NULL
    ORDER BY i."createdAt", i."id" LIMIT ${batch}`;
  return rows.map(wantOf);
}

/** What would have to go elsewhere if the node took nothing any more. */
export async function readOccupants(tx: PlatformTx, node: string): Promise<Occupant[]> {
  const rows = await tx.prisma.$queryRaw<OccupantRow[]>`
    SELECT i."id", i."appId" || '/' || i."process" AS "process", r."imageDigest" AS "image",
      i."cpuMillis", i."memoryMiB", i."diskMiB", ${mostPerNode} AS "mostPerNode",
      t."slug" AS "tenant", a."name" AS "app", i."process" AS "processName", i."oneOff"
    FROM "Instance" i JOIN "Release" r ON r."id" = i."releaseId"
    JOIN "App" a ON a."id" = i."appId" JOIN "Tenant" t ON t."id" = a."tenantId"
    WHERE i."nodeId" = ${node} AND i."desired" = 'running' AND i."goneAt" IS NULL
    ORDER BY t."slug", a."name", i."process", i."id"`;
  return rows.map(({ tenant, app, processName, oneOff, ...row }) => ({
    ...wantOf(row),
    ...{ tenant, app, processName, oneOff },
  }));
}

const wantOf = ({ id, process, image, mostPerNode, ...needs }: WantRow): Want => ({
  ...{ id, process, image, needs, mostPerNode },
  ...{ pool: defaultPool, labels: {} },
});

/** Of an instance `i` of release `r`; null: as many as fit, as one-off tasks always do. */
const mostPerNode = Prisma.sql`CASE WHEN i."oneOff" THEN NULL ELSE (
  SELECT nullif((p->>'mostPerNode')::int, 0) FROM jsonb_array_elements(r."processes") p
  WHERE p->>'name' = i."process" LIMIT 1) END`;

/** The nodes, and what is on them. */
export async function readNodes(tx: PlatformTx, imagesOf: ImagesOf): Promise<NodeSnapshot[]> {
  const nodes = await tx.prisma.$queryRaw<Omit<NodeSnapshot, 'images'>[]>`
    WITH per_process AS (
      SELECT "nodeId", "appId" || '/' || "process" AS "process", count(*)::int AS "instances", sum("cpuMillis")::int AS "cpuMillis",
        sum("memoryMiB")::int AS "memoryMiB", sum("diskMiB")::int AS "diskMiB"
      FROM "Instance" WHERE "nodeId" IS NOT NULL AND "goneAt" IS NULL
      GROUP BY "nodeId", "appId", "process"),
    per_node AS (
      SELECT "nodeId", json_object_agg("process", "instances") AS "processes",
        json_build_object('cpuMillis', sum("cpuMillis"), 'memoryMiB', sum("memoryMiB"),
          'diskMiB', sum("diskMiB"), 'instances', sum("instances")) AS "used"
      FROM per_process GROUP BY "nodeId")
    SELECT n."id", n."pool", n."labels", n."state", n."cordoned",
      json_build_object('cpuMillis', n."cpuMillis", 'memoryMiB', n."memoryMiB",
        'diskMiB', n."diskMiB", 'instances', n."maxInstances") AS "capacity",
      coalesce(p."used", '{"cpuMillis":0,"memoryMiB":0,"diskMiB":0,"instances":0}') AS "used",
      coalesce(p."processes", '{}') AS "processes"
    FROM "Node" n LEFT JOIN per_node p ON p."nodeId" = n."id"`;
  return nodes.map((node) => ({ ...node, images: imagesOf(node.id) }));
}
