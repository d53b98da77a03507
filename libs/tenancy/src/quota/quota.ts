import { invalid, notFound } from '@bulkhead/protocol';
import type { AuditWriter } from '../audit/audit.ts';
import type { Db, TenantContext } from '../db/context.ts';
import {
  readProcessEntries,
  readUsage,
  resourceNames,
  setEntries,
  type Amounts,
} from './ledger.ts';
import {
  maxAmounts,
  minAmounts,
  processSubject,
  taskSubject,
  wantedAmounts,
} from './process-amounts.ts';
import type { QuotaResource, QuotaUsageView } from './resources.ts';
import { readStrategy } from '../deployments/strategy.ts';
import { readProcesses } from '../releases/stored-processes.ts';

/** The ledger of the bound tenant. Reserving is done by the stores whose work costs something. */
export class Quota {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  async usage(): Promise<readonly QuotaUsageView[]> {
    return readUsage(this.#context.db, this.#context.tenant.id);
  }
}

/** For operators. */
export class OperatorQuota {
  readonly #db: Db;
  readonly #auditOf: (tenantId: string) => AuditWriter;

  constructor(db: Db, auditOf: (tenantId: string) => AuditWriter) {
    this.#db = db;
    this.#auditOf = auditOf;
  }

  async usage(tenant: string): Promise<readonly QuotaUsageView[]> {
    return readUsage(this.#db, (await this.#find(tenant)).id);
  }

  /** Overrides the platform's default. Below what is used is allowed: nothing new fits until then. */
  async setLimit(input: {
    tenant: string;
    resource: string;
    limit: number;
  }): Promise<readonly QuotaUsageView[]> {
    const resource = input.resource as QuotaResource;
    if (!resourceNames.includes(resource)) {
      throw invalid(`resource: use one of ${resourceNames.join(', ')}`, { field: 'resource' });
    }
    if (!Number.isSafeInteger(input.limit) || input.limit < 0) {
      throw invalid('limit: use a whole number, 0 or more', { field: 'limit' });
    }
    const { id: tenantId } = await this.#find(input.tenant);
    const limit = BigInt(input.limit);
    await this.#db.quotaLimit.upsert({
      where: { tenantId_resource: { tenantId, resource } },
      create: { tenantId, resource, limit },
      update: { limit },
    });
    await this.#auditOf(tenantId).write('quota.set', resource, { limit: input.limit });
    return readUsage(this.#db, tenantId);
  }

  async #find(slug: string): Promise<{ id: string }> {
    const tenant = await this.#db.tenant.findUnique({ where: { slug }, select: { id: true } });
    if (!tenant) throw notFound(`tenant ${slug}`);
    return tenant;
  }
}

/** For controllers, on the platform door. */
export class PlatformQuota {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /**
   * Gives back what is proven gone: lowers every process of the app to the larger of what is wanted
   * and what its instances that are not gone hold; never raises: what a rollout adds for a moment
   * above what is wanted is the platform's own doing and not on the tenant's account. While a deployment runs, what its
   * `from` release would want counts as wanted too, so that going back always fits. Call it in the
   * transaction that marks instances gone or ends a deployment.
   */
  async settle(appId: string): Promise<void> {
    await this.#db.$queryRaw`SELECT 1 FROM "App" WHERE "id" = ${appId}::uuid FOR NO KEY UPDATE`;
    const app = await this.#db.app.findUnique({
      where: { id: appId },
      include: { formations: true },
    });
    if (!app) return;
    await this.#settleTasks(app);
    const held = await readProcessEntries(this.#db, app.tenantId, appId);
    if (held.size === 0) return;
    const running = await this.#db.deployment.findFirst({ where: { appId, status: 'running' } });
    const releases = await this.#db.release.findMany({
      where: {
        id: {
          in: [app.currentReleaseId, running?.fromReleaseId].filter((id) => typeof id === 'string'),
        },
      },
      select: { processes: true },
    });
    const counts = new Map(app.formations.map(({ process, count }) => [process, count]));
    const wanted = releases.map(({ processes }) =>
      wantedAmounts(
        { ...app, processes: readProcesses(processes), counts },
        readStrategy(running?.strategy),
      ),
    );
    const existing = await this.#existing(appId);
    await setEntries(
      this.#db,
      app.tenantId,
      [...held].map(([subject, amounts]) => ({
        subject,
        amounts: minAmounts(
          amounts,
          maxAmounts(existing.get(subject), ...wanted.map((of) => of.get(subject))),
        ),
      })),
    );
  }

  /** One-off tasks hold what they were made with until they are gone. */
  async #settleTasks({ id: appId, tenantId }: { id: string; tenantId: string }): Promise<void> {
    const held = await this.#db.quotaEntry.findMany({
      where: { tenantId, subject: { startsWith: taskSubject(appId, '') } },
      select: { subject: true },
      distinct: ['subject'],
    });
    if (held.length === 0) return;
    const live = await this.#db.instance.findMany({
      where: { appId, oneOff: true, goneAt: null },
      select: { id: true },
    });
    const kept = new Set(live.map(({ id }) => taskSubject(appId, id)));
    const over = held.filter(({ subject }) => !kept.has(subject));
    if (over.length === 0) return;
    await setEntries(
      this.#db,
      tenantId,
      over.map(({ subject }) => ({ subject, amounts: {} })),
    );
  }

  /** What instances of processes that are not gone hold, by subject. */
  async #existing(appId: string): Promise<Map<string, Amounts>> {
    const rows = await this.#db.instance.groupBy({
      by: ['process'],
      where: { appId, goneAt: null, oneOff: false },
      _count: true,
      _sum: { cpuMillis: true, memoryMiB: true, diskMiB: true },
    });
    return new Map(
      rows.map(({ process, _count, _sum }) => [
        processSubject(appId, process),
        {
          instances: _count,
          cpuMillis: _sum.cpuMillis ?? 0,
          memoryMiB: _sum.memoryMiB ?? 0,
          diskMiB: _sum.diskMiB ?? 0,
        },
      ]),
    );
  }
}
