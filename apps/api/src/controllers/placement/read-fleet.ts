import type { NodeSnapshot, Want } from '@bulkhead/scheduler';
import type { PlatformTx } from '@bulkhead/tenancy';

/** Nodes without a pool asked for get this one's. */
export const defaultPool = 'default';
/** Most wants of one plan; the rest follow in the next. */
const batch = 2_000;

export interface Fleet {
  readonly nodes: readonly NodeSnapshot[];
  readonly wants: readonly Want[];
}

type WantRow = Want['needs'] & Pick<Want, 'id' | 'process' | 'image'>;

/** What the scheduler is to see. Nothing is locked: the plan is checked again when it is applied. */
export async function readFleet(
  tx: PlatformTx,
  imagesOf: (node: string) => readonly string[],
): Promise<Fleet> {
  const wants = await tx.prisma.$queryRaw<WantRow[]>`
    SELECT i."id", i."appId" || '/' || i."process" AS "process", r."imageDigest" AS "image",
      i."cpuMillis", i."memoryMiB", i."diskMiB"
    FROM "Instance" i JOIN "Release" r ON r."id" = i."releaseId"
    WHERE i."state" = 'pending' AND i."desired" = 'running' AND i."nodeId" IS NULL
    ORDER BY i."createdAt", i."id" LIMIT ${batch}`;
  if (wants.length === 0) return { nodes: [], wants: [] };
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
  return {
    nodes: nodes.map((node) => ({ ...node, images: imagesOf(node.id) })),
    wants: wants.map(({ id, process, image, ...needs }) => ({
      id,
      process,
      image,
      needs,
      pool: defaultPool,
      labels: {},
      mostPerNode: null,
    })),
  };
}
