import { defaultPool, dnsLabel, invalid, notFound } from '@bulkhead/protocol';
import { z } from 'zod';
import type { AuditWriter } from '../audit/audit.ts';
import type { Db } from '../db/context.ts';
import { parse } from '../db/parse.ts';
import { asPlatform } from '../db/scope.ts';

export interface PoolView {
  readonly name: string;
  /** Reserved CPU may reach this many times the cores of its nodes. */
  readonly cpuOvercommit: number;
  /** Every tenant may use it. */
  readonly open: boolean;
  /** Slugs of those that may use it though it is not open. */
  readonly tenants: readonly string[];
  readonly nodes: number;
}

/** A change of a pool; what is left out stays. */
export interface PoolChange {
  readonly name: string;
  readonly cpuOvercommit?: number | null | undefined;
  readonly open?: boolean | null | undefined;
  /** Slugs. */
  readonly grant?: readonly string[] | null | undefined;
  readonly revoke?: readonly string[] | null | undefined;
}

export const defaultCpuOvercommit = 4;

const change = z.object({
  name: dnsLabel,
  cpuOvercommit: z.number().min(0.1).max(100).nullish(),
  open: z.boolean().nullish(),
  grant: z.array(z.string()).max(100).nullish(),
  revoke: z.array(z.string()).max(100).nullish(),
});

/** Pools of nodes, for operators. A pool is there when a node or a row names it. */
export class Pools {
  readonly #db: Db;
  readonly #audit: AuditWriter;

  constructor(db: Db, audit: AuditWriter) {
    this.#db = db;
    this.#audit = audit;
  }

  /** By name; `default` is always among them. */
  async list(): Promise<PoolView[]> {
    const rows = await this.#db.pool.findMany({
      include: { grants: { select: { tenant: { select: { slug: true } } } } },
    });
    const counts = await this.#db.node.groupBy({ by: ['pool'], _count: true });
    const known = new Map(rows.map((row) => [row.name, row]));
    const names = new Set([defaultPool, ...known.keys(), ...counts.map(({ pool }) => pool)]);
    return [...names].sort().map((name) => ({
      name,
      cpuOvercommit: known.get(name)?.cpuOvercommit ?? defaultCpuOvercommit,
      open: name === defaultPool || (known.get(name)?.open ?? false),
      tenants: (known.get(name)?.grants ?? []).map(({ tenant }) => tenant.slug).sort(),
      nodes: counts.find(({ pool }) => pool === name)?._count ?? 0,
    }));
  }

  /**
   * Makes or changes a pool. INVALID for a factor outside 0.1 to 100 and for closing `default`,
   * NOT_FOUND for a tenant that is not there. What runs is left alone, also where a factor sinks.
   */
  async set(input: PoolChange): Promise<PoolView> {
    const { name, cpuOvercommit, open, grant, revoke } = parse(change, input, 'pool');
    if (name === defaultPool && (open === false || grant?.length || revoke?.length))
      throw invalid(`the pool ${defaultPool} is open to every tenant`);
    const values = {
      ...(cpuOvercommit == null ? {} : { cpuOvercommit }),
      ...(open == null ? {} : { open }),
    };
    await this.#db.pool.upsert({ where: { name }, create: { name, ...values }, update: values });
    await this.#db.poolGrant.createMany({
      data: (await this.#tenants(grant ?? [])).map((tenantId) => ({ pool: name, tenantId })),
      skipDuplicates: true,
    });
    await this.#db.poolGrant.deleteMany({
      where: { pool: name, tenantId: { in: await this.#tenants(revoke ?? []) } },
    });
    const detail = { ...values, ...(grant && { grant }), ...(revoke && { revoke }) };
    await this.#audit.write('pool.set', name, detail);
    const view = (await this.list()).find((pool) => pool.name === name);
    if (!view) throw new Error('the pool that was written is not there');
    return view;
  }

  async #tenants(slugs: readonly string[]): Promise<string[]> {
    const rows = await this.#db.tenant.findMany({ where: { slug: { in: [...slugs] } } });
    const missing = slugs.find((slug) => !rows.some((row) => row.slug === slug));
    if (missing !== undefined) throw notFound(`tenant ${missing}`);
    return rows.map(({ id }) => id);
  }
}

/** INVALID unless the tenant may use all of these pools. Whether a pool is there is not told to others. */
export async function requirePools(
  db: Db,
  tenantId: string,
  asked: readonly { readonly name: string; readonly pool: string }[],
): Promise<void> {
  const names = new Set(asked.map(({ pool }) => pool));
  names.delete(defaultPool);
  if (names.size === 0) return;
  const usable = await asPlatform(db, () =>
    db.pool.findMany({
      where: { name: { in: [...names] }, OR: [{ open: true }, { grants: { some: { tenantId } } }] },
      select: { name: true },
    }),
  );
  const refused = asked.find(
    ({ pool }) => names.has(pool) && !usable.some(({ name }) => name === pool),
  );
  if (!refused) return;
  throw invalid(
    `process ${refused.name}: there is no pool ${refused.pool} that this tenant may use; leave it out, or ask an operator`,
    { process: refused.name, pool: refused.pool },
  );
}
