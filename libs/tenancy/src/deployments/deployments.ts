import {
  conflict,
  imageConfig,
  invalid,
  notFound,
  sha256Digest,
  type ImageConfig,
  type ProcessDefinition,
} from '@bulkhead/protocol';
import { z } from 'zod';
import { lockLivingApp } from '../apps/lock.ts';
import type { AppView } from '../apps/view.ts';
import { readConfig, writeConfig } from '../config/store.ts';
import type { TenantContext } from '../db/context.ts';
import { isUuid } from '../db/ids.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { parse } from '../db/parse.ts';
import type { Release } from '../generated/client.ts';
import { emailsOf } from '../members/emails.ts';
import { requirePools } from '../nodes/pools.ts';
import { checkCount, planProcesses, type ProcessRequest } from '../releases/plan-processes.ts';
import { findVersion, openSnapshot, type ResolvedImage } from '../releases/releases.ts';
import { findLast, imageOf, trustedRelease, type Mover } from './mover.ts';
import { isGated, type StrategyRequest } from './strategy.ts';
import {
  deploymentColumns,
  toDeploymentView,
  type DeploymentEventView,
  type DeploymentView,
} from './view.ts';
import { readProcesses } from '../releases/stored-processes.ts';

export type { DeploymentEventView, DeploymentView };

/** What is left out, or null, stays. */
export interface ResizeRequest extends Pick<
  ProcessRequest,
  | 'cpuMillis'
  | 'cpuCapMillis'
  | 'memoryMiB'
  | 'pids'
  | 'ioBytesPerSecond'
  | 'ioOperationsPerSecond'
  | 'networkBytesPerSecond'
  | 'logBytesPerSecond'
> {
  readonly app: string;
  readonly process: string;
}

const resolvedImage = z.object({
  reference: z.string().min(1).max(1000),
  repository: z.string().min(1).max(500),
  digest: sha256Digest,
  size: z.int().min(0),
  config: imageConfig,
});

const description = z.string().trim().max(500);
const maxEvents = 200;

const byTime = new Keyset('deployments', cursorKey.date, cursorKey.uuid);

/**
 * Every move of an app of the bound tenant. Each mutation locks the app's row, makes one deployment
 * (one still running becomes `superseded`), reserves quota for all that will be wanted
 * (QUOTA_EXCEEDED says resource, used, limit, wanted), writes the outbox row {kind: 'app', key: app
 * id} and the audit entry, all in the door's transaction. CONFLICT while the app is being
 * destroyed, and, but for `deploy`, before its first release.
 */
export class Deployments {
  readonly #context: TenantContext;
  readonly #mover: Mover;

  constructor(context: TenantContext, mover: Mover) {
    this.#context = context;
    this.#mover = mover;
  }

  /** Newest first. */
  async list(appId: string, args: PageArgs): Promise<Page<DeploymentView>> {
    const { db, tenant } = this.#context;
    const { take, after } = byTime.start(args);
    const where = { appId, tenantId: tenant.id };
    const rows = await db.deployment.findMany({
      where: {
        ...where,
        ...(after && {
          OR: [{ createdAt: { lt: after[0] } }, { createdAt: after[0], id: { lt: after[1] } }],
        }),
      },
      select: deploymentColumns,
      orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
      take,
    });
    const emails = await emailsOf(
      db,
      rows.map((row) => row.createdById),
    );
    return byTime.page(args, {
      rows,
      totalCount: await db.deployment.count({ where }),
      key: (row) => [row.createdAt, row.id],
      view: (row) => toDeploymentView(row, emails),
    });
  }

  async get(id: string): Promise<DeploymentView> {
    const { db, tenant } = this.#context;
    const row = isUuid(id)
      ? await db.deployment.findFirst({
          where: { id, tenantId: tenant.id },
          select: deploymentColumns,
        })
      : null;
    if (!row) throw notFound('deployment');
    return toDeploymentView(row, await emailsOf(db, [row.createdById]));
  }

  /** The newest of each app, by app id. */
  async latest(appIds: readonly string[]): Promise<ReadonlyMap<string, DeploymentView>> {
    const { db, tenant } = this.#context;
    const newest = await db.$queryRaw<{ id: string }[]>`
      SELECT DISTINCT ON ("appId") "id" FROM "Deployment"
      WHERE "tenantId" = ${tenant.id}::uuid AND "appId" = ANY(${appIds.filter(isUuid)}::uuid[])
      ORDER BY "appId", "createdAt" DESC, "id" DESC`;
    const rows = await db.deployment.findMany({
      where: { id: { in: newest.map(({ id }) => id) } },
      select: deploymentColumns,
    });
    const emails = await emailsOf(
      db,
      rows.map((row) => row.createdById),
    );
    return new Map(rows.map((row) => [row.appId, toDeploymentView(row, emails)]));
  }

  /** Oldest first, the last 200. */
  async events(deploymentId: string): Promise<readonly DeploymentEventView[]> {
    const { db, tenant } = this.#context;
    if (!isUuid(deploymentId)) return [];
    const rows = await db.deploymentEvent.findMany({
      where: { deploymentId, tenantId: tenant.id },
      orderBy: { id: 'desc' },
      take: maxEvents,
    });
    return rows.reverse().map(({ id, at, message }) => ({ id: String(id), at, message }));
  }

  /** Makes the next release of an image already resolved to its digest. Starts a stopped app. */
  async deploy(input: {
    app: string;
    image: ResolvedImage;
    processes?: readonly ProcessRequest[] | null;
    description?: string | null;
    strategy?: StrategyRequest | null;
  }): Promise<DeploymentView> {
    this.#context.require('app.deploy');
    const image = parse(resolvedImage, input.image, 'image');
    const text =
      parse(description, input.description ?? '', 'description') || `Deploy ${image.reference}`;
    const app = await this.#lock(input.app);
    const current = await this.#currentRelease(app);
    const { processes, counts } = planProcesses({
      requested: input.processes ?? null,
      previous: current ? processesOf(current) : [],
      image: image.config,
    });
    await requirePools(this.#context.db, this.#context.tenant.id, processes);
    const to = await this.#mover.createRelease(app, {
      image: {
        imageReference: image.reference,
        imageRepository: image.repository,
        imageDigest: image.digest,
        imageSize: BigInt(image.size),
        imageConfig: image.config,
      },
      processes,
      config: await readConfig(this.#context, app.id),
      description: text,
    });
    await this.#context.audit.write('app.deploy', app.name, {
      version: to.version,
      image: image.reference,
      digest: image.digest,
    });
    const event = `v${to.version}: ${text}`;
    return this.#mover.move(app, {
      ...{ kind: 'deploy', to, state: 'active', counts, event },
      pace: 'default',
      strategy: input.strategy ?? null,
    });
  }

  /** Counts 0 to 1000 each. INVALID for a process that the current release has not, naming those it has. */
  async scale(input: {
    app: string;
    formation: readonly { process: string; count: number }[];
  }): Promise<DeploymentView> {
    this.#context.require('app.scale');
    const app = await this.#lock(input.app);
    const to = await this.#requireRelease(app);
    const known = processesOf(to).map(({ name }) => name);
    if (input.formation.length === 0) {
      throw invalid(`formation: give a count for at least one of ${known.join(', ')}`);
    }
    const counts = new Map<string, number>();
    for (const { process, count } of input.formation) {
      if (!known.includes(process)) {
        throw invalid(`app ${app.name} has no process ${process}; it has ${known.join(', ')}`, {
          process,
          known,
        });
      }
      if (counts.has(process)) throw invalid(`process ${process} is given twice`, { process });
      counts.set(process, checkCount(process, count));
    }
    const text = [...counts].map(([process, count]) => `${process}=${count}`).join(' ');
    await this.#context.audit.write('app.scale', app.name, Object.fromEntries(counts));
    const event = `Scale to ${text}`;
    return this.#mover.move(app, {
      kind: 'scale',
      to,
      state: app.state,
      counts,
      pace: 'same',
      event,
    });
  }

  /**
   * Other sizes for one process, by a release that differs from the current one in nothing else:
   * its instances get them where they run, and are replaced where their node has no room. INVALID
   * when nothing changes. The size of the writable layer is not among them: it takes a deploy.
   */
  async resize(input: ResizeRequest): Promise<DeploymentView> {
    this.#context.require('app.scale');
    const app = await this.#lock(input.app);
    const current = await this.#requireRelease(app);
    const previous = processesOf(current);
    const { app: _, process: name, ...sizes } = input;
    const known = previous.map((each) => each.name);
    if (!known.includes(name)) {
      throw invalid(`app ${app.name} has no process ${name}; it has ${known.join(', ')}`, {
        process: name,
        known,
      });
    }
    const { processes } = planProcesses({
      requested: previous.map((each) =>
        each.name === name ? { name, ...sizes } : { name: each.name },
      ),
      previous,
      image: current.imageConfig as unknown as ImageConfig,
    });
    if (JSON.stringify(processes) === JSON.stringify(previous)) {
      throw invalid(`process ${name} has these sizes already`, { process: name });
    }
    await requirePools(
      this.#context.db,
      this.#context.tenant.id,
      processes.filter((each) => each.name === name),
    );
    const changed = Object.entries(sizes).filter(([, size]) => size != null);
    const text = `Resize ${name}: ${changed.map(([key, size]) => `${key}=${size}`).join(' ')}`;
    const to = await this.#mover.createRelease(app, {
      image: { ...imageOf(current), imageConfig: current.imageConfig as unknown as ImageConfig },
      processes,
      // Of the release, not of the app: nothing but sizes may differ.
      config: new Map(Object.entries(await openSnapshot(this.#context.cipher, current))),
      description: text,
      familyId: current.familyId ?? current.id,
    });
    await this.#context.audit.write('app.scale', app.name, {
      process: name,
      ...Object.fromEntries(changed),
    });
    const event = `v${to.version}: ${text}`;
    return this.#mover.move(app, { kind: 'resize', to, state: app.state, pace: 'same', event });
  }

  /** Replaces every instance, as a rollout. CONFLICT when stopped. */
  async restart(name: string, strategy: StrategyRequest | null = null): Promise<DeploymentView> {
    this.#context.require('app.restart');
    const app = await this.#lock(name);
    const to = await this.#requireRelease(app);
    if (app.state === 'stopped') throw conflict(`app ${name} is stopped; start it instead`);
    await this.#context.audit.write('app.restart', app.name);
    return this.#mover.move(app, {
      kind: 'restart',
      to,
      state: app.state,
      replace: true,
      ...{ pace: 'same', strategy },
      event: 'Restart every instance',
    });
  }

  /**
   * A new release with image, processes and config of an old one; its config becomes the app's.
   * Without a version: the one before the current, and while a deployment runs the one that it
   * would go back to. Starts a stopped app.
   */
  async rollback(input: {
    app: string;
    version?: number | null;
    strategy?: StrategyRequest | null;
  }): Promise<DeploymentView> {
    this.#context.require('app.rollback');
    const app = await this.#lock(input.app);
    const current = await this.#requireRelease(app);
    const target = await this.#rollbackTarget(app, current, input.version ?? null);
    await requirePools(this.#context.db, this.#context.tenant.id, processesOf(target));
    const snapshot = await openSnapshot(this.#context.cipher, target);
    const config = new Map(Object.entries(snapshot));
    await writeConfig(this.#context, app.id, config);
    await this.#context.audit.write('app.rollback', app.name, { version: target.version });
    return this.#mover.releaseAgain(app, target.id, config, {
      ...{ kind: 'rollback', pace: 'once', strategy: input.strategy ?? null },
      description: `Roll back to v${target.version}`,
      state: 'active',
    });
  }

  /** Counts are kept for the next start. A release that was not let through yet is given up. */
  async stop(name: string): Promise<DeploymentView> {
    this.#context.require('app.stop');
    return this.#setState(name, { kind: 'stop', state: 'stopped', event: 'Stop every instance' });
  }

  async start(name: string): Promise<DeploymentView> {
    this.#context.require('app.start');
    return this.#setState(name, { kind: 'start', state: 'active', event: 'Start' });
  }

  async #setState(
    name: string,
    move: { kind: 'stop' | 'start'; state: 'active' | 'stopped'; event: string },
  ): Promise<DeploymentView> {
    const app = await this.#lock(name);
    const current = await this.#requireRelease(app);
    const trusted = move.kind === 'stop' ? await this.#trustedInstead(app) : null;
    const left = trusted ? `; v${current.version} was not promoted` : '';
    await this.#context.audit.write(`app.${move.kind}`, app.name);
    return this.#mover.move(app, {
      ...{ ...move, event: `${move.event}${left}` },
      to: trusted ?? current,
      pace: move.kind === 'stop' ? 'once' : 'same',
    });
  }

  /** What a deployment that stands before a gate would go back to; null without one. */
  async #trustedInstead(app: AppView): Promise<Release | null> {
    const { db } = this.#context;
    const last = await findLast(db, app.id);
    const gated = last?.status === 'running' && isGated(last);
    const trusted = gated ? trustedRelease(app, last) : null;
    if (trusted === null || trusted === app.currentReleaseId) return null;
    return db.release.findUniqueOrThrow({ where: { id: trusted } });
  }

  #lock(name: string): Promise<AppView> {
    return lockLivingApp(this.#context.db, this.#context.tenant.id, name);
  }

  async #currentRelease(app: AppView): Promise<Release | null> {
    if (app.currentReleaseId === null) return null;
    return this.#context.db.release.findUnique({ where: { id: app.currentReleaseId } });
  }

  async #requireRelease(app: AppView): Promise<Release> {
    const release = await this.#currentRelease(app);
    if (!release) throw conflict(`app ${app.name} has no release yet; deploy an image first`);
    return release;
  }

  async #rollbackTarget(app: AppView, current: Release, version: number | null): Promise<Release> {
    const { db, tenant } = this.#context;
    if (version === null) {
      const trusted = trustedRelease(app, await findLast(db, app.id));
      if (trusted !== null && trusted !== current.id)
        return db.release.findUniqueOrThrow({ where: { id: trusted } });
      const before = await db.release.findFirst({
        where: { appId: app.id, tenantId: tenant.id, version: { lt: current.version } },
        orderBy: { version: 'desc' },
      });
      if (!before)
        throw conflict(`v${current.version} is the first release: nothing to go back to`);
      return before;
    }
    if (version === current.version) throw conflict(`v${version} is the current release`);
    const target = z.int32().safeParse(version).success
      ? await findVersion(db, tenant.id, app.id, version)
      : null;
    if (!target) throw notFound(`release v${version} of ${app.name}`);
    return target;
  }
}

function processesOf(release: Release): readonly ProcessDefinition[] {
  return readProcesses(release.processes);
}
