import type { Db } from './context.ts';

/**
 * What row-level security shows for the rest of the transaction (see the migration `walls`). The
 * settings are local: they end with the transaction, also on a pooled connection.
 */
export async function bindTenant(db: Db, tenantId: string): Promise<void> {
  await db.$queryRaw`SELECT set_config('bulkhead.tenant', ${tenantId}, true), set_config('bulkhead.scope', '', true)`;
}

/**
 * How long PostgreSQL waits for the next word of a transaction. A process that hangs, or whose host
 * is cut off, holds locks that the others wait for; one that lives gives up by itself before.
 */
const longestSilence = '16s';

/** Answers the time by PostgreSQL's clock: replicas whose clocks differ must agree on what is over. */
export async function bindPlatform(db: Db): Promise<Date> {
  const [row] = await db.$queryRaw<{ at: Date }[]>`
    SELECT clock_timestamp() AS "at", set_config('bulkhead.scope', 'platform', true),
      set_config('idle_in_transaction_session_timeout', ${longestSilence}, true)`;
  if (!row) throw new Error('no row');
  return row.at;
}

/**
 * Widens a tenant's transaction for one look-up that crosses the border (a user by email, a node's
 * name), and narrows it again. When `work` throws the transaction is lost anyway.
 */
export async function asPlatform<T>(db: Db, work: () => Promise<T>): Promise<T> {
  await bindPlatform(db);
  const result = await work();
  await db.$queryRaw`SELECT set_config('bulkhead.scope', '', true)`;
  return result;
}
