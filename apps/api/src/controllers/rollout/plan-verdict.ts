import type { DeploymentFailure, DeploymentFailureCode } from '@bulkhead/protocol';
import { allEdgesApplied } from './app-snapshot.ts';
import type { AppSnapshot, DeploymentSnapshot, InstanceSnapshot } from './app-snapshot.ts';
import { isReady } from './plan-process.ts';
import { stageOf } from './stage.ts';
import { isCurrent, isDown, wantedProcesses } from './wanted.ts';

/** A new instance that ended this often is called crashed; agents count a restart with each end. */
const crashLimit = 2;
/** How long a start that the host itself fails is tried again, milliseconds. */
const startFailedMs = 30_000;
/** How long an instance may wait for a node, milliseconds. */
const noRoomMs = 10_000;
/** How long a deployment that is done otherwise waits for the edges to say so, milliseconds. */
const edgesMs = 5_000;

/** Why a running deployment has failed, or null while it may still succeed. */
export function findFailure(
  app: AppSnapshot,
  deployment: DeploymentSnapshot,
): DeploymentFailure | null {
  if (app.state === 'active') {
    for (const instance of app.instances) {
      if (!isOnTrial(app, deployment, instance)) continue;
      const failure = failureOf(app, instance);
      if (failure) return failure;
    }
  }
  // Whoever waits for people is not late.
  if (deployment.reachedAt !== null || app.now < deployment.deadlineAt) return null;
  return deadlineExceeded(app, deployment);
}

/** Whether everything is as the deployment wanted it. `routeIsCurrent`: no change of the route is pending. */
export function hasSucceeded(app: AppSnapshot, routeIsCurrent: boolean): boolean {
  if (!routeIsCurrent) return false;
  if (app.state !== 'active') return app.instances.length === 0;
  for (const { name, count } of wantedProcesses(app)) {
    const instances = app.instances.filter(({ process }) => process === name);
    const current = instances.filter((each) => each.desired === 'running' && isCurrent(app, each));
    const serving = current.filter((each) => (isReady(each) && !each.nodeLost) || each.paused);
    // What is made in place of an instance whose node is drained is no part of the deployment.
    const moving = current.filter((each) => each.leavesNode);
    // Its node has not said yet that it took the other sizes on.
    if (serving.some((each) => each.resized && !each.settled)) return false;
    if (serving.length < count || current.length > count + moving.length) return false;
    // Those ordered gone serve nobody any more; how long they take to end is their own affair.
    if (instances.some((each) => each.desired !== 'gone' && !current.includes(each))) return false;
  }
  return edgesServeIt(app);
}

/** Of the instances that a deployment is judged by: those it made, and those that were never ready yet. */
function isOnTrial(
  app: AppSnapshot,
  deployment: DeploymentSnapshot,
  instance: InstanceSnapshot,
): boolean {
  return (
    instance.desired === 'running' &&
    !instance.nodeLost &&
    isCurrent(app, instance) &&
    (instance.deploymentId === deployment.id ||
      instance.readyAt === null ||
      // Made by the one that this one joined before its gate.
      stageOf(app) !== null)
  );
}

function failureOf(app: AppSnapshot, instance: InstanceSnapshot): DeploymentFailure | null {
  if (instance.paused) return null;
  const relapse = relapsed(app, instance);
  if (relapse) return relapse;
  // Whatever happened to it before, it serves now.
  if (isReady(instance)) return null;
  const down = isDown(instance);
  if (instance.state === 'pending') return noRoom(app, instance);
  const exit = instance.lastExit;
  if (!exit) {
    if (instance.state === 'failed') return failed('START_FAILED', instance, null);
    return outOfGrace(app, instance);
  }
  switch (exit.reason) {
    case 'image-not-found':
      return down ? failed('IMAGE_NOT_FOUND', instance, exit.message) : null;
    case 'image-unauthorised':
      return down ? failed('IMAGE_UNAUTHORISED', instance, exit.message) : null;
    case 'image-wrong-platform':
      return down ? failed('IMAGE_WRONG_PLATFORM', instance, exit.message) : null;
    case 'image-corrupt':
      return down ? failed('IMAGE_CORRUPT', instance, exit.message) : null;
    case 'image-no-space':
      return down ? failed('IMAGE_NO_SPACE', instance, exit.message) : null;
    case 'registry-unreachable':
      return down ? failed('REGISTRY_UNREACHABLE', instance, exit.message) : null;
    case 'image-pull-failed':
      return down ? failed('IMAGE_PULL_FAILED', instance, exit.message) : null;
    case 'oom':
      return failed('OUT_OF_MEMORY', instance, exit.message);
    case 'disk-full':
      return failed('DISK_FULL', instance, exit.message);
    case 'health':
      return failed('HEALTH_CHECK_FAILED', instance, exit.message);
    case 'start-failed':
      return instance.state === 'failed' || app.now - instance.createdAt >= startFailedMs
        ? failed('START_FAILED', instance, exit.message)
        : null;
    case 'exited':
    case 'signal':
      if (instance.state === 'failed' || instance.restarts >= crashLimit) {
        // In a crash loop the instance's own message says how often.
        const message = instance.state === 'crashloop' ? instance.message : exit.message;
        return failed('CRASHED', instance, message);
      }
      return outOfGrace(app, instance);
  }
}

/** Its container was gone when the agent looked: the host restarted. */
const isHostsDoing = (exit: InstanceSnapshot['lastExit']) =>
  exit?.reason === 'exited' && exit.exitCode === null && exit.signal === null;

/** Between gates a new one is watched: that it served and ended by itself once is enough. */
function relapsed(app: AppSnapshot, instance: InstanceSnapshot): DeploymentFailure | null {
  const { lastExit: exit, readyAt, restarts } = instance;
  if (!stageOf(app) || readyAt === null || isHostsDoing(exit)) return null;
  // Who is ready again says no more why it ended, and its word from before may not have come.
  if (restarts >= crashLimit)
    return failed('CRASHED', instance, exit?.message ?? `it ended ${restarts} times`);
  if (!exit || Date.parse(exit.at) < readyAt) return null;
  switch (exit.reason) {
    case 'oom':
      return failed('OUT_OF_MEMORY', instance, exit.message);
    case 'disk-full':
      return failed('DISK_FULL', instance, exit.message);
    case 'health':
      return failed('HEALTH_CHECK_FAILED', instance, exit.message);
    case 'exited':
    case 'signal':
      return failed('CRASHED', instance, exit.message);
    default:
      return null;
  }
}

function failed(
  code: DeploymentFailureCode,
  instance: InstanceSnapshot,
  message: string | null,
): DeploymentFailure {
  return {
    code,
    message: message ?? instance.message ?? 'it could not be started',
    process: instance.process,
    instance: instance.id,
    exitCode: instance.lastExit?.exitCode ?? null,
    lastLines: instance.lastExit?.lastLines ?? [],
  };
}

function noRoom(app: AppSnapshot, instance: InstanceSnapshot): DeploymentFailure | null {
  // What the app itself is about to give back may be the room that is missing.
  const leaving = app.instances.some((each) => each.desired !== 'running' && each.nodeId !== null);
  if (leaving || instance.message === null || app.now - instance.createdAt < noRoomMs) return null;
  const moves = app.instances.some(
    (each) => each.process === instance.process && each.leavesNode && isReady(each),
  );
  // What it is made in place of still serves: a matter of the operator's drain.
  if (moves) return null;
  return failed('NO_ROOM', instance, instance.message);
}

/** Runs, and its health check has had all the time it asked for. */
function outOfGrace(app: AppSnapshot, instance: InstanceSnapshot): DeploymentFailure | null {
  if (instance.state !== 'running' || instance.readyAt !== null) return null;
  const definition = app.release?.processes.find(({ name }) => name === instance.process);
  const health = definition?.health;
  if (!health) return null;
  const seconds =
    health.startupGraceSeconds +
    (health.failureThreshold + health.successThreshold - 1) *
      (health.intervalSeconds + health.timeoutSeconds);
  if (app.now - instance.stateAt < seconds * 1000) return null;
  return failed('HEALTH_CHECK_FAILED', instance, describeHealth(app, instance));
}

function describeHealth(app: AppSnapshot, instance: InstanceSnapshot): string {
  const definition = app.release?.processes.find(({ name }) => name === instance.process);
  const said = instance.message ? `: ${instance.message}` : '';
  const health = definition?.health;
  if (health?.kind === 'command') {
    return `the health check (${health.command.join(' ').slice(0, 200)}) has not passed${said}`;
  }
  const check =
    health?.kind === 'http'
      ? `GET ${health.path} on port ${definition?.port ?? '?'}`
      : `a connection to port ${definition?.port ?? '?'}`;
  return `the health check (${check}) has not passed${said}; does the process listen on that port, on all addresses?`;
}

/** Says what the deployment was still waiting for. */
function deadlineExceeded(app: AppSnapshot, deployment: DeploymentSnapshot): DeploymentFailure {
  const seconds = Math.round((deployment.deadlineAt - deployment.progressAt) / 1000);
  const late =
    app.instances.find(
      (each) => each.desired === 'running' && isCurrent(app, each) && !isReady(each),
    ) ??
    app.instances.find((each) => each.desired !== 'running' || !isCurrent(app, each)) ??
    null;
  if (late?.state === 'running' && late.readyAt === null) {
    return failed('HEALTH_CHECK_FAILED', late, describeHealth(app, late));
  }
  const waited = late
    ? `: instance ${late.id} of ${late.process} is still ${late.state}${late.message ? ` (${late.message})` : ''}`
    : '';
  return {
    code: 'DEADLINE_EXCEEDED',
    message: `no progress for ${seconds} s${waited}`,
    process: late?.process ?? null,
    instance: late?.id ?? null,
    exitCode: late?.lastExit?.exitCode ?? null,
    lastLines: late?.lastExit?.lastLines ?? [],
  };
}

/** So that whoever waited for the deployment finds the app behind its URL. */
export function edgesServeIt(app: AppSnapshot): boolean {
  const route = app.routes.find(({ host }) => host === app.host);
  if (!route || allEdgesApplied(app.edges, route.revision)) return true;
  return app.now - route.revision >= edgesMs;
}
