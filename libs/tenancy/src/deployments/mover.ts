import type { ImageConfig, ProcessDefinition } from '@bulkhead/protocol';
import type { AppView } from '../apps/view.ts';
import type { TenantContext } from '../db/context.ts';
import type { Prisma, Release } from '../generated/client.ts';
import type { AppState, DeploymentKind } from '../generated/enums.ts';
import { readProcessEntries, reserve } from '../quota/ledger.ts';
import { maxAmounts, wantedAmounts } from '../quota/process-amounts.ts';
import { deploymentColumns, toDeploymentView, type DeploymentView } from './view.ts';
import { readProcesses } from '../releases/stored-processes.ts';

/**
 * How long a deployment may take before the controllers call it failed, beside the longest grace
 * that its health checks give to a start: pulls, placement and every step of the rollout.
 */
const rolloutSeconds = 300;

export interface Move {
  readonly kind: DeploymentKind;
  readonly to: Release;
  readonly state: AppState;
  /** New counts; processes without one keep theirs, and new processes start with 1. */
  readonly counts?: ReadonlyMap<string, number>;
  /** Replace instances of the current release too. */
  readonly replace?: boolean;
  /** The deployment's first event. */
  readonly event: string;
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
    move: { kind: DeploymentKind; description: string; state?: AppState },
  ): Promise<DeploymentView> {
    const old = await this.#context.db.release.findUniqueOrThrow({ where: { id: releaseId } });
    const to = await this.createRelease(app, {
      image: { ...imageOf(old), imageConfig: old.imageConfig as unknown as ImageConfig },
      processes: readProcesses(old.processes),
      config,
      description: move.description,
    });
    return this.move(app, {
      kind: move.kind,
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
    const last = await db.deployment.findFirst({
      where: { appId: app.id },
      orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
      select: { id: true, fromReleaseId: true, status: true, createdAt: true },
    });
    const running = last?.status === 'running' ? last : null;
    // `now` was read before the app was locked, where another move may have been first.
    const at = new Date(Math.max(now.getTime(), (last?.createdAt.getTime() ?? 0) + 1));
    // A release that was still on trial is nothing to go back to.
    const fromReleaseId = running ? running.fromReleaseId : app.currentReleaseId;
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
    await this.#reserve({ id: app.id, state: move.state, processes, counts });
    const graces = processes.map(({ health }) => health?.startupGraceSeconds ?? 0);
    const deadline = rolloutSeconds + Math.max(0, ...graces);
    const deployment = await db.deployment.create({
      data: {
        tenantId,
        appId: app.id,
        kind: move.kind,
        fromReleaseId,
        toReleaseId: move.to.id,
        epoch,
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
  async #reserve(app: Parameters<typeof wantedAmounts>[0]): Promise<void> {
    const { db, tenant } = this.#context;
    const wanted = wantedAmounts(app);
    if (wanted.size === 0) return;
    const held = await readProcessEntries(db, tenant.id, app.id);
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

export function imageOf(release: Release) {
  const { imageReference, imageRepository, imageDigest, imageSize } = release;
  return { imageReference, imageRepository, imageDigest, imageSize };
}
