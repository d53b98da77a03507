import type { HostLoad } from '@bulkhead/runtime';
import { Counter, Gauge, type Registry } from 'prom-client';

/** What all containers of the host together take, and what holds them back; read at each scrape. */
export class HostMetrics {
  readonly #cpu: Counter;
  readonly #memory: Gauge;
  readonly #processes: Gauge;
  readonly #io: Counter<'direction'>;
  readonly #periods: Counter<'cap'>;
  readonly #throttledPeriods: Counter<'cap'>;
  readonly #throttled: Counter<'cap'>;
  readonly #pressure: Counter<'resource' | 'kind'>;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#cpu = new Counter({
      name: 'bulkhead_agent_containers_cpu_seconds_total',
      help: 'Processor time of all containers, with their conmons.',
      registers,
    });
    this.#memory = new Gauge({
      name: 'bulkhead_agent_containers_memory_bytes',
      help: 'Memory of all containers, without page cache that has not been used for long.',
      registers,
    });
    this.#processes = new Gauge({
      name: 'bulkhead_agent_containers_processes',
      help: 'Processes and threads of all containers.',
      registers,
    });
    this.#io = new Counter({
      name: 'bulkhead_agent_containers_io_bytes_total',
      help: 'Bytes that all containers read from and wrote to disks.',
      labelNames: ['direction'],
      registers,
    });
    const labelNames = ['cap'] as const;
    this.#periods = new Counter({
      name: 'bulkhead_agent_cpu_periods_total',
      help: "Periods in which something under a cap on processor time ran, by whose cap: an instance's or a tenant's.",
      labelNames,
      registers,
    });
    this.#throttledPeriods = new Counter({
      name: 'bulkhead_agent_cpu_throttled_periods_total',
      help: 'Those in which it used its cap up.',
      labelNames,
      registers,
    });
    this.#throttled = new Counter({
      name: 'bulkhead_agent_cpu_throttled_seconds_total',
      help: 'How long it was held back, summed over processors.',
      labelNames,
      registers,
    });
    this.#pressure = new Counter({
      name: 'bulkhead_agent_pressure_seconds_total',
      help: 'How long something on the machine, or all of it, waited for a resource (PSI).',
      labelNames: ['resource', 'kind'],
      registers,
    });
  }

  show({ use, throttling, pressure }: HostLoad): void {
    set(this.#cpu, {}, (use?.cpuNanos ?? 0) / 1e9);
    this.#memory.set(use?.memoryBytes ?? 0);
    this.#processes.set(use?.pids ?? 0);
    set(this.#io, { direction: 'read' }, use?.readBytes ?? 0);
    set(this.#io, { direction: 'written' }, use?.writtenBytes ?? 0);
    for (const cap of ['instance', 'tenant'] as const) {
      const { periods, throttledPeriods, throttledNanos } = throttling[cap];
      set(this.#periods, { cap }, periods);
      set(this.#throttledPeriods, { cap }, throttledPeriods);
      set(this.#throttled, { cap }, throttledNanos / 1e9);
    }
    for (const { resource, kind, seconds } of pressure)
      set(this.#pressure, { resource, kind }, seconds);
  }
}

/** The count is kept elsewhere. */
function set<T extends string>(
  counter: Counter<T>,
  labels: Partial<Record<T, string>>,
  value: number,
): void {
  counter.remove(labels);
  counter.inc(labels, value);
}
