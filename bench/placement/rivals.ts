/** The text-book heuristics that placement is measured against, each as short as it can be. */
import type { Want } from '@bulkhead/scheduler';

/** Identical hosts; an instance of a process goes where fewer than `mostPerNode` of its kind are. */
export interface Bin {
  cpuMillis: number;
  memoryMiB: number;
  instances: number;
  readonly processes: Map<string, number>;
}
export interface Host {
  readonly cpuMillis: number;
  readonly memoryMiB: number;
}
export type Heuristic = (bins: readonly Bin[], want: Want, host: Host) => Bin | undefined;

export function takes(bin: Bin, { needs, process, mostPerNode }: Want): boolean {
  return (
    needs.cpuMillis <= bin.cpuMillis &&
    needs.memoryMiB <= bin.memoryMiB &&
    (mostPerNode === null || (bin.processes.get(process) ?? 0) < mostPerNode)
  );
}

export function put(bin: Bin, { needs, process }: Want, sign: 1 | -1): void {
  bin.cpuMillis -= sign * needs.cpuMillis;
  bin.memoryMiB -= sign * needs.memoryMiB;
  bin.instances += sign;
  bin.processes.set(process, (bin.processes.get(process) ?? 0) + sign);
}

/** The bin with the lowest `cost` among those in use that take it; a new one when none does. */
const least =
  (cost: (bin: Bin, want: Want, host: Host) => number): Heuristic =>
  (bins, want, host) => {
    let best: Bin | undefined;
    let lowest = Infinity;
    for (const bin of bins) {
      if (bin.instances === 0 || !takes(bin, want)) continue;
      const value = cost(bin, want, host);
      if (value < lowest) [lowest, best] = [value, bin];
    }
    return best ?? bins.find((bin) => bin.instances === 0 && takes(bin, want));
  };

const share = (bin: Bin, { needs }: Want, host: Host) => [
  (bin.cpuMillis - needs.cpuMillis) / host.cpuMillis,
  (bin.memoryMiB - needs.memoryMiB) / host.memoryMiB,
];

export const heuristics: Readonly<Record<string, Heuristic>> = {
  'first-fit': (bins, want) => bins.find((bin) => takes(bin, want)),
  'best-fit': least((bin, want, host) => Math.min(...share(bin, want, host))),
  spreading: least((bin, want, host) => -Math.min(...share(bin, want, host))),
  'dot product': least((bin, { needs }, host) => {
    const [cpu, memory] = [bin.cpuMillis / host.cpuMillis, bin.memoryMiB / host.memoryMiB];
    return (cpu * needs.cpuMillis) / host.cpuMillis + (memory * needs.memoryMiB) / host.memoryMiB;
  }),
};

export const newBins = (host: Host, count: number): Bin[] =>
  Array.from({ length: count }, () => ({ ...host, instances: 0, processes: new Map() }));
