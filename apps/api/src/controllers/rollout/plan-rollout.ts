/**
 * What to do next for one app. `planRollout` looks at one snapshot and answers with steps that each
 * say why; it changes nothing and remembers nothing, so a restart of the API, a second replica and a
 * doubled message are all the same to it. An empty plan means that all is as wanted, or that
 * something else must happen first (a report, an edge's word, time).
 *
 * The life of an instance: made (pending) -> placed -> ready, in the route -> draining, out of the
 * route and waiting until every edge says so -> ordered gone -> proven gone by its agent.
 */
import type { DeploymentFailure } from '@bulkhead/protocol';
import { allEdgesApplied } from './app-snapshot.ts';
import type { AppSnapshot, DeploymentSnapshot, InstanceSnapshot } from './app-snapshot.ts';
import { isReady, planProcess } from './plan-process.ts';
import type { Leaving } from './plan-process.ts';
import { planRoute } from './plan-route.ts';
import type { RouteStep } from './plan-route.ts';
import { planStage, type StageStep } from './plan-stage.ts';
import { planTasks } from './plan-tasks.ts';
import { findFailure, hasSucceeded } from './plan-verdict.ts';
import { processesOf, roleOf, serves, stableEpoch, stageOf, targetsOf } from './stage.ts';
import { successLine, tellStory } from './tell-story.ts';
import {
  isCurrent,
  isResizable,
  routedProcess,
  runningDeployment,
  wantedProcesses,
} from './wanted.ts';
import type { WantedProcess } from './wanted.ts';

export type Step =
  /** Make an instance of the current release, or of the one that the deployment would go back to. */
  | {
      do: 'create';
      instance: string;
      process: string;
      release: string;
      epoch: number;
      deployment: string | null;
      why: string;
    }
  /** Take it out of the route; `revision` is the first route without it. */
  | { do: 'drain'; instance: string; revision: number; why: string }
  /** Order its node to remove it. */
  | { do: 'remove'; instance: string; why: string }
  /** Take it out of the route to hold it still; as `drain`, but it is to run on one day. */
  | { do: 'hold'; instance: string; revision: number; why: string }
  /** Tell its node to hold it still. */
  | { do: 'freeze'; instance: string; why: string }
  /** Let it run on. */
  | { do: 'thaw'; instance: string; why: string }
  /** Give it the sizes of the current release where it is, if its node has the room. */
  | { do: 'resize'; instance: string; deployment: string | null; why: string }
  /** It never reached a node: it is gone already. */
  | { do: 'forget'; instance: string; why: string }
  | RouteStep
  | StageStep
  /** Publish the route again, so that the edges say again what they serve by. */
  | { do: 'ask-edges'; host: string; why: string }
  /** The app is being destroyed and nobody is served any more: the route goes. */
  | { do: 'unroute'; host: string; why: string }
  | { do: 'tell'; deployment: string; message: string; why: string }
  | { do: 'succeed'; deployment: string; why: string }
  | { do: 'fail'; deployment: string; failure: DeploymentFailure; why: string }
  /** Nothing of the app is left: forget it. */
  | { do: 'finish'; why: string };

/** Longest wait for edges that live but do not answer, milliseconds. */
export const drainCapMs = 30_000;
/** An edge's word may be lost; after this long it is asked for again, milliseconds. */
const askAgainMs = 1_000;

/** @param newId gives a fresh instance id with each call; chance is an argument, as time is. */
export function planRollout(app: AppSnapshot, newId: () => string): Step[] {
  const deployment = app.state === 'deleting' ? null : runningDeployment(app);
  if (deployment) {
    const failure = findFailure(app, deployment);
    // Alone in its plan: what follows depends on the release that is current then.
    if (failure) return failSteps(app, deployment, failure);
  }
  const stage = stageOf(app);
  const processes = planProcesses(app, deployment, newId);
  const route = planRoute(app, new Set(processes.leaving.map(({ instance }) => instance.id)));
  const steps: Step[] = [
    ...processes.leaving.map((leaving) => leaveStep(app, leaving, route)),
    ...processes.creates,
    ...(route ? [route] : []),
    ...planOldHosts(app),
    ...planPauses(app, new Set(processes.leaving.map(({ instance }) => instance.id)), route),
    ...planDrained(app, deployment),
    ...planTasks(app),
    ...planResizes(app, deployment, processes.leaving),
    ...(deployment ? tell(deployment, tellStory(app, deployment)) : []),
  ];
  if (deployment) {
    const moved = planStage(app, deployment, stage, processes.settled && route === null);
    steps.push(...tell(deployment, moved.lines), ...moved.steps);
  }
  if (deployment && stage === null && hasSucceeded(app, route === null) && processes.settled) {
    const why = successLine(app, deployment);
    steps.push(...tell(deployment, [why]), { do: 'succeed', deployment: deployment.id, why });
  }
  if (app.state === 'deleting' && app.instances.length + app.tasks.length === 0)
    steps.push(...planFinish(app));
  return steps;
}

function planProcesses(
  app: AppSnapshot,
  deployment: DeploymentSnapshot | null,
  newId: () => string,
) {
  // Whoever ordered it away left it to us to take it out of the route.
  const leaving: Leaving[] = app.instances
    .filter(({ desired, drainRevision }) => desired === 'draining' && drainRevision === null)
    .map((instance) => ({ instance, why: 'it was ordered away' }));
  const creates: Step[] = [];
  const stage = stageOf(app);
  // While it is open whether the app goes back, what the new release dropped still runs.
  const keepDropped = deployment !== null && stage === null && !allReady(app, wantedProcesses(app));
  for (const process of processesOf(app, stage)) {
    const { name, count, definition } = process;
    if (definition === null && keepDropped) continue;
    const plan = planProcess({
      targets: targetsOf(app, stage, process),
      running: app.instances.filter((each) => each.process === name && each.desired === 'running'),
      leaving: app.instances.filter(
        (each) => each.process === name && each.desired !== 'running' && !each.nodeLost,
      ).length,
      roleOf: (instance) => roleOf(app, stage, instance),
      serves: (instance) => serves(app, stage, instance),
      vanished: app.vanished[name] ?? 0,
    });
    leaving.push(...plan.leave);
    const make = (what: { release: string | undefined; epoch: number }, number: number) => {
      for (let index = 0; index < number; index++) {
        creates.push({
          do: 'create',
          instance: newId(),
          process: name,
          release: what.release ?? '',
          epoch: what.epoch,
          deployment: deployment?.id ?? null,
          why: `${count} ${name} wanted`,
        });
      }
    };
    make({ release: app.from?.id, epoch: stableEpoch(app) }, plan.create.stable);
    make({ release: app.release?.id, epoch: app.epoch }, plan.create.new);
  }
  return { leaving, creates, settled: leaving.length === 0 && creates.length === 0 };
}

function allReady(app: AppSnapshot, wanted: readonly WantedProcess[]): boolean {
  return wanted.every(({ name, count }) => {
    const ready = app.instances.filter(
      (each) =>
        each.process === name &&
        each.desired === 'running' &&
        isReady(each) &&
        isCurrent(app, each),
    );
    return ready.length >= count;
  });
}

function leaveStep(app: AppSnapshot, { instance, why }: Leaving, route: RouteStep | null): Step {
  if (instance.nodeId === null) return { do: 'forget', instance: instance.id, why };
  const revision = firstWithout(app, instance, route);
  if (revision === null) return { do: 'remove', instance: instance.id, why };
  return { do: 'drain', instance: instance.id, revision, why };
}

/** The first revision of the route that is without an instance which leaves it; null when it cannot serve anybody. */
function firstWithout(
  app: AppSnapshot,
  instance: InstanceSnapshot,
  route: RouteStep | null,
): number | null {
  // Only what has been ready can have a request on it.
  if (instance.process !== routedProcess || instance.readyAt === null) return null;
  return route?.revision ?? app.routes.find(({ host }) => host === app.host)?.revision ?? null;
}

/** What is to be held still leaves the route first, and no request is sent to something frozen. */
function planPauses(
  app: AppSnapshot,
  leaving: ReadonlySet<string>,
  route: RouteStep | null,
): Step[] {
  return app.instances.flatMap((instance): Step[] => {
    const { id, paused, frozen, drainRevision } = instance;
    if (instance.desired !== 'running' || leaving.has(id)) return [];
    if (!paused) {
      if (!frozen && drainRevision === null) return [];
      return [{ do: 'thaw', instance: id, why: 'somebody resumed it' }];
    }
    if (frozen) return [];
    if (drainRevision !== null) {
      const why = drained(app, instance);
      return why === null ? [] : [{ do: 'freeze', instance: id, why }];
    }
    const revision = firstWithout(app, instance, route);
    if (revision === null) return [{ do: 'freeze', instance: id, why: 'it serves nobody' }];
    return [{ do: 'hold', instance: id, revision, why: 'somebody paused it' }];
  });
}

function planResizes(
  app: AppSnapshot,
  deployment: DeploymentSnapshot | null,
  leaving: readonly Leaving[],
): Step[] {
  return app.instances
    .filter((each) => isResizable(app, each) && !leaving.some(({ instance }) => instance === each))
    .map(({ id }) => ({
      do: 'resize',
      instance: id,
      deployment: deployment?.id ?? null,
      why: 'only its sizes are not those of the current release',
    }));
}

/** A name the app had under another platform domain must not go on leading to its instances. */
function planOldHosts(app: AppSnapshot): Step[] {
  return app.routes
    .filter(({ host, deleted }) => host !== app.host && !deleted)
    .map(({ host }) => ({ do: 'unroute', host, why: `the app is at ${app.host} now` }));
}

/** Instances that are out of the route: which of them may end now. */
function planDrained(app: AppSnapshot, deployment: DeploymentSnapshot | null): Step[] {
  const steps: Step[] = [];
  let waited = 0;
  for (const instance of app.instances) {
    if (!leavesRoute(instance)) continue;
    const why = drained(app, instance);
    if (why === null) {
      waited = Math.max(waited, app.now - (instance.drainStartedAt ?? app.now));
      continue;
    }
    if (instance.desired !== 'draining') continue;
    steps.push({ do: 'remove', instance: instance.id, why });
    const line = `instance ${instance.id} of v${instance.version} is drained`;
    if (deployment && !deployment.said.includes(line)) steps.push(...tell(deployment, [line]));
  }
  const route = app.routes.find(({ host }) => host === app.host);
  if (waited >= askAgainMs && route && app.edges.applied.length > 0) {
    steps.push({ do: 'ask-edges', host: app.host, why: 'an edge has not said that it applied it' });
  }
  return steps;
}

const leavesRoute = ({ desired, paused, frozen, drainRevision }: InstanceSnapshot) =>
  desired === 'draining'
    ? drainRevision !== null
    : desired === 'running' && paused && !frozen && drainRevision !== null;

/** Why a draining instance need not be waited for any longer, or null. */
function drained(app: AppSnapshot, instance: InstanceSnapshot): string | null {
  if (instance.drainRevision === null || instance.drainStartedAt === null) return 'it had no route';
  if (allEdgesApplied(app.edges, instance.drainRevision)) {
    return app.edges.applied.length === 0 ? 'no edge is alive' : 'every edge serves without it';
  }
  if (app.now - instance.drainStartedAt >= drainCapMs) {
    return `an edge has not answered for ${drainCapMs / 1000} s`;
  }
  return null;
}

/** The store that ends a failed deployment adds why, and where the app goes back to. */
function failSteps(
  app: AppSnapshot,
  deployment: DeploymentSnapshot,
  failure: DeploymentFailure,
): Step[] {
  return [
    ...tell(deployment, tellStory(app, deployment)),
    { do: 'fail', deployment: deployment.id, failure, why: failure.message },
  ];
}

function planFinish(app: AppSnapshot): Step[] {
  if (app.routes.length === 0) return [{ do: 'finish', why: 'nothing of it is left' }];
  return app.routes
    .filter(({ host, deleted }) => host === app.host && !deleted)
    .map(({ host }) => ({ do: 'unroute', host, why: 'every instance is gone' }));
}

function tell(deployment: DeploymentSnapshot, messages: readonly string[]): Step[] {
  return messages.map((message) => ({
    do: 'tell',
    deployment: deployment.id,
    message,
    why: 'it happened',
  }));
}
