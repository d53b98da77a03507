import { notFound } from '@bulkhead/protocol';
import type { TenantContext } from '../db/context.ts';
import type { AppState } from '../generated/enums.ts';

export interface AppView {
  readonly id: string;
  readonly tenantId: string;
  readonly name: string;
  readonly state: AppState;
  readonly currentReleaseId: string | null;
  readonly epoch: number;
  /** RolloutStrategy of libs/protocol; null for the platform's own. */
  readonly strategy: unknown;
  readonly createdAt: Date;
}

export const appColumns = {
  id: true,
  tenantId: true,
  name: true,
  state: true,
  currentReleaseId: true,
  epoch: true,
  strategy: true,
  createdAt: true,
} as const;

/** NOT_FOUND when the tenant has none of this name. */
export async function getApp({ db, tenant }: TenantContext, name: string): Promise<AppView> {
  const app = await db.app.findUnique({
    where: { tenantId_name: { tenantId: tenant.id, name } },
    select: appColumns,
  });
  if (!app) throw notFound(`app ${name}`);
  return app;
}
