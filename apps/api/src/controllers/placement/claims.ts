/**
 * Room that is being made for what has a higher priority. A claim is written with the order to its
 * victims to leave, in one transaction that checks both again; it keeps the room from everybody else
 * until the instance is placed. What is no longer wanted, or waits for too long, holds no claim.
 */
import { amountsOf, fits, resourceNames } from '@bulkhead/scheduler';
import type { Amounts, Claim, Occupant, Want } from '@bulkhead/scheduler';
import { Prisma, type PlatformTx } from '@bulkhead/tenancy';
import { countedAs, holdsClaim, lockRoom } from './room.ts';

/** Most instances that one pass looks at as victims; those of the lowest priority come first. */
const mostOccupants = 50_000;

const madeWay = 'makes room for an instance of a higher priority';

/** Those that may have to leave for a want of priority `above`, and those that leave already. A one-off task is not moved. */
export async function readOccupants(tx: PlatformTx, above: number): Promise<Occupant[]> {
  const rows = await tx.prisma.$queryRaw<(Omit<Occupant, 'needs'> & Want['needs'])[]>`
    SELECT i."id", i."nodeId" AS "node", i."priority", i."desired" <> 'running' AS "leaving",
      i."cpuMillis", i."memoryMiB", i."diskMiB"
    FROM "Instance" i JOIN "Node" n ON n."id" = i."nodeId"
    WHERE i."goneAt" IS NULL AND n."state" = 'ready' AND NOT n."cordoned"
      AND (i."desired" <> 'running' OR (i."priority" < ${above} AND NOT i."oneOff"))
    ORDER BY i."desired" <> 'running' DESC, i."priority", i."id" LIMIT ${mostOccupants}`;
  return rows.map(({ id, node, priority, leaving, ...needs }) => ({
    ...{ id, node, priority, leaving, needs },
  }));
}

/** Takes what is still true of the claims; answers the apps of those who claim and of those who leave. */
export async function takeClaims(
  tx: PlatformTx,
  claims: readonly Claim[],
  wants: ReadonlyMap<string, Want>,
): Promise<string[]> {
  const nodeIds = [...new Set(claims.map(({ node }) => node))];
  const rooms = await lockRoom(tx, nodeIds, 'open');
  const leaving = await readLeaving(tx, nodeIds);
  const victims = await lockVictims(tx, claims);
  const open = await lockWaiting(tx, claims);
  const alike = await countToStay(tx, claims, wants);
  const taken: Claim[] = [];
  for (const claim of claims) {
    const left = rooms.get(claim.node)?.free;
    const want = wants.get(claim.want);
    if (!left || !want || !open.has(claim.want)) continue;
    const told = claim.victims.flatMap((id) => victims.get(id) ?? []);
    const isTrue = ({ node, priority }: Victim) => node === claim.node && priority < want.priority;
    if (told.length < claim.victims.length || !told.every(isTrue)) continue;
    // What leaves is still counted as taken; all of it will be free.
    const anyway = leaving.get(claim.node);
    const soon = { ...left };
    for (const name of resourceNames)
      soon[name] += (anyway?.[name] ?? 0) + told.reduce((sum, each) => sum + each[name], 0);
    const needs = amountsOf(want.needs);
    const there = `${claim.node} ${want.process}`;
    const already = alike.get(there) ?? 0;
    if (!fits(needs, soon) || already >= (want.mostPerNode ?? Infinity)) continue;
    alike.set(there, already + 1);
    for (const name of resourceNames)
      left[name] += told.reduce((sum, each) => sum + each[name], 0) - needs[name];
    taken.push(claim);
  }
  return write(tx, taken);
}

type Victim = Amounts & { readonly id: string; readonly node: string; readonly priority: number };

async function readLeaving(
  tx: PlatformTx,
  nodeIds: readonly string[],
): Promise<Map<string, Amounts>> {
  const rows = await tx.prisma.$queryRaw<(Amounts & { node: string })[]>`
    SELECT "nodeId" AS "node", sum("cpuMillis")::int AS "cpuMillis",
      sum("memoryMiB")::int AS "memoryMiB", sum("diskMiB")::int AS "diskMiB",
      count(*)::int AS "instances"
    FROM "Instance" WHERE "nodeId" IN (${Prisma.join([...nodeIds])}) AND "goneAt" IS NULL
      AND "desired" <> 'running' GROUP BY "nodeId"`;
  return new Map(rows.map((row) => [row.node, row]));
}

/** Of processes that may have only so many on a node: those that stay there or have a claim to it. */
async function countToStay(
  tx: PlatformTx,
  claims: readonly Claim[],
  wants: ReadonlyMap<string, Want>,
): Promise<Map<string, number>> {
  const limited = claims.flatMap(({ want: id, node }) => {
    const want = wants.get(id);
    return want && want.mostPerNode !== null ? [{ node, process: want.process }] : [];
  });
  if (limited.length === 0) return new Map();
  const rows = await tx.prisma.$queryRaw<{ node: string; process: string; count: number }[]>`
    SELECT l."node", l."process", count(i."id")::int AS "count"
    FROM (SELECT DISTINCT "node", "process"
      FROM jsonb_to_recordset(${JSON.stringify(limited)}::jsonb) AS x("node" text, "process" text)) l
    JOIN "Instance" i ON i."appId" = split_part(l."process", '/', 1)::uuid
      AND ${countedAs} = l."process" AND i."goneAt" IS NULL
      AND i."desired" = 'running'
      AND (i."nodeId" = l."node" OR (i."claimNodeId" = l."node" AND ${holdsClaim}))
    GROUP BY 1, 2`;
  return new Map(rows.map(({ node, process, count }) => [`${node} ${process}`, count]));
}

async function lockVictims(tx: PlatformTx, claims: readonly Claim[]): Promise<Map<string, Victim>> {
  const ids = claims.flatMap(({ victims }) => victims);
  if (ids.length === 0) return new Map();
  const rows = await tx.prisma.$queryRaw<Victim[]>`
    SELECT "id", "nodeId" AS "node", "priority", "cpuMillis", "memoryMiB", "diskMiB",
      1 AS "instances"
    FROM "Instance" WHERE "id" IN (${Prisma.join(ids)}) AND "goneAt" IS NULL
      AND "desired" = 'running' AND NOT "oneOff"
    ORDER BY "id" FOR UPDATE SKIP LOCKED`;
  return new Map(rows.map((row) => [row.id, row]));
}

async function lockWaiting(tx: PlatformTx, claims: readonly Claim[]): Promise<Set<string>> {
  const rows = await tx.prisma.$queryRaw<{ id: string }[]>`
    SELECT i."id" FROM "Instance" i WHERE i."id" IN (${Prisma.join(claims.map(({ want }) => want))})
      AND i."state" = 'pending' AND i."desired" = 'running' AND i."nodeId" IS NULL
      AND i."goneAt" IS NULL AND NOT coalesce(${holdsClaim}, false)
    ORDER BY i."id" FOR UPDATE SKIP LOCKED`;
  return new Set(rows.map(({ id }) => id));
}

async function write(tx: PlatformTx, taken: readonly Claim[]): Promise<string[]> {
  if (taken.length === 0) return [];
  const claimed = await tx.prisma.$queryRaw<{ appId: string }[]>`
    UPDATE "Instance" i SET "claimNodeId" = c."node", "claimedAt" = now()
    FROM jsonb_to_recordset(${JSON.stringify(taken)}::jsonb) AS c("want" text, "node" text)
    WHERE i."id" = c."want" RETURNING i."appId"::text AS "appId"`;
  const ids = taken.flatMap(({ victims }) => victims);
  if (ids.length === 0) return claimed.map(({ appId }) => appId);
  // The app's own planner takes each out of its route first, and has another made.
  const told = await tx.prisma.$queryRaw<
    { id: string; appId: string; app: string; tenantId: string }[]
  >`
    UPDATE "Instance" i SET "desired" = 'draining', "drainRevision" = NULL,
      "drainStartedAt" = NULL, "message" = ${madeWay}
    FROM "App" a WHERE a."id" = i."appId" AND i."id" IN (${Prisma.join(ids)})
    RETURNING i."id", i."appId"::text AS "appId", a."name" AS "app", i."tenantId"::text AS "tenantId"`;
  await tx.prisma.auditEntry.createMany({
    data: told.map(({ id, app, tenantId }) => ({
      ...{ tenantId, at: tx.now, actor: 'platform', action: 'instance.preempt' },
      ...{ target: `${app}/${id}`, detail: {} },
    })),
  });
  const apps = [...new Set([...claimed, ...told].map(({ appId }) => appId))];
  await tx.outbox.add('app', apps);
  return apps;
}
