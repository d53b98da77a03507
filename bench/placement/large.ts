/** Large fleets: how many placements a second, and what a snapshot of them weighs. */
import { allocatable, preempt, schedule } from '@bulkhead/scheduler';
import type { NodeSnapshot, Occupant, Want } from '@bulkhead/scheduler';
import { heuristics, newBins, put, type Host } from './rivals.ts';
import { emptyNode, random } from './traces.ts';

/** The sizes that tenants may choose from, here in equal numbers. */
const sizes = [
  { cpuMillis: 100, memoryMiB: 128, diskMiB: 512 },
  { cpuMillis: 100, memoryMiB: 256, diskMiB: 512 },
  { cpuMillis: 250, memoryMiB: 512, diskMiB: 1024 },
  { cpuMillis: 500, memoryMiB: 1024, diskMiB: 2048 },
  { cpuMillis: 1000, memoryMiB: 1024, diskMiB: 2048 },
  { cpuMillis: 1000, memoryMiB: 4096, diskMiB: 4096 },
] as const;

const hostOfFleet: Host = { cpuMillis: 16_000, memoryMiB: 65_536 };

/** Processes of one to five instances, a tenth of them with a limit of one on a node. */
export function newWants(count: number, seed: number): Want[] {
  const chance = random(seed);
  const wants: Want[] = [];
  for (let process = 0; wants.length < count; process++) {
    const needs = sizes[Math.floor(chance() * sizes.length)]!;
    const mostPerNode = chance() < 0.1 ? 1 : null;
    const name = `${seed}-${process}`;
    const instances = Math.min(count - wants.length, 1 + Math.floor(chance() * 5));
    for (let each = 0; each < instances; each++)
      wants.push({
        ...{ id: `${name}-${each}`, process: name, needs, image: `sha256:${name}` },
        ...{ pool: 'default', labels: {}, mostPerNode, priority: 0, claim: null },
      });
  }
  return wants;
}

/** A fleet in three zones with `instances` in place, spread at random, and images where they ran. */
export function busyFleet(nodes: number, instances: number): NodeSnapshot[] {
  const chance = random(11);
  const fleet = Array.from({ length: nodes }, (_, index) => ({
    ...emptyNode(`n${index}`, hostOfFleet),
    labels: { zone: `z${index % 3}` },
    used: { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 },
    images: [] as string[],
    processes: {} as Record<string, number>,
  }));
  for (const { process, needs, image } of newWants(instances, 3)) {
    const node = fleet[Math.floor(chance() * nodes)]!;
    node.used.cpuMillis += needs.cpuMillis;
    node.used.memoryMiB += needs.memoryMiB;
    node.used.diskMiB += needs.diskMiB;
    node.used.instances += 1;
    node.processes[process] = (node.processes[process] ?? 0) + 1;
    node.images.push(image);
  }
  return fleet;
}

/** Milliseconds to plan `wants`, everything told in one snapshot. */
export function timeOurs(fleet: readonly NodeSnapshot[], wants: readonly Want[]): number {
  const start = performance.now();
  const plan = schedule({ nodes: fleet, pools: {} }, wants, 1);
  const took = performance.now() - start;
  if (plan.placements.length !== wants.length) throw new Error(plan.refusals[0]!.message);
  return took;
}

/** The same by looking at every host for every instance, as best-fit does. */
export function timeBestFit(fleet: readonly NodeSnapshot[], wants: readonly Want[]): number {
  const start = performance.now();
  const bins = newBins(hostOfFleet, fleet.length);
  fleet.forEach(({ capacity, used, processes }, index) => {
    const bin = bins[index]!;
    bin.cpuMillis = allocatable(capacity).cpuMillis - used.cpuMillis;
    bin.memoryMiB -= used.memoryMiB;
    bin.instances = used.instances;
    for (const [process, count] of Object.entries(processes)) bin.processes.set(process, count);
  });
  for (const want of wants) {
    const bin = heuristics['best-fit']!(bins, want, hostOfFleet);
    if (!bin) throw new Error(`best-fit found no host for ${want.id}`);
    put(bin, want, 1);
  }
  return performance.now() - start;
}

/**
 * Milliseconds to give `count` wants of high priority the room of others, in a fleet without any:
 * they are refused first. Unlike: no two ask for the same labels and sizes.
 */
export function timeMakingRoom(fleet: readonly NodeSnapshot[], count: number, unlike: boolean) {
  const nodes = fleet.map((node, index) => ({
    ...node,
    labels: { ...node.labels, [`group${index % count}`]: 'yes' },
    used: { ...node.used, memoryMiB: node.capacity.memoryMiB },
  }));
  const occupants = nodes.flatMap(({ id }) =>
    Array.from({ length: 8 }, (_, index): Occupant => {
      const needs = { cpuMillis: 100, memoryMiB: 8192, diskMiB: 1 };
      return { id: `${id}-${index}`, node: id, priority: index % 2, needs, leaving: false };
    }),
  );
  const wants = Array.from({ length: count }, (_, index): Want => {
    const memoryMiB = 20_000 + (unlike ? index : 0);
    return {
      ...{ id: `w${index}`, process: `w${index}`, image: 'w', pool: 'default' },
      ...{ needs: { cpuMillis: 100, memoryMiB, diskMiB: 1 }, mostPerNode: null },
      ...{ labels: unlike ? { [`group${index}`]: 'yes' } : {}, priority: 2, claim: null },
    };
  });
  const snapshot = { nodes, pools: {} };
  const start = performance.now();
  const claims = preempt(snapshot, wants, schedule(snapshot, wants, 1), occupants, 1);
  const took = performance.now() - start;
  if (claims.length !== count) throw new Error(`${claims.length} of ${count} got room`);
  return took;
}

/**
 * HashiCorp's C2M: two million instances on 6,100 hosts, all alike, here of ten jobs, planned
 * `batch` at a time, each plan from a new snapshot. Seconds.
 */
export function timeTwoMillion(batch = 50_000): number {
  const [nodes, instances, jobs] = [6_100, 2_000_000, 10];
  const needs = { cpuMillis: 30, memoryMiB: 30, diskMiB: 16 };
  const fleet = Array.from({ length: nodes }, (_, index) => emptyNode(`n${index}`, hostOfFleet));
  const at = new Map(fleet.map(({ id }, index) => [id, index]));
  const start = performance.now();
  for (let placed = 0; placed < instances; placed += batch) {
    const process = `job${Math.floor((placed * jobs) / instances)}`;
    const wants = Array.from({ length: batch }, (_, each) => ({
      ...{ id: `${placed + each}`, process, needs, image: 'sha256:c2m' },
      ...{ pool: 'default', labels: {}, mostPerNode: null, priority: 0, claim: null },
    }));
    const plan = schedule({ nodes: fleet, pools: {} }, wants, 1);
    if (plan.refusals.length > 0) throw new Error(plan.refusals[0]!.message);
    const added = new Map<string, number>();
    for (const { node } of plan.placements) added.set(node, (added.get(node) ?? 0) + 1);
    for (const [id, count] of added) {
      const index = at.get(id)!;
      const { used, processes, ...rest } = fleet[index]!;
      fleet[index] = {
        ...rest,
        used: {
          cpuMillis: used.cpuMillis + count * needs.cpuMillis,
          memoryMiB: used.memoryMiB + count * needs.memoryMiB,
          diskMiB: used.diskMiB + count * needs.diskMiB,
          instances: used.instances + count,
        },
        processes: { ...processes, [process]: (processes[process] ?? 0) + count },
      };
    }
  }
  return (performance.now() - start) / 1000;
}
