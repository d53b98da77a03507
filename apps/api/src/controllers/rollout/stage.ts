/**
 * Where a deployment stands between its gates: which instances are the new ones, which are those it
 * would go back to, and how many of each there are to be. Without a gate ahead (a rolling one, one
 * that was promoted, no deployment at all) everything is to become new, and nothing is kept.
 */
import {
  newCountOf,
  rolling,
  stagesOf,
  surgeOf,
  trafficOf,
  unavailableOf,
  type Stage,
} from '@bulkhead/protocol';
import type { AppSnapshot, InstanceSnapshot } from './app-snapshot.ts';
import {
  isCurrent,
  isResizable,
  routedProcess,
  runningDeployment,
  wantedProcesses,
} from './wanted.ts';
import type { WantedProcess } from './wanted.ts';

/** new: what should run in the end. stable: what it goes back to. rest: neither, or of a deployment before. */
export type Role = 'new' | 'stable' | 'rest';

/** The stretch before the next gate, or null when there is none ahead. */
export function stageOf(app: AppSnapshot): Stage | null {
  const deployment = runningDeployment(app);
  if (!deployment || app.state !== 'active' || app.from === null) return null;
  return stagesOf(deployment.strategy)[deployment.step] ?? null;
}

export function roleOf(app: AppSnapshot, stage: Stage | null, instance: InstanceSnapshot): Role {
  if (isCurrent(app, instance) || isResizable(app, instance)) return 'new';
  return stage !== null && isStable(app, instance) ? 'stable' : 'rest';
}

/** A restart goes back to what has not been restarted; anything else to its release as it is now. */
function isStable(app: AppSnapshot, instance: InstanceSnapshot): boolean {
  if (isRestart(app)) return instance.family === app.from?.family && instance.epoch < app.epoch;
  return instance.releaseId === app.from?.id && instance.epoch === app.epoch;
}

/** The releases of a family differ in sizes alone. */
const isRestart = (app: AppSnapshot) => app.from?.family === app.release?.family;

/** The epoch of a stable instance that is made in the place of another. */
export const stableEpoch = (app: AppSnapshot) => (isRestart(app) ? app.epoch - 1 : app.epoch);

/** Whether it does its work once it is ready: gets requests, or is of a process that gets none. */
export function serves(app: AppSnapshot, stage: Stage | null, instance: InstanceSnapshot): boolean {
  const role = roleOf(app, stage, instance);
  if (role !== 'rest') return sideServes(stage, instance.process, role);
  return instance.process !== routedProcess || stays(app, stage, instance);
}

function sideServes(stage: Stage | null, process: string, role: 'new' | 'stable'): boolean {
  if (stage === null || stage.serves === 'both' || process !== routedProcess) return true;
  return stage.serves === (role === 'new' ? 'new' : 'old');
}

/** What is left of before goes on serving, but nothing is let in that was never let through a gate. */
function stays(app: AppSnapshot, stage: Stage | null, instance: InstanceSnapshot): boolean {
  const route = app.routes.find(({ host }) => host === app.host);
  const served = route?.backends.some((each) => each.instance === instance.id) ?? true;
  const trusted = app.from === null || app.from.id === instance.releaseId;
  return served || (trusted && stage?.serves !== 'new');
}

export interface Targets {
  readonly wanted: number;
  readonly new: number;
  readonly stable: number;
  /** How many of both do their work in the end. */
  readonly serving: number;
  /** Never more than this should run. */
  readonly most: number;
  /** What is taken away leaves so many ready that serve, or as many as were before. */
  readonly least: number;
  /** And so many of each side, so that the other does not get its requests. */
  readonly leastNew: number;
  readonly leastStable: number;
  /** How many more there may be while instances move from a node that is drained. */
  readonly moving: number;
}

export function targetsOf(
  app: AppSnapshot,
  stage: Stage | null,
  { name, count: wanted, definition }: WantedProcess,
): Targets {
  const pace = runningDeployment(app)?.strategy ?? rolling;
  const surge = surgeOf(pace, wanted);
  const unavailable = unavailableOf(pace, wanted);
  if (stage === null) {
    const least = Math.max(0, wanted - unavailable);
    const most = wanted + surge;
    const sides = { leastNew: 0, leastStable: 0, moving: 0 };
    return { wanted, new: wanted, stable: 0, serving: wanted, most, least, ...sides };
  }
  const fresh = definition === null ? 0 : newCountOf(stage, wanted);
  const isOld = app.from?.processes.some((each) => each.name === name) ?? false;
  const beside = stage.serves === 'both' ? wanted + surge - fresh : wanted;
  const stable = isOld ? Math.min(wanted, beside) : 0;
  const newServe = sideServes(stage, name, 'new');
  const stableServe = sideServes(stage, name, 'stable');
  const serving = (newServe ? fresh : 0) + (stableServe ? stable : 0);
  const less = (count: number) => Math.max(0, count - unavailable);
  return {
    wanted,
    new: fresh,
    stable,
    serving,
    most: stage.serves === 'both' ? wanted + surge : 2 * wanted,
    least: less(Math.min(wanted, serving)),
    leastNew: newServe ? less(fresh) : 0,
    leastStable: stableServe ? less(stable) : 0,
    moving: Math.max(1, surge),
  };
}

/** In a stage also those that only the release before has: they run until it is left for good. */
export function processesOf(app: AppSnapshot, stage: Stage | null): WantedProcess[] {
  const wanted = wantedProcesses(app);
  if (stage === null) return wanted;
  const dropped = (app.from?.processes ?? []).filter(
    ({ name }) => !app.release?.processes.some((each) => each.name === name),
  );
  const names = new Set(dropped.map(({ name }) => name));
  return [
    ...wanted.filter(({ name }) => !names.has(name)),
    ...dropped.map(({ name }) => ({ name, count: app.formation[name] ?? 0, definition: null })),
  ];
}

/** Weights by which both sides get their part of the requests, as HAProxy takes them; 0 for none. */
export function weightsOf(
  stage: Stage,
  wanted: number,
  ready: { readonly new: number; readonly old: number },
): { readonly new: number; readonly old: number } {
  // While some of the new ones still start, those that are ready get no more than their own part.
  const complete = Math.min(1, ready.new / Math.max(1, newCountOf(stage, wanted)));
  const part = trafficOf(stage, wanted) * complete;
  const [each, other] = [part / ready.new, (1 - part) / ready.old];
  if (each === 0 || other === 0) return { new: each === 0 ? 0 : 1, old: other === 0 ? 0 : 1 };
  const { large, small } = nearestRatio(Math.min(each, other) / Math.max(each, other));
  return each < other ? { new: small, old: large } : { new: large, old: small };
}

/** Two weights up to 256 whose ratio is nearest to one of at most 1. */
function nearestRatio(ratio: number): { large: number; small: number } {
  let best = { large: 1, small: 1, off: Infinity };
  for (let large = 256; large >= 1; large--) {
    const small = Math.max(1, Math.round(large * ratio));
    const off = Math.abs(small / large - ratio);
    if (off < best.off) best = { large, small, off };
  }
  return best;
}

/** How many instances of a process are ready and new. */
export function newReadyOf(app: AppSnapshot, process: string): number {
  return app.instances.filter(
    (each) =>
      each.process === process &&
      each.desired === 'running' &&
      (each.state === 'ready' || each.paused) &&
      !each.nodeLost &&
      isCurrent(app, each),
  ).length;
}

/** Whether the stage has all its new instances. */
export function hasItsNew(app: AppSnapshot, stage: Stage): boolean {
  return processesOf(app, stage).every(
    (process) => newReadyOf(app, process.name) >= targetsOf(app, stage, process).new,
  );
}
