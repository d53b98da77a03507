import {
  conflict,
  type ImageConfig,
  type ProcessDefinition,
  type RolloutStrategy,
} from '@bulkhead/protocol';
import type { AppView } from '../apps/view.ts';
import type { Db, TenantContext } from '../db/context.ts';
import type { Prisma, Release } from '../generated/client.ts';
import type { AppState, DeploymentKind, DeploymentStatus } from '../generated/enums.ts';
import { readProcessEntries, reserve } from '../quota/ledger.ts';
import { maxAmounts, wantedAmounts } from '../quota/process-amounts.ts';
import { deploymentColumns, toDeploymentView, type DeploymentView } from './view.ts';
import { readProcesses } from '../releases/stored-processes.ts';
import {
  isGated,
  isPromoted,
  readStrategy,
  resolveStrategy,
  withoutGates,
  type StrategyRequest,
} from './strategy.ts';

export interface Move {
  readonly kind: DeploymentKind;
  readonly to: Release;
  readonly state: AppState;
  /** New counts; processes without one keep theirs, and new processes start with 1. */
  readonly counts?: ReadonlyMap<string, number>;
  /** Replace instances of the current release too. */
  readonly replace?: boolean;
  /**
   * How it goes. `default`: as asked for or as the app had it last, and that is remembered. `once`:
   * as asked for, else without gates. `same`: it joins a deployment that stands before a gate, and
   * without one is as `once`.
   */
  readonly pace: 'default' | 'once' | 'same';
  readonly strategy?: StrategyRequest | null;
  /** The deployment's first event. */
  readonly event: string;
}

interface LastDeployment {
  readonly id: string;
  readonly status: DeploymentStatus;
  readonly createdAt: Date;
  readonly fromReleaseId: string | null;
  readonly toReleaseId: string | null;
  readonly strategy: unknown;
  readonly step: number;
}

/** What every change of what an app runs has in common. The app's row is locked by the caller. */
export class Mover {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /** Makes the next release; versions have no gaps because the app is locked. */
  async createRelease(
    app: AppView,
    values: {
      image: Pick<Release, 'imageReference' | 'imageRepository' | 'imageDigest' | 'imageSize'> & {
        imageConfig: ImageConfig;
      };
      processes: readonly ProcessDefinition[];
      config: ReadonlyMap<string, string>;
      description: string;
      /** Of a release that differs from another in nothing but sizes. */
      familyId?: string;
    },
  ): Promise<Release> {
    const { db, tenant, caller, cipher, now } = this.#context;
    const last = await db.release.aggregate({
      where: { appId: app.id },
      _max: { version: true },
    });
    const snapshot = JSON.stringify(Object.fromEntries(values.config));
    return db.release.create({
      data: {
        ...values.image,
        tenantId: tenant.id,
        appId: app.id,
        version: (last._max.version ?? 0) + 1,
        imageConfig: values.image.imageConfig as unknown as Prisma.InputJsonObject,
        configCiphertext: await cipher.seal(snapshot, app.id),
        processes: values.processes as unknown as Prisma.InputJsonArray,
        description: values.description,
        familyId: values.familyId ?? null,
        createdById: caller.userId,
        createdAt: now,
      },
    });
  }

  /** Makes the next release of the image and processes of an earlier one, and moves to it. */
  async releaseAgain(
    app: AppView,
    releaseId: string,
    config: ReadonlyMap<string, string>,
    move: Pick<Move, 'kind' | 'pace' | 'strategy'> & { description: string; state?: AppState },
  ): Promise<DeploymentView> {
    const old = await this.#context.db.release.findUniqueOrThrow({ where: { id: releaseId } });
    const to = await this.createRelease(app, {
      image: { ...imageOf(old), imageConfig: old.imageConfig as unknown as ImageConfig },
      processes: readProcesses(old.processes),
      config,
      description: move.description,
    });
    return this.move(app, {
      ...{ kind: move.kind, pace: move.pace, strategy: move.strategy ?? null },
      to,
      state: move.state ?? app.state,
      event: `v${to.version}: ${move.description}`,
    });
  }

  /** Points the app at what is wanted, reserves it, and leaves a note for the controllers. */
  async move(app: AppView, move: Move): Promise<DeploymentView> {
    const { db, tenant, caller, now } = this.#context;
    const tenantId = tenant.id;
    const processes = readProcesses(move.to.processes);
    const last = await findLast(db, app.id);
    const running = last?.status === 'running' ? last : null;
    // `now` was read before the app was locked, where another move may have been first.
    const at = new Date(Math.max(now.getTime(), (last?.createdAt.getTime() ?? 0) + 1));
    const joined = move.pace === 'same' && running && isGated(running) ? running : null;
    if (joined && move.strategy) {
      throw conflict(
        `a deployment of ${app.name} stands before a gate and keeps its own strategy; promote or abort it first`,
      );
    }
    const fromReleaseId = joined ? joined.fromReleaseId : trustedRelease(app, last);
    const strategy = await this.#strategyOf(app, move, joined, fromReleaseId);
    if (running) {
      await db.deployment.update({
        where: { id: running.id },
        data: { status: 'superseded', finishedAt: at },
      });
    }
    const counts = await this.#setCounts(app.id, processes, move.counts ?? new Map());
    const { epoch } = await db.app.update({
      where: { id: app.id },
      data: {
        currentReleaseId: move.to.id,
        state: move.state,
        ...(move.replace && { epoch: { increment: 1 } }),
      },
      select: { epoch: true },
    });
    await this.#reserve(
      { id: app.id, state: move.state, processes, counts },
      strategy,
      fromReleaseId,
    );
    const graces = processes.map(({ health }) => health?.startupGraceSeconds ?? 0);
    // Beside the longest grace that its health checks give to a start.
    const deadline = strategy.progressSeconds + Math.max(0, ...graces);
    const deployment = await db.deployment.create({
      data: {
        tenantId,
        appId: app.id,
        kind: move.kind,
        fromReleaseId,
        toReleaseId: move.to.id,
        epoch,
        strategy,
        step: joined?.step ?? 0,
        progressAt: at,
        deadlineAt: new Date(at.getTime() + deadline * 1000),
        createdById: caller.userId,
        createdAt: at,
        events: { create: { tenantId, at, message: move.event } },
      },
      select: deploymentColumns,
    });
    await db.outbox.createMany({ data: [{ kind: 'app', key: app.id }] });
    return toDeploymentView(deployment, new Map([[caller.userId, caller.email]]));
  }

  /** How it goes; gates need something to go back to that serves. */
  async #strategyOf(
    app: AppView,
    move: Move,
    joined: LastDeployment | null,
    fromReleaseId: string | null,
  ): Promise<RolloutStrategy> {
    const { db } = this.#context;
    const joins = readStrategy(joined?.strategy);
    if (joins) return joins;
    const { strategy: stored } = await db.app.findUniqueOrThrow({
      where: { id: app.id },
      select: { strategy: true },
    });
    const remembered = readStrategy(stored);
    const base = move.pace === 'default' ? remembered : withoutGates(remembered);
    const strategy = resolveStrategy(move.strategy ?? {}, base);
    if (move.pace === 'default' && move.strategy) {
      await db.app.update({ where: { id: app.id }, data: { strategy } });
    }
    const serves = app.state === 'active' && move.state === 'active' && fromReleaseId !== null;
    return serves ? strategy : withoutGates(strategy);
  }

  /** Counts of processes that the release has not are kept: they come back with the process. */
  async #setCounts(
    appId: string,
    processes: readonly ProcessDefinition[],
    wanted: ReadonlyMap<string, number>,
  ): Promise<ReadonlyMap<string, number>> {
    const { db, tenant } = this.#context;
    const rows = await db.formation.findMany({ where: { appId, tenantId: tenant.id } });
    const counts = new Map(rows.map(({ process, count }) => [process, count]));
    for (const { name: process } of processes) {
      const before = counts.get(process);
      const count = wanted.get(process) ?? before ?? 1;
      if (count === before) continue;
      counts.set(process, count);
      await db.formation.upsert({
        where: { appId_process: { appId, process } },
        create: { appId, tenantId: tenant.id, process, count },
        update: { count },
      });
    }
    return counts;
  }

  /**
   * What is wanted, or what is still held for instances that have to go first, whichever is more.
   * The controllers lower it (`quota.settle`) once those are proven gone.
   */
  async #reserve(
    app: Parameters<typeof wantedAmounts>[0],
    strategy: RolloutStrategy,
    fromReleaseId: string | null,
  ): Promise<void> {
    const { db, tenant } = this.#context;
    const wanted = wantedAmounts(app, strategy);
    if (wanted.size === 0) return;
    const held = new Map(await readProcessEntries(db, tenant.id, app.id));
    if (strategy.kind !== 'rolling' && fromReleaseId !== null) {
      // Both sets may stand side by side for as long as somebody likes, in either size.
      const from = await db.release.findUniqueOrThrow({ where: { id: fromReleaseId } });
      const both = wantedAmounts({ ...app, processes: readProcesses(from.processes) }, strategy);
      for (const [subject, amounts] of both) {
        held.set(subject, maxAmounts(amounts, held.get(subject)));
        if (!wanted.has(subject)) wanted.set(subject, amounts);
      }
    }
    await reserve(
      db,
      tenant.id,
      [...wanted].map(([subject, amounts]) => ({
        subject,
        amounts: maxAmounts(amounts, held.get(subject)),
      })),
    );
  }
}

/** The newest deployment of an app, whatever became of it. */
export function findLast(db: Db, appId: string): Promise<LastDeployment | null> {
  return db.deployment.findFirst({
    where: { appId },
    orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
    select: {
      ...{ id: true, status: true, createdAt: true, fromReleaseId: true, toReleaseId: true },
      ...{ strategy: true, step: true },
    },
  });
}

/**
 * What the next deployment goes back to. A release that is still on trial is nothing to go back
 * to, nor is a first one that failed.
 */
export function trustedRelease(app: AppView, last: LastDeployment | null): string | null {
  if (last?.status === 'running') return isPromoted(last) ? last.toReleaseId : last.fromReleaseId;
  return last?.status === 'failed' && last.fromReleaseId === null ? null : app.currentReleaseId;
}

export function imageOf(release: Release) {
  const { imageReference, imageRepository, imageDigest, imageSize } = release;
  return { imageReference, imageRepository, imageDigest, imageSize };
}
