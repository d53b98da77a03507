/**
 * One query for the same field of many objects. Only batching, no caching: a mutation's later
 * fields and every event of a subscription must see what is true then.
 */
import DataLoader from 'dataloader';
import { notFound } from '@bulkhead/protocol';
import type {
  AppStatus,
  Caller,
  DeploymentView,
  ReleaseView,
  Tenancy,
  TenantTx,
  TenantView,
} from '@bulkhead/tenancy';
import type { Owned } from './door.ts';

interface Key {
  readonly tenantId: string;
  readonly id: string;
}

type BatchWork<T> = (tx: TenantTx, ids: readonly string[]) => Promise<ReadonlyMap<string, T>>;

export class Loaders {
  readonly #statuses: DataLoader<Key, AppStatus | null>;
  readonly #releases: DataLoader<Key, ReleaseView | null>;
  readonly #latestDeployments: DataLoader<Key, DeploymentView | null>;
  readonly #tenants: DataLoader<Key, TenantView | null>;

  /** All of these need `app.read` of the caller, who may be any member. */
  constructor(tenancy: Tenancy, caller: Caller) {
    const loader = <T>(work: BatchWork<T>) =>
      new DataLoader<Key, T | null>((keys) => loadByTenant(tenancy, caller, keys, work), {
        cache: false,
      });
    this.#statuses = loader((tx, ids) => tx.apps.statuses(ids));
    this.#releases = loader((tx, ids) => tx.releases.byIds(ids));
    this.#latestDeployments = loader((tx, ids) => tx.deployments.latest(ids));
    this.#tenants = loader((tx) => Promise.resolve(new Map([[tx.tenant.id, tx.tenant]])));
  }

  async status(app: { tenantId: string; id: string }): Promise<AppStatus> {
    const status = await this.#statuses.load({ tenantId: app.tenantId, id: app.id });
    // The app was deleted between two fields of one answer.
    if (!status) throw notFound('App');
    return status;
  }

  async release(tenantId: string, id: string | null): Promise<Owned<ReleaseView> | null> {
    return id === null ? null : own(tenantId, await this.#releases.load({ tenantId, id }));
  }

  async latestDeployment(app: {
    tenantId: string;
    id: string;
  }): Promise<Owned<DeploymentView> | null> {
    return own(
      app.tenantId,
      await this.#latestDeployments.load({ tenantId: app.tenantId, id: app.id }),
    );
  }

  async tenant(tenantId: string): Promise<TenantView> {
    const tenant = await this.#tenants.load({ tenantId, id: tenantId });
    if (!tenant) throw notFound('Tenant');
    return tenant;
  }
}

function own<T extends object>(tenantId: string, view: T | null): Owned<T> | null {
  return view && { ...view, tenantId };
}

async function loadByTenant<T>(
  tenancy: Tenancy,
  caller: Caller,
  keys: readonly Key[],
  work: BatchWork<T>,
): Promise<(T | null)[]> {
  const byTenant = Map.groupBy(keys, (key) => key.tenantId);
  const found = new Map<string, ReadonlyMap<string, T>>();
  for (const [tenantId, ofTenant] of byTenant) {
    const ids = [...new Set(ofTenant.map((key) => key.id))];
    const access = { tenantId, permission: 'app.read' } as const;
    found.set(tenantId, await tenancy.run(caller, access, (tx) => work(tx, ids)));
  }
  return keys.map((key) => found.get(key.tenantId)?.get(key.id) ?? null);
}
