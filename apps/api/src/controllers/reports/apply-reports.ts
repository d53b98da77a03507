/**
 * Reports into rows, a batch in one transaction. What a node says counts for instances that are
 * placed on it and for nothing else: a node that is taken over can speak only for its own.
 */
import type { InstanceReport } from '@bulkhead/protocol';
import { Prisma } from '@bulkhead/tenancy';
import type { PlatformTx } from '@bulkhead/tenancy';

export interface NodeReport {
  /** From the subject, which the node's credentials pin. */
  readonly node: string;
  readonly report: InstanceReport;
}

export interface Applied {
  /** Apps to look at again. */
  readonly apps: readonly string[];
  readonly applied: number;
  /** Older than what is known, or of another node. */
  readonly ignored: number;
  /** Instances that a node holds though they are not, or not any more, its own. */
  readonly strays: number;
  /** Keys went into the outbox. */
  readonly publish: boolean;
}

interface Owner {
  id: string;
  appId: string;
  tenantId: string;
  nodeId: string | null;
  gone: boolean;
}

export async function applyReports(tx: PlatformTx, batch: readonly NodeReport[]): Promise<Applied> {
  const reports = newestOfEach(batch);
  const owners = await readOwners(tx, reports);
  const own: NodeReport[] = [];
  const notOwn: NodeReport[] = [];
  for (const each of reports) {
    const owner = owners.get(each.report.instance);
    (owner?.nodeId === each.node && !owner.gone ? own : notOwn).push(each);
  }
  await lockAppsOfGone(tx, own, owners);
  const changed = await update(tx, own);
  const gone = changed.filter(({ state }) => state === 'gone');
  await tx.outbox.add(
    'instance',
    gone.map(({ id, nodeId }) => `${nodeId}.${id}`),
  );
  await settle(tx, gone, owners);
  const strays = await addStrays(tx, notOwn);
  return {
    apps: [...new Set(changed.map(({ appId }) => appId))],
    applied: changed.length,
    ignored: batch.length - changed.length,
    strays,
    publish: gone.length > 0 || notOwn.length > 0,
  };
}

/** Each report is a complete state: of several of one instance, only the newest matters. */
function newestOfEach(batch: readonly NodeReport[]): NodeReport[] {
  const newest = new Map<string, NodeReport>();
  for (const each of batch) {
    const key = `${each.node}.${each.report.instance}`;
    const other = newest.get(key);
    if (!other || each.report.seq > other.report.seq) newest.set(key, each);
  }
  return [...newest.values()];
}

async function readOwners(
  tx: PlatformTx,
  reports: readonly NodeReport[],
): Promise<Map<string, Owner>> {
  const ids = reports.map(({ report }) => report.instance);
  if (ids.length === 0) return new Map();
  const rows = await tx.prisma.$queryRaw<Owner[]>`
    SELECT "id", "appId"::text AS "appId", "tenantId"::text AS "tenantId", "nodeId",
      "goneAt" IS NOT NULL AS "gone"
    FROM "Instance" WHERE "id" IN (${Prisma.join(ids)})`;
  return new Map(rows.map((row) => [row.id, row]));
}

/** Quota is settled under the app's lock, and apps are locked before instances, in order. */
async function lockAppsOfGone(
  tx: PlatformTx,
  own: readonly NodeReport[],
  owners: ReadonlyMap<string, Owner>,
): Promise<void> {
  const apps = new Set<string>();
  for (const { report } of own) {
    const owner = owners.get(report.instance);
    if (report.state === 'gone' && owner) apps.add(owner.appId);
  }
  if (apps.size === 0) return;
  await tx.prisma.$queryRaw`
    SELECT 1 FROM "App" WHERE "id"::text IN (${Prisma.join([...apps])})
    ORDER BY "id" FOR NO KEY UPDATE`;
}

async function update(tx: PlatformTx, own: readonly NodeReport[]) {
  if (own.length === 0) return [];
  const rows = own.map(({ node, report }) => ({
    node,
    instance: report.instance,
    seq: report.seq,
    generation: report.generation,
    state: report.state,
    host: report.address?.host ?? null,
    port: report.address?.port ?? null,
    restarts: report.restarts,
    message: report.message,
    exit: report.exit,
  }));
  // Each by its key, one after another: left to itself PostgreSQL may compare every report with every
  // instance, for it thinks that the wall between tenants leaves next to none.
  return tx.prisma.$queryRaw<{ id: string; appId: string; nodeId: string; state: string }[]>`
    WITH locked AS (
      SELECT r.*
      FROM (SELECT * FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) AS r("node" text,
        "instance" text, "seq" bigint, "generation" int, "state" text, "host" text, "port" int,
        "restarts" int, "message" text, "exit" jsonb) ORDER BY "instance") r
      CROSS JOIN LATERAL (
        SELECT 1 FROM "Instance" i
        WHERE i."id" = r."instance" AND i."nodeId" = r."node" AND i."goneAt" IS NULL
          AND r."seq" > i."reportSeq"
        FOR NO KEY UPDATE OF i) i)
    UPDATE "Instance" i SET
      "reportSeq" = l."seq",
      "seenGeneration" = l."generation",
      "state" = l."state"::"InstanceState",
      "stateAt" = CASE WHEN i."state"::text = l."state" THEN i."stateAt" ELSE clock_timestamp() END,
      "readyAt" = CASE WHEN l."state" = 'ready' THEN coalesce(i."readyAt", clock_timestamp())
        ELSE i."readyAt" END,
      "goneAt" = CASE WHEN l."state" = 'gone' THEN clock_timestamp() END,
      "host" = coalesce(l."host", i."host"),
      "port" = coalesce(l."port", i."port"),
      "restarts" = l."restarts",
      "message" = l."message",
      "lastExit" = coalesce(nullif(l."exit", 'null'::jsonb), i."lastExit")
    FROM locked l WHERE i."id" = l."instance"
    RETURNING i."id", i."appId"::text AS "appId", i."nodeId", i."state"::text AS "state"`;
}

/** Gives quota back for what is proven gone. Tenants in order: another replica settles others' too. */
async function settle(
  tx: PlatformTx,
  gone: readonly { id: string; appId: string }[],
  owners: ReadonlyMap<string, Owner>,
): Promise<void> {
  const apps = new Map(gone.map(({ id, appId }) => [appId, owners.get(id)?.tenantId ?? '']));
  const ordered = [...apps].sort(([, a], [, b]) => (a < b ? -1 : a > b ? 1 : 0));
  for (const [appId] of ordered) await tx.quota.settle(appId);
}

/**
 * Orders away what a node holds but should not: the row is gone, was never, or is another node's.
 * A node that nobody registered here is left alone: then it is this database that knows too little.
 */
async function addStrays(tx: PlatformTx, notOwn: readonly NodeReport[]): Promise<number> {
  if (notOwn.length === 0) return 0;
  const nodes = [...new Set(notOwn.map(({ node }) => node))];
  const known = await tx.prisma.node.findMany({
    where: { id: { in: nodes } },
    select: { id: true },
  });
  const isKnown = new Set(known.map(({ id }) => id));
  const held = notOwn.filter(({ node, report }) => isKnown.has(node) && report.state !== 'gone');
  const cleared = notOwn.filter(({ report }) => report.state === 'gone');
  await tx.outbox.add(
    'stray',
    held.map(({ node, report }) => `${node}.${report.instance}.${report.generation}`),
  );
  await tx.outbox.add(
    'instance',
    cleared.map(({ node, report }) => `${node}.${report.instance}`),
  );
  return held.length;
}
