/** A fleet in motion: processes come with one to five instances and go, plans are made in batches. */
import { schedule, type NodeSnapshot, type Want } from '@bulkhead/scheduler';
import { heuristics, newBins, put, type Bin } from './rivals.ts';
import { emptyNodes, host, lowerBound, noOvercommit, random } from './traces.ts';

/** Wants that come and ids that go, at one moment. */
interface Moment {
  readonly come: readonly Want[];
  readonly go: readonly Want[];
}

/**
 * About `alive` instances of the trace's sizes at any time, once it has filled up. A third of the
 * processes allow one instance on a node, and all live for as long on average.
 */
export function story(sizes: readonly Want[], alive: number, moments: number): Moment[] {
  const chance = random(7);
  const living: Want[] = [];
  let made = 0;
  const ofOneProcess = (): Want[] => {
    const size = sizes[Math.floor(chance() * sizes.length)]!;
    const process = `p${made++}`;
    const mostPerNode = chance() < 1 / 3 ? 1 : null;
    const count = 1 + Math.floor(chance() * 5);
    return Array.from({ length: count }, (_, index) => ({
      ...size,
      ...{ id: `${process}-${index}`, process, mostPerNode, priority: 0, claim: null },
    }));
  };
  return Array.from({ length: moments }, () => {
    const go: Want[] = [];
    const leaving = Math.floor(living.length / 50);
    for (let each = 0; each < leaving; each++) {
      const index = Math.floor(chance() * living.length);
      go.push(living[index]!);
      living[index] = living.at(-1)!;
      living.pop();
    }
    const come: Want[] = [];
    // The load itself goes up and down by a tenth.
    const aim = alive * (0.95 + 0.1 * chance());
    while (living.length + come.length < aim && come.length < alive / 20)
      come.push(...ofOneProcess());
    living.push(...come);
    return { come, go };
  });
}

/** The most hosts in use at any moment. */
export function peakOfRival(name: string, moments: readonly Moment[], hosts: number): number {
  const choose = heuristics[name]!;
  const bins = newBins(host, hosts);
  const at = new Map<string, Bin>();
  return peak(moments, ({ come, go }) => {
    for (const want of go) put(at.get(want.id)!, want, -1);
    for (const want of come) {
      const bin = choose(bins, want, host);
      if (!bin) throw new Error(`${name} found no host for ${want.id}`);
      put(bin, want, 1);
      at.set(want.id, bin);
    }
    return bins.filter(({ instances }) => instances > 0).length;
  });
}

export function peakOfOurs(moments: readonly Moment[], hosts: number): number {
  const nodes = new Map(emptyNodes(hosts).map((node) => [node.id, node]));
  const at = new Map<string, string>();
  const change = (id: string, want: Want, sign: 1 | -1): void => {
    const node = nodes.get(id)!;
    const count = (node.processes[want.process] ?? 0) + sign;
    const { [want.process]: _, ...others } = node.processes;
    nodes.set(id, {
      ...node,
      used: {
        cpuMillis: node.used.cpuMillis + sign * want.needs.cpuMillis,
        memoryMiB: node.used.memoryMiB + sign * want.needs.memoryMiB,
        diskMiB: 0,
        instances: node.used.instances + sign,
      },
      processes: count > 0 ? { ...others, [want.process]: count } : others,
    });
  };
  return peak(moments, ({ come, go }) => {
    for (const want of go) change(at.get(want.id)!, want, -1);
    const wants = new Map(come.map((want) => [want.id, want]));
    const snapshot = { nodes: [...nodes.values()], pools: noOvercommit };
    const plan = schedule(snapshot, come, 1);
    if (plan.refusals.length > 0) throw new Error(plan.refusals[0]!.message);
    for (const { want, node } of plan.placements) {
      change(node, wants.get(want)!, 1);
      at.set(want, node);
    }
    return [...nodes.values()].filter(({ used }: NodeSnapshot) => used.instances > 0).length;
  });
}

export function peakOfBound(moments: readonly Moment[]): number {
  const alive = new Map<string, Want>();
  return peak(moments, ({ come, go }) => {
    for (const { id } of go) alive.delete(id);
    for (const want of come) alive.set(want.id, want);
    return lowerBound(alive.values());
  });
}

const peak = (moments: readonly Moment[], hostsAt: (moment: Moment) => number): number =>
  Math.max(...moments.map(hostsAt));
