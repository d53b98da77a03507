import { randomInt } from 'node:crypto';
import { assertNever, processPriorities } from '@bulkhead/protocol';
import type { PlatformTx } from '@bulkhead/tenancy';
import { applyResizes } from './apply-resizes.ts';
import type { AppSnapshot } from './app-snapshot.ts';
import type { Step } from './plan-rollout.ts';

/** What the rest of the control plane should look at after the commit. */
export interface Effects {
  /** Instances that need a node were made. */
  placement: boolean;
  /** Outbox rows were written. */
  publish: boolean;
  /** The app is no more. */
  finished: boolean;
}

const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789';

/** "i" and 12 characters: 62 random bits, unique as a host name and as a key. */
export function newInstanceId(): string {
  return `i${Array.from({ length: 12 }, () => alphabet[randomInt(alphabet.length)]).join('')}`;
}

/**
 * Carries out a plan in the transaction that made it, under the app's lock: decides nothing. What
 * has to reach a node or an edge becomes an outbox row of the same transaction.
 */
export async function applyRollout(
  tx: PlatformTx,
  app: AppSnapshot,
  steps: readonly Step[],
): Promise<Effects> {
  const effects: Effects = { placement: false, publish: false, finished: false };
  let settle = false;
  for (const step of steps) {
    switch (step.do) {
      case 'create':
      case 'tell':
      case 'drain':
      case 'hold':
      case 'freeze':
      case 'thaw':
      case 'resize':
      case 'remove':
      case 'forget':
        break;
      case 'route':
        await tx.prisma.route.upsert({
          where: { host: step.host },
          create: { tenantId: app.tenantId, appId: app.id, ...routeColumns(step), host: step.host },
          update: { deleted: false, ...routeColumns(step) },
        });
        await tx.outbox.add('route', step.host);
        effects.publish = true;
        break;
      case 'unroute':
        await tx.prisma.route.update({ where: { host: step.host }, data: { deleted: true } });
        await tx.outbox.add('route', step.host);
        effects.publish = true;
        break;
      case 'ask-edges':
        await tx.outbox.add('route', step.host);
        effects.publish = true;
        break;
      case 'reach':
      case 'advance':
      case 'progress':
      case 'succeed':
      case 'fail':
        break;
      case 'finish':
        await tx.apps.finishDestroy(app.id);
        effects.finished = true;
        return effects;
      default:
        assertNever(step);
    }
  }
  effects.placement = await create(tx, app, only(steps, 'create'));
  await drain(tx, app, only(steps, 'drain'));
  await hold(tx, app, only(steps, 'hold'));
  if (await setFrozen(tx, app, only(steps, 'freeze'), true)) effects.publish = true;
  if (await setFrozen(tx, app, only(steps, 'thaw'), false)) effects.publish = true;
  if (await applyResizes(tx, app, only(steps, 'resize'))) effects.publish = true;
  if (await remove(tx, app, only(steps, 'remove'))) effects.publish = true;
  if (await forget(tx, app, only(steps, 'forget'))) settle = true;
  await tell(tx, app, only(steps, 'tell'));
  for (const step of steps) await moveDeployment(tx, app, step);
  // Last: they end the deployment that the rows above belong to.
  for (const step of only(steps, 'succeed')) {
    await tx.deployments.succeed(step.deployment);
    settle = true;
  }
  for (const step of only(steps, 'fail')) {
    await tx.deployments.fail(step.deployment, step.failure);
    settle = true;
  }
  if (settle) await tx.quota.settle(app.id);
  return effects;
}

type StepOf<K extends Step['do']> = Extract<Step, { do: K }>;

function only<K extends Step['do']>(steps: readonly Step[], kind: K): StepOf<K>[] {
  return steps.filter((step): step is StepOf<K> => step.do === kind);
}

function routeColumns(step: StepOf<'route'>) {
  return {
    state: step.state,
    revision: BigInt(step.revision),
    backends: step.backends.map((backend) => ({ ...backend })),
  };
}

async function create(tx: PlatformTx, app: AppSnapshot, steps: StepOf<'create'>[]) {
  const moves = app.instances.filter(({ moveTo }) => moveTo !== null);
  const rows = steps.flatMap((step) => {
    const release = [app.release, app.from].find((each) => each?.id === step.release);
    const definition = release?.processes.find(({ name }) => name === step.process);
    if (!release || !definition) return [];
    const { cpuMillis, memoryMiB, diskMiB } = definition.resources;
    const priority = processPriorities.indexOf(definition.priority);
    const moved = moves.findIndex(({ process }) => process === step.process);
    const [replaced] = moved < 0 ? [] : moves.splice(moved, 1);
    return {
      id: step.instance,
      tenantId: app.tenantId,
      appId: app.id,
      releaseId: release.id,
      deploymentId: step.deployment,
      process: step.process,
      epoch: step.epoch,
      cpuMillis,
      memoryMiB,
      diskMiB,
      priority,
      ...(replaced && { claimNodeId: replaced.moveTo, claimedAt: new Date(app.now) }),
    };
  });
  if (rows.length === 0) return false;
  await tx.prisma.instance.createMany({ data: rows });
  return true;
}

async function moveDeployment(tx: PlatformTx, app: AppSnapshot, step: Step): Promise<void> {
  const now = new Date(app.now);
  switch (step.do) {
    case 'reach':
      return tx.deployments.reach(step.deployment, now);
    case 'advance':
      return tx.deployments.advance(step.deployment, step.step, now);
    case 'progress':
      return tx.deployments.noteProgress(step.deployment, step.progress, now);
    default:
  }
}

async function drain(tx: PlatformTx, app: AppSnapshot, steps: StepOf<'drain'>[]): Promise<void> {
  const revision = steps[0]?.revision;
  if (revision === undefined) return;
  // One plan has one route, so all that leave it leave it with the same revision.
  await tx.prisma.instance.updateMany({
    where: { id: { in: steps.map(({ instance }) => instance) } },
    data: {
      desired: 'draining',
      drainRevision: BigInt(revision),
      drainStartedAt: new Date(app.now),
    },
  });
}

async function hold(tx: PlatformTx, app: AppSnapshot, steps: StepOf<'hold'>[]): Promise<void> {
  const revision = steps[0]?.revision;
  if (revision === undefined) return;
  await tx.prisma.instance.updateMany({
    where: { id: { in: steps.map(({ instance }) => instance) } },
    data: { drainRevision: BigInt(revision), drainStartedAt: new Date(app.now) },
  });
}

async function setFrozen(
  tx: PlatformTx,
  app: AppSnapshot,
  steps: (StepOf<'freeze'> | StepOf<'thaw'>)[],
  frozen: boolean,
): Promise<boolean> {
  if (steps.length === 0) return false;
  const ids = steps.map(({ instance }) => instance);
  await tx.prisma.instance.updateMany({
    where: { id: { in: ids } },
    data: {
      frozen,
      generation: { increment: 1 },
      ...(!frozen && { drainRevision: null, drainStartedAt: null }),
    },
  });
  await tx.outbox.add('instance', keysOf(app.instances, ids));
  return true;
}

async function remove(tx: PlatformTx, app: AppSnapshot, steps: StepOf<'remove'>[]) {
  if (steps.length === 0) return false;
  const ids = steps.map(({ instance }) => instance);
  await tx.prisma.instance.updateMany({
    where: { id: { in: ids } },
    data: { desired: 'gone', generation: { increment: 1 } },
  });
  await tx.outbox.add('instance', keysOf([...app.instances, ...app.tasks], ids));
  return true;
}

/** Keys of those that have a node. */
function keysOf(
  instances: readonly { id: string; nodeId: string | null }[],
  ids: readonly string[],
): string[] {
  const wanted = new Set(ids);
  return instances
    .filter(({ id, nodeId }) => wanted.has(id) && nodeId !== null)
    .map(({ id, nodeId }) => `${nodeId}.${id}`);
}

async function forget(tx: PlatformTx, app: AppSnapshot, steps: StepOf<'forget'>[]) {
  if (steps.length === 0) return false;
  const now = new Date(app.now);
  await tx.prisma.instance.updateMany({
    where: { id: { in: steps.map(({ instance }) => instance) }, nodeId: null },
    data: { desired: 'gone', state: 'gone', stateAt: now, goneAt: now },
  });
  return true;
}

async function tell(tx: PlatformTx, app: AppSnapshot, steps: StepOf<'tell'>[]): Promise<void> {
  if (steps.length === 0) return;
  await tx.prisma.deploymentEvent.createMany({
    data: steps.map(({ deployment, message }) => ({
      tenantId: app.tenantId,
      deploymentId: deployment,
      message,
    })),
  });
}
