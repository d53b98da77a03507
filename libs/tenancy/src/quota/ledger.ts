import { notFound, quotaExceeded } from '@bulkhead/protocol';
import type { Db } from '../db/context.ts';
import { quotaResources, type QuotaResource, type QuotaUsageView } from './resources.ts';

/** How much of each resource; what is absent is 0. */
export type Amounts = Partial<Record<QuotaResource, number>>;

export interface LedgerEntry {
  /** "app:<id>", "process:<appId>/<process>", "task:<appId>/<instance>", "token:<id>" */
  readonly subject: string;
  readonly amounts: Amounts;
}

export const resourceNames = Object.keys(quotaResources) as QuotaResource[];

/**
 * Serialises everything that is decided from a tenant's rows: its ledger and its owners. Whoever
 * needs an app's lock too takes that one first. NO KEY UPDATE, so that inserting rows that refer to
 * the tenant does not wait.
 */
export async function lockTenant(db: Db, tenantId: string): Promise<void> {
  const rows = await db.$queryRaw<
    unknown[]
  >`SELECT 1 FROM "Tenant" WHERE "id" = ${tenantId}::uuid FOR NO KEY UPDATE`;
  if (rows.length === 0) throw notFound('tenant');
}

/** Used and allowed, in the order of `quotaResources`. */
export async function readUsage(db: Db, tenantId: string): Promise<readonly QuotaUsageView[]> {
  const sums = await db.quotaEntry.groupBy({
    by: ['resource'],
    where: { tenantId },
    _sum: { amount: true },
  });
  const limits = await db.quotaLimit.findMany({ where: { tenantId } });
  const used = new Map(sums.map((row) => [row.resource, Number(row._sum.amount ?? 0)]));
  const limit = new Map(limits.map((row) => [row.resource, Number(row.limit)]));
  return resourceNames.map((resource) => ({
    resource,
    used: used.get(resource) ?? 0,
    limit: limit.get(resource) ?? quotaResources[resource].limit,
    unit: quotaResources[resource].unit,
  }));
}

/**
 * Brings entries to these amounts, all or none: QUOTA_EXCEEDED names the first resource whose use
 * would grow past its limit. What does not grow is always allowed, also above a lowered limit.
 * Call it in the transaction of the work that costs; it locks the tenant.
 */
export async function reserve(
  db: Db,
  tenantId: string,
  entries: readonly LedgerEntry[],
): Promise<void> {
  await lockTenant(db, tenantId);
  const held = await readEntries(
    db,
    tenantId,
    entries.map(({ subject }) => subject),
  );
  const usage = await readUsage(db, tenantId);
  for (const { resource, used, limit, unit } of usage) {
    const more = entries.reduce(
      (sum, { subject, amounts }) =>
        sum + (amounts[resource] ?? 0) - (held.get(subject)?.[resource] ?? 0),
      0,
    );
    if (more > 0 && used + more > limit) {
      throw quotaExceeded(
        `quota exceeded for ${resource}: ${used} of ${limit} ${unit} in use, this needs ${more} more; ` +
          'free some, or ask an operator to raise the limit',
        { resource, used, limit, wanted: more },
      );
    }
  }
  await write(db, tenantId, entries);
}

/** The same without asking for the limit: for giving back, and for a restored release. Locks the tenant. */
export async function setEntries(
  db: Db,
  tenantId: string,
  entries: readonly LedgerEntry[],
): Promise<void> {
  await lockTenant(db, tenantId);
  await write(db, tenantId, entries);
}

/** What the subjects hold now. */
export async function readEntries(
  db: Db,
  tenantId: string,
  subjects: readonly string[],
): Promise<ReadonlyMap<string, Amounts>> {
  const rows = await db.quotaEntry.findMany({
    where: { tenantId, subject: { in: [...subjects] } },
  });
  return collect(rows);
}

/** What the processes of an app hold now, also those that no release has any more. */
export async function readProcessEntries(
  db: Db,
  tenantId: string,
  appId: string,
): Promise<ReadonlyMap<string, Amounts>> {
  const rows = await db.quotaEntry.findMany({
    where: { tenantId, subject: { startsWith: `process:${appId}/` } },
  });
  return collect(rows);
}

function collect(rows: readonly { subject: string; resource: string; amount: bigint }[]) {
  const entries = new Map<string, Amounts>();
  for (const { subject, resource, amount } of rows) {
    const amounts = entries.get(subject) ?? {};
    amounts[resource as QuotaResource] = Number(amount);
    entries.set(subject, amounts);
  }
  return entries;
}

async function write(db: Db, tenantId: string, entries: readonly LedgerEntry[]): Promise<void> {
  await db.quotaEntry.deleteMany({
    where: { tenantId, subject: { in: entries.map(({ subject }) => subject) } },
  });
  await db.quotaEntry.createMany({
    data: entries.flatMap(({ subject, amounts }) =>
      resourceNames.flatMap((resource) => {
        const amount = amounts[resource] ?? 0;
        return amount > 0 ? [{ tenantId, subject, resource, amount: BigInt(amount) }] : [];
      }),
    ),
  });
}
