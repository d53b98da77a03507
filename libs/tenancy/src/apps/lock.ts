import { conflict, notFound } from '@bulkhead/protocol';
import type { Db } from '../db/context.ts';
import { appColumns, type AppView } from './view.ts';

/**
 * Takes the app's row for the rest of the transaction: versions have no gaps and of two deploys one
 * waits. Whoever needs the tenant's lock too takes it after this one.
 */
export async function lockApp(db: Db, tenantId: string, name: string): Promise<AppView> {
  await db.$queryRaw`
    SELECT 1 FROM "App" WHERE "tenantId" = ${tenantId}::uuid AND "name" = ${name} FOR NO KEY UPDATE`;
  const app = await db.app.findUnique({
    where: { tenantId_name: { tenantId, name } },
    select: appColumns,
  });
  if (!app) throw notFound(`app ${name}`);
  return app;
}

/** The same for a change: CONFLICT while the app is being destroyed. */
export async function lockLivingApp(db: Db, tenantId: string, name: string): Promise<AppView> {
  const app = await lockApp(db, tenantId, name);
  if (app.state === 'deleting') throw conflict(`app ${name} is being destroyed`);
  return app;
}
