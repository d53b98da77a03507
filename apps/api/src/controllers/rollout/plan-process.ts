/**
 * One process of one app: how many instances to make and which to take away. Set algebra over named
 * buckets, after Nomad's reconciler and the arithmetic of Kubernetes' rolling updates:
 *
 * - never more than `wanted + surge` that should run (those on their way out are not counted, nor
 *   those on lost nodes);
 * - what is taken away leaves at least `wanted` ready, or as many as were ready before.
 */
import type { InstanceSnapshot } from './app-snapshot.ts';

export interface ProcessView {
  readonly wanted: number;
  /** Instances of the process that should run (desired `running`). */
  readonly running: readonly InstanceSnapshot[];
  /** Whether it is as it should be, and where. */
  readonly stays: (instance: InstanceSnapshot) => boolean;
  /** How many of the process vanished within the last minute without ever being ready. */
  readonly vanished: number;
}

export interface Leaving {
  readonly instance: InstanceSnapshot;
  readonly why: string;
}

export interface ProcessPlan {
  readonly create: number;
  readonly leave: readonly Leaving[];
}

/** New copies that vanish unasked this often within a minute are not replaced at once. */
const vanishedLimit = 3;

export const surgeOf = (wanted: number) => Math.max(1, Math.ceil(wanted / 4));
export const isReady = (instance: InstanceSnapshot) => instance.state === 'ready';
/** As it is meant to be: what is held still at its owner's wish need not serve. */
export const isSettled = (instance: InstanceSnapshot) => isReady(instance) || instance.paused;

export function planProcess(view: ProcessView): ProcessPlan {
  const { wanted } = view;
  const lost = view.running.filter((each) => each.nodeLost);
  const alive = view.running.filter((each) => !each.nodeLost);
  const current = alive.filter(view.stays);
  const old = alive.filter((each) => !view.stays(each));

  const excess = takeExcess(current, Math.max(0, current.length - wanted));
  const kept = current.filter((each) => !excess.includes(each));
  const keptReady = kept.filter(isSettled).length;
  const removable = Math.max(0, Math.min(old.length, keptReady + old.length - wanted));
  const outgoing = oldFirst(old).slice(0, removable);
  const readyAfter =
    keptReady + old.filter((each) => isReady(each) && !outgoing.includes(each)).length;
  const replaced = readyAfter >= wanted ? lost : [];

  const missing = Math.min(wanted - current.length, wanted + surgeOf(wanted) - alive.length);
  return {
    create: view.vanished >= vanishedLimit ? 0 : Math.max(0, missing),
    leave: [
      ...excess.map((instance) => ({ instance, why: `${wanted} wanted` })),
      ...outgoing.map((instance) => ({
        instance,
        why: instance.nodeDraining ? 'its node is drained' : 'it is replaced',
      })),
      ...replaced.map((instance) => ({ instance, why: 'its node is lost' })),
    ],
  };
}

/** Scaling down: first what is not ready, the newest first; then from the nodes that hold most. */
function takeExcess(current: readonly InstanceSnapshot[], count: number): InstanceSnapshot[] {
  const unready = newestFirst(current.filter((each) => !isReady(each)));
  const taken = unready.slice(0, count);
  const left = newestFirst(current.filter(isReady));
  while (taken.length < count) {
    const perNode = new Map<string | null, number>();
    for (const { nodeId } of left) perNode.set(nodeId, (perNode.get(nodeId) ?? 0) + 1);
    const most = Math.max(...perNode.values());
    const index = left.findIndex(({ nodeId }) => perNode.get(nodeId) === most);
    taken.push(...left.splice(index, 1));
  }
  return taken;
}

/** Of what is replaced: first what serves nobody, then the longest served. */
function oldFirst(old: readonly InstanceSnapshot[]): InstanceSnapshot[] {
  return [
    ...newestFirst(old.filter((each) => !isReady(each))),
    ...newestFirst(old.filter(isReady)).reverse(),
  ];
}

function newestFirst(instances: readonly InstanceSnapshot[]): InstanceSnapshot[] {
  return [...instances].sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1));
}
