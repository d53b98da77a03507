import { conflict, notFound, type InstanceExit } from '@bulkhead/protocol';
import { programOf } from '../audit/program.ts';
import type { TenantContext } from '../db/context.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { asPlatform } from '../db/scope.ts';
import type { InstanceDesired, InstanceState } from '../generated/enums.ts';
import type { Permission } from '../roles/permissions.ts';

export interface InstanceView {
  readonly id: string;
  readonly appId: string;
  readonly process: string;
  /** Version of its release. */
  readonly release: number;
  readonly state: InstanceState;
  readonly desired: InstanceDesired;
  /** Its owner wants it held still. */
  readonly paused: boolean;
  readonly message: string | null;
  readonly restarts: number;
  /** A one-off task, of no process of the release. */
  readonly oneOff: boolean;
  /** The node's name, for operators; null for everybody else. */
  readonly node: string | null;
  readonly createdAt: Date;
  readonly readyAt: Date | null;
  readonly goneAt: Date | null;
  /** When a one-off task is stopped if it still runs. */
  readonly deadlineAt: Date | null;
  readonly lastExit: InstanceExit | null;
}

const columns = {
  id: true,
  appId: true,
  process: true,
  release: { select: { version: true } },
  state: true,
  desired: true,
  paused: true,
  message: true,
  restarts: true,
  oneOff: true,
  nodeId: true,
  createdAt: true,
  readyAt: true,
  goneAt: true,
  deadlineAt: true,
  lastExit: true,
} as const;

interface Row extends Omit<InstanceView, 'release' | 'node' | 'lastExit'> {
  readonly release: { version: number };
  readonly nodeId: string | null;
  readonly lastExit: unknown;
}

export interface InstancePlace {
  readonly id: string;
  readonly nodeId: string;
  readonly process: string;
  readonly state: InstanceState;
  readonly oneOff: boolean;
}

export interface TaskPlace {
  readonly nodeId: string | null;
  readonly state: InstanceState;
  readonly desired: InstanceDesired;
  readonly message: string | null;
  /** Of its end, when it has one. */
  readonly exitCode: number | null;
}

const isCommand = (
  what: { readonly command: readonly string[] } | Readonly<Record<string, string | number>>,
): what is { readonly command: readonly string[] } => Array.isArray(what['command']);

/** A process of it is there to speak to. */
const runningStates = ['running', 'ready', 'unready'] as const satisfies readonly InstanceState[];
const runs = (state: InstanceState) => (runningStates as readonly InstanceState[]).includes(state);

const byTime = new Keyset('instances', cursorKey.date, cursorKey.text);

/** Instances of apps of the bound tenant, oldest first. */
export class Instances {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  async list(
    appId: string,
    args: PageArgs & { readonly includeGone?: boolean | null | undefined },
  ): Promise<Page<InstanceView>> {
    const { db, tenant } = this.#context;
    const { take, after } = byTime.start(args);
    const where = { appId, tenantId: tenant.id, ...(!args.includeGone && { goneAt: null }) };
    const rows = await db.instance.findMany({
      where: {
        ...where,
        ...(after && {
          OR: [{ createdAt: { gt: after[0] } }, { createdAt: after[0], id: { gt: after[1] } }],
        }),
      },
      select: columns,
      orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
      take,
    });
    const nodes = await this.#nodeNames(rows);
    return byTime.page(args, {
      rows,
      totalCount: await db.instance.count({ where }),
      key: (row) => [row.createdAt, row.id],
      view: (row) => toView(row, nodes),
    });
  }

  /** Those of its processes that are not gone. */
  async live(appId: string): Promise<readonly InstanceView[]> {
    const { db, tenant } = this.#context;
    const rows = await db.instance.findMany({
      where: { appId, tenantId: tenant.id, goneAt: null, oneOff: false },
      select: columns,
      orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
    });
    const nodes = await this.#nodeNames(rows);
    return rows.map((row) => toView(row, nodes));
  }

  /** NOT_FOUND when it is not of this app. */
  async get(appId: string, id: string): Promise<InstanceView> {
    const { db, tenant } = this.#context;
    const row = await db.instance.findFirst({
      where: { id, appId, tenantId: tenant.id },
      select: columns,
    });
    if (!row) throw notFound(`instance ${id}`);
    return toView(row, await this.#nodeNames([row]));
  }

  /**
   * An instance that a stream can go to: the one named, or else one that runs, of the process if one
   * is named; ready before not yet ready, newest release first. NOT_FOUND when it is not of this
   * app or none runs, CONFLICT when the one named does not run. `nodeId` is not for tenants' eyes.
   */
  async locate(
    appId: string,
    which: { readonly instance?: string | null; readonly process?: string | null },
  ): Promise<InstancePlace> {
    const { db, tenant } = this.#context;
    const { instance, process } = which;
    const select = { id: true, nodeId: true, process: true, state: true, oneOff: true } as const;
    const where = { appId, tenantId: tenant.id };
    if (instance != null) {
      const row = await db.instance.findFirst({ where: { ...where, id: instance }, select });
      if (!row) throw notFound(`instance ${instance}`);
      if (row.nodeId === null || !runs(row.state)) {
        throw conflict(`instance ${instance} does not run now: it is ${row.state}`);
      }
      return { ...row, nodeId: row.nodeId };
    }
    const rows = await db.instance.findMany({
      where: {
        ...where,
        oneOff: false,
        goneAt: null,
        desired: 'running',
        state: { in: [...runningStates] },
        ...(process != null && { process }),
      },
      select,
      orderBy: [{ release: { version: 'desc' } }, { createdAt: 'asc' }, { id: 'asc' }],
    });
    const row = rows.find(({ state }) => state === 'ready') ?? rows[0];
    if (!row || row.nodeId === null) {
      throw notFound(`a running instance of ${process == null ? 'the app' : `process ${process}`}`);
    }
    return { ...row, nodeId: row.nodeId };
  }

  /**
   * As `locate`, for a stream that is about to be opened: writes it into the audit log. `what` says
   * what for; of a command only the program's name is kept.
   */
  async open(
    app: string,
    which: { readonly instance?: string | null; readonly process?: string | null },
    permission: Permission,
    what: { readonly command: readonly string[] } | Readonly<Record<string, string | number>>,
  ): Promise<InstancePlace & { readonly appId: string }> {
    const { db, tenant, audit } = this.#context;
    this.#context.require(permission);
    const found = await db.app.findFirst({
      where: { tenantId: tenant.id, name: app },
      select: { id: true, name: true },
    });
    if (!found) throw notFound(`app ${app}`);
    const place = await this.locate(found.id, which);
    const detail = isCommand(what) ? programOf(what.command) : what;
    await audit.write(permission, `${found.name}/${place.id}`, detail);
    return { ...place, appId: found.id };
  }

  /** Those that a stream can go to now, tasks too. */
  async running(appId: string): Promise<InstancePlace[]> {
    const { db, tenant } = this.#context;
    const rows = await db.instance.findMany({
      where: { appId, tenantId: tenant.id, goneAt: null, state: { in: [...runningStates] } },
      select: { id: true, nodeId: true, process: true, state: true, oneOff: true },
      orderBy: [{ process: 'asc' }, { createdAt: 'asc' }, { id: 'asc' }],
    });
    return rows.flatMap(({ nodeId, ...row }) => (nodeId === null ? [] : { ...row, nodeId }));
  }

  /** How far a one-off task is; NOT_FOUND for what is none of this app. */
  async placeOfTask(appId: string, id: string): Promise<TaskPlace> {
    const { db, tenant } = this.#context;
    const row = await db.instance.findFirst({
      where: { id, appId, tenantId: tenant.id, oneOff: true },
      select: { nodeId: true, state: true, desired: true, message: true, lastExit: true },
    });
    if (!row) throw notFound(`task ${id}`);
    const { lastExit, message, ...place } = row;
    const exit = lastExit as InstanceExit | null;
    return {
      ...place,
      message: message ?? exit?.message ?? null,
      exitCode: exit?.exitCode ?? null,
    };
  }

  /** Hosts are no tenant's business: only an operator who is a member sees where things run. */
  async #nodeNames(rows: readonly Row[]): Promise<ReadonlyMap<string, string>> {
    if (!this.#context.caller.operator || rows.length === 0) return new Map();
    const { db } = this.#context;
    const ids = rows.flatMap((row) => row.nodeId ?? []);
    const nodes = await asPlatform(db, () =>
      db.node.findMany({ where: { id: { in: ids } }, select: { id: true, name: true } }),
    );
    return new Map(nodes.map(({ id, name }) => [id, name]));
  }
}

function toView(
  { release, nodeId, lastExit, ...row }: Row,
  nodes: ReadonlyMap<string, string>,
): InstanceView {
  return {
    ...row,
    release: release.version,
    node: nodes.get(nodeId ?? '') ?? null,
    lastExit: lastExit as InstanceExit | null,
  };
}
