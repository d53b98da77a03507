/** What promising CPU more than once gains and costs, on real use (PlanetLab, 5-minute slots of a day). */
import { schedule } from '@bulkhead/scheduler';
import { emptyNodes, planetlab } from './traces.ts';

/** Each virtual machine reserves one core and may burst to it. */
const reserved = { cpuMillis: 1000, memoryMiB: 128, diskMiB: 16 };

export interface Overcommitted {
  /** Hosts of 32 cores that the machines were packed on. */
  readonly hosts: number;
  /** Share of the hosts' slots in which the machines wanted more than the host has. */
  readonly short: number;
}

export async function overcommit(factor: number): Promise<Overcommitted> {
  const machines = await planetlab('20110303');
  const cores = 32_000;
  const nodes = emptyNodes(machines.length).map((node) => ({
    ...node,
    capacity: { ...node.capacity, cpuMillis: cores, memoryMiB: 1_000_000 },
  }));
  const wants = machines.map((_, index) => ({
    ...{ id: `${index}`, process: `${index}`, needs: reserved, image: 'sha256:vm' },
    ...{ pool: 'default', labels: {}, mostPerNode: null, priority: 0, claim: null },
  }));
  const plan = schedule({ nodes, pools: { default: { cpuOvercommit: factor } } }, wants, 1);
  const demand = new Map<string, number[]>();
  for (const { want, node } of plan.placements) {
    const use = machines[Number(want)]!;
    const sum = demand.get(node) ?? use.map(() => 0);
    demand.set(
      node,
      sum.map((value, slot) => value + use[slot]!),
    );
  }
  const slots = [...demand.values()].flat();
  return {
    hosts: demand.size,
    short: slots.filter((value) => value > cores).length / slots.length,
  };
}
