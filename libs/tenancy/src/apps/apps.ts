import {
  conflict,
  dnsLabel,
  labelList,
  notFound,
  type HealthCheck,
  type ProcessPriority,
  type ProcessProtocol,
  type Resources,
} from '@bulkhead/protocol';
import type { TenantContext } from '../db/context.ts';
import { isDuplicate } from '../db/errors.ts';
import { isUuid } from '../db/ids.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { parse } from '../db/parse.ts';
import { reserve } from '../quota/ledger.ts';
import { appHealth, type AppHealth } from './health.ts';
import { lockApp } from './lock.ts';
import { appColumns, getApp, type AppView } from './view.ts';
import { readProcesses } from '../releases/stored-processes.ts';

export type { AppHealth, AppView };

export interface ProcessView extends Resources {
  readonly name: string;
  /** Wanted, also while the app is stopped. */
  readonly count: number;
  /** Instances of any release that are ready and wanted. */
  readonly ready: number;
  readonly command: readonly string[] | null;
  readonly port: number | null;
  readonly protocol: ProcessProtocol;
  readonly readOnlyRoot: boolean;
  readonly mostPerNode: number;
  readonly priority: ProcessPriority;
  readonly pool: string;
  readonly nodeLabels: readonly { readonly name: string; readonly value: string }[];
  readonly healthCheck: HealthCheck | null;
}

export interface AppStatus {
  readonly health: AppHealth;
  readonly processes: readonly ProcessView[];
}

const byName = new Keyset('apps', cursorKey.text);

/** Apps of the bound tenant, by name. */
export class Apps {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  async list(args: PageArgs): Promise<Page<AppView>> {
    const { db, tenant } = this.#context;
    const { take, after } = byName.start(args);
    const where = { tenantId: tenant.id };
    const rows = await db.app.findMany({
      where: { ...where, ...(after && { name: { gt: after[0] } }) },
      select: appColumns,
      orderBy: { name: 'asc' },
      take,
    });
    return byName.page(args, {
      rows,
      totalCount: await db.app.count({ where }),
      key: (row) => [row.name],
      view: (row) => row,
    });
  }

  /** NOT_FOUND when the tenant has none of this name. */
  async get(name: string): Promise<AppView> {
    return getApp(this.#context, name);
  }

  async getById(id: string): Promise<AppView> {
    const { db, tenant } = this.#context;
    const app = isUuid(id)
      ? await db.app.findFirst({ where: { id, tenantId: tenant.id }, select: appColumns })
      : null;
    if (!app) throw notFound('app');
    return app;
  }

  /** Health and processes of many apps in a fixed number of queries, by app id; unknown ids are left out. */
  async statuses(appIds: readonly string[]): Promise<ReadonlyMap<string, AppStatus>> {
    const { db, tenant } = this.#context;
    const appId = { in: appIds.filter(isUuid) };
    const tenantId = tenant.id;
    const apps = await db.app.findMany({
      where: { id: appId, tenantId },
      select: { ...appColumns, formations: true },
    });
    const releaseIds = apps.flatMap((app) => app.currentReleaseId ?? []);
    const releases = await db.release.findMany({
      where: { id: { in: releaseIds }, tenantId },
      select: { id: true, processes: true },
    });
    const running = await db.deployment.findMany({
      where: { appId, tenantId, status: 'running' },
      select: { appId: true },
    });
    const instances = await db.instance.groupBy({
      by: ['appId', 'process', 'state'],
      where: { appId, tenantId, goneAt: null, desired: 'running', oneOff: false },
      _count: true,
    });
    const deploying = new Set(running.map((row) => row.appId));
    const definitions = new Map(releases.map((row) => [row.id, readProcesses(row.processes)]));
    return new Map(
      apps.map((app) => {
        const own = instances.filter((row) => row.appId === app.id);
        const processes = (definitions.get(app.currentReleaseId ?? '') ?? []).map(
          (process): ProcessView => ({
            name: process.name,
            count: app.formations.find((row) => row.process === process.name)?.count ?? 0,
            ready:
              own.find((row) => row.process === process.name && row.state === 'ready')?._count ?? 0,
            command: process.command,
            port: process.port,
            protocol: process.protocol,
            ...process.resources,
            readOnlyRoot: process.readOnlyRoot,
            mostPerNode: process.mostPerNode,
            priority: process.priority,
            pool: process.pool,
            nodeLabels: labelList(process.nodeLabels),
            healthCheck: process.health,
          }),
        );
        const health = appHealth({
          state: app.state,
          hasRelease: app.currentReleaseId !== null,
          deploying: deploying.has(app.id),
          processes,
          instanceStates: own.map((row) => row.state),
        });
        return [app.id, { health, processes }];
      }),
    );
  }

  /** Reserves one of `apps`. INVALID for a name that is no DNS label, CONFLICT when taken. */
  async create(input: { name: string }): Promise<AppView> {
    const { db, tenant, now } = this.#context;
    this.#context.require('app.create');
    const name = parse(dnsLabel, input.name, 'name');
    let app;
    try {
      app = await db.app.create({
        data: { tenantId: tenant.id, name, createdAt: now },
        select: appColumns,
      });
    } catch (error) {
      if (isDuplicate(error)) {
        throw conflict(`${tenant.slug} has an app "${name}" already; choose another name`);
      }
      throw error;
    }
    await reserve(db, tenant.id, [{ subject: `app:${app.id}`, amounts: { apps: 1 } }]);
    await this.#context.audit.write('app.create', name);
    return app;
  }

  /**
   * State `deleting`: the controllers remove its instances and routes, then `finishDestroy`; quota
   * is given back as the instances go. The name is free only after that. Asking again is the same.
   */
  async destroy(name: string): Promise<AppView> {
    const { db, tenant, now } = this.#context;
    this.#context.require('app.destroy');
    const app = await lockApp(db, tenant.id, name);
    if (app.state === 'deleting') return app;
    await db.deployment.updateMany({
      where: { appId: app.id, status: 'running' },
      data: { status: 'superseded', finishedAt: now },
    });
    const deleting = await db.app.update({
      where: { id: app.id },
      data: { state: 'deleting' },
      select: appColumns,
    });
    await db.outbox.createMany({ data: [{ kind: 'app', key: app.id }] });
    await this.#context.audit.write('app.destroy', name);
    return deleting;
  }
}
