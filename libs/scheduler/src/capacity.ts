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

/** A node while a plan is made: the snapshot's node and what is left of it after this plan's placements. */
export class Room {
  readonly node: NodeSnapshot;
  readonly total: Amounts;
  readonly free: Record<ResourceName, number>;
  readonly images: ReadonlySet<string>;
  private readonly apps: Map<string, number>;

  constructor(node: NodeSnapshot, pools: Snapshot['pools']) {
    this.node = node;
    this.total = allocatable(node.capacity, pools[node.pool]);
    this.free = {
      cpuMillis: this.total.cpuMillis - node.used.cpuMillis,
      memoryMiB: this.total.memoryMiB - node.used.memoryMiB,
      diskMiB: this.total.diskMiB - node.used.diskMiB,
      instances: this.total.instances - node.used.instances,
    };
    this.images = new Set(node.images);
    this.apps = new Map(Object.entries(node.apps));
  }

  reserve(app: string, needs: Amounts): void {
    for (const name of resourceNames) this.free[name] -= needs[name];
    this.apps.set(app, this.instancesOf(app) + 1);
  }

  instancesOf(app: string): number {
    return this.apps.get(app) ?? 0;
  }

  /** Share of the scarcest resource that is reserved once `needs` is too, 0 to 1. */
  fullness(needs: Amounts): number {
    let fullest = 0;
    for (const name of resourceNames) {
      const total = this.total[name];
      if (total <= 0) continue;
      fullest = Math.max(fullest, (total - this.free[name] + needs[name]) / total);
    }
    return fullest;
  }
}
