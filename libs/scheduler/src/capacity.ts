import { defaultPoolPolicy, resourceNames } from './model.ts';
import type { Amounts, NodeSnapshot, PoolPolicy, ResourceName, Snapshot, Want } from './model.ts';

/** What may be reserved on a host of this capacity: CPU times the pool's overcommit, the rest as it is. */
export function allocatable(capacity: Amounts, policy: PoolPolicy = defaultPoolPolicy): Amounts {
  return { ...capacity, cpuMillis: Math.floor(capacity.cpuMillis * policy.cpuOvercommit) };
}

/** What a want takes from a node. */
export function amountsOf(needs: Want['needs']): Amounts {
  return { ...needs, instances: 1 };
}

export function fits(needs: Amounts, free: Amounts): boolean {
  return (
    needs.memoryMiB <= free.memoryMiB &&
    needs.cpuMillis <= free.cpuMillis &&
    needs.diskMiB <= free.diskMiB &&
    needs.instances <= free.instances
  );
}

/** Of each resource the greater of the two. */
export function mostOf(a: Amounts, b: Amounts): Amounts {
  return {
    cpuMillis: Math.max(a.cpuMillis, b.cpuMillis),
    memoryMiB: Math.max(a.memoryMiB, b.memoryMiB),
    diskMiB: Math.max(a.diskMiB, b.diskMiB),
    instances: Math.max(a.instances, b.instances),
  };
}

/** A node while a plan is made: the snapshot's node and what is left of it after this plan's placements. */
export class Room {
  readonly node: NodeSnapshot;
  readonly total: Amounts;
  readonly free: Record<ResourceName, number>;
  /** Of the images that somebody wants, those that the node holds. */
  readonly images: readonly string[];
  /** Instances that this plan put here, by process. */
  private readonly added = new Map<string, number>();

  constructor(node: NodeSnapshot, pools: Snapshot['pools'], wanted: ReadonlySet<string>) {
    this.node = node;
    this.total = allocatable(node.capacity, pools[node.pool]);
    this.free = {
      cpuMillis: this.total.cpuMillis - node.used.cpuMillis,
      memoryMiB: this.total.memoryMiB - node.used.memoryMiB,
      diskMiB: this.total.diskMiB - node.used.diskMiB,
      instances: this.total.instances - node.used.instances,
    };
    this.images = node.images.filter((image) => wanted.has(image));
  }

  keep(needs: Amounts): void {
    for (const name of resourceNames) this.free[name] -= needs[name];
  }

  /** Gives back what was kept, or counted as used. */
  release(needs: Amounts): void {
    for (const name of resourceNames) this.free[name] += needs[name];
  }

  reserve(process: string, needs: Amounts): void {
    this.keep(needs);
    this.added.set(process, (this.added.get(process) ?? 0) + 1);
  }

  instancesOf(process: string): number {
    return (this.node.processes[process] ?? 0) + (this.added.get(process) ?? 0);
  }

  /** Those of which it has instances. */
  processes(): string[] {
    const before = Object.keys(this.node.processes);
    return this.added.size === 0 ? before : [...new Set([...before, ...this.added.keys()])];
  }

  /** Share of the scarcest resource that is reserved, 0 to 1. */
  fullness(): number {
    let fullest = 0;
    for (const name of resourceNames) {
      const total = this.total[name];
      if (total > 0) fullest = Math.max(fullest, (total - this.free[name]) / total);
    }
    return fullest;
  }
}

/** The rooms in which there are instances of each of `processes`. */
export function holdersOf(
  rooms: readonly Room[],
  processes: ReadonlySet<string>,
): Map<string, Room[]> {
  const holders = new Map([...processes].map((process) => [process, [] as Room[]]));
  for (const room of rooms)
    for (const process of room.processes()) holders.get(process)?.push(room);
  return holders;
}
