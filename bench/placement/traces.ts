/** The traces in shared/data (see the README there), read where they lie. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { NodeSnapshot, Want } from '@bulkhead/scheduler';
import type { Host } from './rivals.ts';

const data = join(import.meta.dirname, '../../../shared/data');
/** As in the results that others published on openb: identical bins, longer pods left out. */
export const host: Host = { cpuMillis: 96_000, memoryMiB: 384 * 1024 };

async function rows(file: string): Promise<string[][]> {
  const text = await readFile(join(data, file), 'utf8').catch(() => {
    throw new Error(`the traces are not there: ${join(data, file)}`);
  });
  return text
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(','));
}

/** Pods of Alibaba's openb trace, each a process of its own, in the order of the file. */
export async function openb(list: 'default' | 'cpu250'): Promise<Want[]> {
  const pods = await rows(`openb/openb_pod_list_${list}.csv`);
  return pods
    .map(([name = '', cpu, memory]) => ({
      id: name,
      process: name,
      needs: { cpuMillis: Number(cpu), memoryMiB: Number(memory), diskMiB: 0 },
      image: name,
      pool: 'default',
      labels: {},
      mostPerNode: null,
      priority: 0,
      claim: null,
    }))
    .filter(({ needs }) => needs.cpuMillis <= host.cpuMillis);
}

/** CPU of each virtual machine, every 5 minutes of a day, in thousandths of a core. */
export async function planetlab(day: '20110303' | '20110306'): Promise<number[][]> {
  const machines = await rows(`planetlab/${day}.csv`);
  return machines.map(([, ...percent]) => percent.map((value) => Number(value) * 10));
}

export const noOvercommit = { default: { cpuOvercommit: 1 } };

export const emptyNode = (id: string, capacity: Host): NodeSnapshot => ({
  id,
  pool: 'default',
  labels: {},
  state: 'ready',
  cordoned: false,
  capacity: { ...capacity, diskMiB: 1_000_000, instances: 100_000 },
  used: { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 },
  images: [],
  processes: {},
});

export const emptyNodes = (count: number): NodeSnapshot[] =>
  Array.from({ length: count }, (_, index) => emptyNode(`n${index}`, host));

/** The largest sum of a resource, in hosts, rounded up: no packing needs fewer. */
export function lowerBound(wants: Iterable<Want>): number {
  let [cpu, memory] = [0, 0];
  for (const { needs } of wants) {
    cpu += needs.cpuMillis / host.cpuMillis;
    memory += needs.memoryMiB / host.memoryMiB;
  }
  return Math.ceil(Math.max(cpu, memory));
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}
