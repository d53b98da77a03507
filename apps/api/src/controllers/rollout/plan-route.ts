import type { RouteBackend } from '@bulkhead/protocol';
import type { AppSnapshot, InstanceSnapshot } from './app-snapshot.ts';
import { roleOf, serves, stageOf, weightsOf } from './stage.ts';
import {
  isCurrent,
  isDown,
  isParked,
  routedProcess,
  runningDeployment,
  wantedProcesses,
} from './wanted.ts';

export type RouteState = AppSnapshot['routes'][number]['state'];

export interface RouteStep {
  readonly do: 'route';
  readonly host: string;
  readonly state: RouteState;
  readonly backends: readonly RouteBackend[];
  readonly revision: number;
  readonly why: string;
}

/**
 * The route as it should be once the instances of `leaving` are out of it, or null when it already
 * is so. A revision is never below the present millisecond: it keeps growing when a route is deleted
 * and made again, and when PostgreSQL is restored from a backup.
 */
export function planRoute(app: AppSnapshot, leaving: ReadonlySet<string>): RouteStep | null {
  const stored = app.routes.find(({ host }) => host === app.host) ?? null;
  const listens = app.release?.processes.find(({ name }) => name === routedProcess)?.port != null;
  if (!stored && (!listens || app.state === 'deleting')) return null;
  if (stored?.deleted && app.state === 'deleting') return null;
  const backends = backendsOf(app, leaving);
  const state = stateOf(app, backends, listens);
  if (stored && !stored.deleted && stored.state === state && same(stored.backends, backends)) {
    return null;
  }
  const revision = Math.max((stored?.revision ?? 0) + 1, Math.floor(app.now));
  const why = `${state}, ${backends.length} ${backends.length === 1 ? 'backend' : 'backends'}`;
  return { do: 'route', host: app.host, state, backends, revision, why };
}

function backendsOf(app: AppSnapshot, leaving: ReadonlySet<string>): RouteBackend[] {
  const serving = app.instances.filter(
    (each) =>
      each.process === routedProcess &&
      each.desired === 'running' &&
      each.state === 'ready' &&
      !each.paused &&
      !leaving.has(each.id),
  );
  // A lost node may still serve, only unable to say so: its instances are the last resort.
  const alive = serving.filter((each) => !each.nodeLost);
  const chosen = distinct(
    chooseSides(app, alive.length > 0 ? alive : serving).sort(
      (a, b) => (b.readyAt ?? 0) - (a.readyAt ?? 0),
    ),
  );
  return weigh(app, chosen).sort((a, b) => (a.instance < b.instance ? -1 : 1));
}

/** After a switch what is kept of the old serves only when nothing of the new does. */
function chooseSides(app: AppSnapshot, ready: InstanceSnapshot[]): InstanceSnapshot[] {
  const stage = stageOf(app);
  const chosen = ready.filter((each) => serves(app, stage, each));
  return chosen.length === 0 && stage?.serves === 'new' ? ready : chosen;
}

/** In a stage that serves both sides each gets its part of the requests, however many it has. */
function weigh(app: AppSnapshot, backends: readonly RouteBackend[]): RouteBackend[] {
  const stage = stageOf(app);
  const wanted = wantedProcesses(app).find(({ name }) => name === routedProcess)?.count ?? 0;
  const isNew = ({ instance }: RouteBackend) => {
    const one = app.instances.find(({ id }) => id === instance);
    return one !== undefined && roleOf(app, stage, one) === 'new';
  };
  const ready = backends.filter(isNew).length;
  const old = backends.length - ready;
  if (stage?.serves !== 'both' || ready === 0 || old === 0) return [...backends];
  const weights = weightsOf(stage, wanted, { new: ready, old });
  return backends.flatMap((backend) => {
    const weight = isNew(backend) ? weights.new : weights.old;
    return weight === 0 ? [] : { ...backend, weight };
  });
}

/** Of two that claim one address the later is right: the other's end has not been reported yet. */
function distinct(instances: readonly InstanceSnapshot[]): RouteBackend[] {
  const taken = new Set<string>();
  return instances.flatMap(backendOf).filter(({ host, port }) => {
    const address = `${host} ${port}`;
    return !taken.has(address) && taken.add(address);
  });
}

function backendOf({ id, host, port, http2 }: InstanceSnapshot): RouteBackend[] {
  if (host === null || port === null) return [];
  return [{ instance: id, host, port, ...(http2 && { http2 }) }];
}

function stateOf(
  app: AppSnapshot,
  backends: readonly RouteBackend[],
  listens: boolean,
): RouteState {
  if (backends.length > 0) return 'serving';
  if (isParked(app)) return 'crashed';
  const wanted = wantedProcesses(app).find(({ name }) => name === routedProcess)?.count ?? 0;
  if (wanted === 0 || !listens) return 'stopped';
  const current = app.instances.filter(
    (each) => each.process === routedProcess && each.desired === 'running' && isCurrent(app, each),
  );
  if (current.length === 0 || runningDeployment(app)) return 'starting';
  if (current.every(({ paused }) => paused)) return 'paused';
  if (current.every((each) => each.paused || isDown(each))) return 'crashed';
  return 'starting';
}

function same(a: readonly RouteBackend[], b: readonly RouteBackend[]): boolean {
  return (
    a.length === b.length &&
    a.every((one, index) => {
      const other = b[index];
      return (
        other !== undefined &&
        one.instance === other.instance &&
        one.host === other.host &&
        one.port === other.port &&
        one.weight === other.weight &&
        one.http2 === other.http2
      );
    })
  );
}
