import { conflict } from '@bulkhead/protocol';
import type { Db } from '../db/context.ts';
import { lockTenant } from '../quota/ledger.ts';
import { taskSubject } from '../quota/process-amounts.ts';

/** For controllers, on the platform door. */
export class PlatformApps {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /**
   * Ends a destroy: deletes the app and all below it and gives its quota back. CONFLICT unless its
   * state is `deleting` and every instance is gone. Its routes must be published as deleted
   * before: they are deleted with it. False when the app is already gone.
   */
  async finishDestroy(appId: string): Promise<boolean> {
    await this.#db.$queryRaw`SELECT 1 FROM "App" WHERE "id" = ${appId}::uuid FOR UPDATE`;
    const app = await this.#db.app.findUnique({
      where: { id: appId },
      select: { tenantId: true, state: true, instances: { where: { goneAt: null }, take: 1 } },
    });
    if (!app) return false;
    if (app.state !== 'deleting') throw conflict(`app ${appId} is not being destroyed`);
    if (app.instances.length > 0) throw conflict(`app ${appId} still has instances`);
    await lockTenant(this.#db, app.tenantId);
    await this.#db.app.delete({ where: { id: appId } });
    await this.#db.quotaEntry.deleteMany({
      where: {
        tenantId: app.tenantId,
        OR: [
          { subject: `app:${appId}` },
          { subject: { startsWith: `process:${appId}/` } },
          { subject: { startsWith: taskSubject(appId, '') } },
        ],
      },
    });
    return true;
  }
}
