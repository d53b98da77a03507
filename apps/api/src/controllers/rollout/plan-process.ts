/**
 * One process of one app: how many instances to make and which to take away. Set algebra over named
 * buckets, after Nomad's reconciler and the arithmetic of Kubernetes' rolling updates:
 *
 * - never more than `most` that should run (those on their way out are not counted, up to a bound,
 *   nor those on lost nodes);
 * - what is taken away leaves at least `least` ready, or as many as were ready before; between two
 *   gates of a deployment the same holds for each side, new and stable, by itself.
 */
import type { InstanceSnapshot } from './app-snapshot.ts';
import type { Role, Targets } from './stage.ts';

export interface ProcessView {
  readonly targets: Targets;
  /** Instances of the process that should run (desired `running`). */
  readonly running: readonly InstanceSnapshot[];
  /** How many are on their way out and not proven gone, but for those on lost nodes. */
  readonly leaving: number;
  readonly roleOf: (instance: InstanceSnapshot) => Role;
  /** Whether requests reach it when it is ready. */
  readonly serves: (instance: InstanceSnapshot) => boolean;
  /** How many of the process vanished within the last minute without ever being ready. */
  readonly vanished: number;
}

export interface Leaving {
  readonly instance: InstanceSnapshot;
  readonly why: string;
}

export interface ProcessPlan {
  readonly create: { readonly new: number; readonly stable: number };
  readonly leave: readonly Leaving[];
}

/**
 * Those on their way out are given time, and are on nobody's account. So that whoever deploys or
 * deletes again and again does not fill the fleet with them, nothing is made past so many in all.
 */
export const mostInAll = (wanted: number) => 3 * wanted + 4;

/** New copies that vanish unasked this often within a minute are not replaced at once. */
const vanishedLimit = 3;

export const isReady = (instance: InstanceSnapshot) => instance.state === 'ready';
/** As it is meant to be: what is held still at its owner's wish need not serve. */
export const isSettled = (instance: InstanceSnapshot) => isReady(instance) || instance.paused;

export function planProcess(view: ProcessView): ProcessPlan {
  const { targets, roleOf } = view;
  const lost = view.running.filter((each) => each.nodeLost);
  const alive = view.running.filter((each) => !each.nodeLost);
  const staying = alive.filter((each) => !each.leavesNode);
  const fresh = staying.filter((each) => roleOf(each) === 'new');
  const stable = staying.filter((each) => roleOf(each) === 'stable');

  const excess = [
    ...takeExcess(fresh, fresh.length - targets.new),
    ...takeExcess(stable, stable.length - targets.stable),
  ];
  // What serves nobody and is too many is no loss.
  const surplus = excess.filter((each) => !isReady(each));
  const kept = [...fresh, ...stable].filter((each) => !excess.includes(each));
  const outgoing = takeOld(
    view,
    kept,
    alive.filter((each) => !kept.includes(each) && !surplus.includes(each)),
  );
  const serving = alive.filter((each) => view.serves(each) && !outgoing.includes(each));
  const readyAfter = serving.filter((each) =>
    kept.includes(each) ? isSettled(each) : isReady(each),
  ).length;
  const replaced = readyAfter >= Math.min(targets.wanted, targets.serving) ? lost : [];

  return {
    create: planCreates(view, { new: fresh.length, stable: stable.length, alive }),
    leave: [
      ...[...surplus, ...outgoing].map((instance) => ({
        instance,
        why: whyItLeaves(view, excess, instance),
      })),
      ...replaced.map((instance) => ({ instance, why: 'its node is lost' })),
    ],
  };
}

function whyItLeaves(
  { targets, roleOf }: ProcessView,
  excess: readonly InstanceSnapshot[],
  instance: InstanceSnapshot,
): string {
  if (instance.leavesNode) return 'it moves to another node';
  return excess.includes(instance) && roleOf(instance) === 'new'
    ? `${targets.wanted} wanted`
    : 'it is replaced';
}

function planCreates(
  { targets, vanished, leaving }: ProcessView,
  there: { new: number; stable: number; alive: readonly InstanceSnapshot[] },
): ProcessPlan['create'] {
  if (vanished >= vanishedLimit) return { new: 0, stable: 0 };
  const moving = there.alive.filter((each) => each.leavesNode).length;
  const room = Math.min(
    targets.most + Math.min(targets.moving, moving) - there.alive.length,
    mostInAll(targets.wanted) - there.alive.length - leaving,
  );
  const upTo = (missing: number, most: number) => Math.max(0, Math.min(missing, most));
  // What serves comes before what is tried.
  const stable = upTo(targets.stable - there.stable, room);
  return { stable, new: upTo(targets.new - there.new, room - stable) };
}

/** Those of `old` that can go now: all that serve nobody, and of the others as many as can be spared. */
function takeOld(
  { targets, roleOf, serves }: ProcessView,
  kept: readonly InstanceSnapshot[],
  old: readonly InstanceSnapshot[],
): InstanceSnapshot[] {
  const counted = old.filter(serves);
  const settled = kept.filter((each) => serves(each) && isSettled(each));
  const spare = settled.length + counted.length - targets.least;
  const ofSide = (role: Role, least: number) =>
    [...settled, ...counted].filter((each) => roleOf(each) === role).length - least;
  const sides: Record<Role, number> = {
    new: ofSide('new', targets.leastNew),
    stable: ofSide('stable', targets.leastStable),
    rest: Infinity,
  };
  const taken = old.filter((each) => !serves(each));
  let left = spare;
  for (const each of oldFirst(counted)) {
    const role = roleOf(each);
    if (left <= 0 || sides[role] <= 0) continue;
    left -= 1;
    sides[role] -= 1;
    taken.push(each);
  }
  return taken;
}

/** Scaling down: first what is not ready, the newest first; then from the nodes that hold most. */
function takeExcess(current: readonly InstanceSnapshot[], over: number): InstanceSnapshot[] {
  const count = Math.max(0, over);
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
