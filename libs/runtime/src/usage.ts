import { readFileSync } from 'node:fs';
import type { CgroupUse, Throttling } from './cgroups.ts';
import { containerCgroup, tenantCgroup } from './host.ts';
import type { Host } from './host.ts';
import type { ContainerUse, HostLoad, Pressure } from './runtime.ts';
import type { ContainerRecord } from './state.ts';

/** What a running container has used since its start, and holds now; null when it ended meanwhile. */
export function useOf(host: Host, record: ContainerRecord): ContainerUse | null {
  const cgroup: CgroupUse | null = host.cgroups.use(containerCgroup(host, record));
  if (!cgroup) return null;
  const name = host.addresses.interfaceName(record.slot);
  return {
    ...cgroup,
    // Seen from the host's end of its interface: what goes out there comes in inside.
    receivedBytes: countOf(name, 'tx_bytes'),
    sentBytes: countOf(name, 'rx_bytes'),
    disk: host.layers().usage(record.id),
  };
}

function countOf(name: string, counter: string): number {
  try {
    return Number(readFileSync(`/sys/class/net/${name}/statistics/${counter}`, 'utf8'));
  } catch {
    return 0;
  }
}

const nothing = (): Throttling => ({ periods: 0, throttledPeriods: 0, throttledNanos: 0 });

/** Adds up how caps hold back what runs, beyond the lives of the cgroups that the kernel counts in. */
export class ThrottlingSums {
  #sums = { instance: nothing(), tenant: nothing() };
  #last = new Map<string, Throttling>();

  /** What was counted so far is not added. */
  begin(host: Host, running: readonly ContainerRecord[]): void {
    this.look(host, running);
    this.#sums = { instance: nothing(), tenant: nothing() };
  }

  look(host: Host, running: readonly ContainerRecord[]): HostLoad['throttling'] {
    const before = this.#last;
    this.#last = new Map();
    const tenants = new Set(running.map(({ tenantId }) => tenantCgroup(host, tenantId)));
    for (const path of tenants) this.#add('tenant', path, host.cgroups.throttling(path), before);
    for (const record of running) {
      const path = containerCgroup(host, record);
      this.#add('instance', path, host.cgroups.throttling(path), before);
    }
    return structuredClone(this.#sums);
  }

  #add(
    cap: keyof HostLoad['throttling'],
    path: string,
    now: Throttling | null,
    before: ReadonlyMap<string, Throttling>,
  ): void {
    if (now === null) return;
    this.#last.set(path, now);
    const last = before.get(path);
    // A cgroup of the same name that has counted less is another one.
    const since = last === undefined || last.periods > now.periods ? nothing() : last;
    const sum = this.#sums[cap];
    sum.periods += now.periods - since.periods;
    sum.throttledPeriods += now.throttledPeriods - since.throttledPeriods;
    sum.throttledNanos += now.throttledNanos - since.throttledNanos;
  }
}

/** Of the machine. */
export function pressure(): Pressure[] {
  return (['cpu', 'memory', 'io'] as const).flatMap((resource) => {
    let text: string;
    try {
      text = readFileSync(`/proc/pressure/${resource}`, 'utf8');
    } catch {
      // A kernel without it, or with it turned off.
      return [];
    }
    return (['some', 'full'] as const).flatMap((kind) => {
      const micros = new RegExp(`^${kind} .*total=(\\d+)$`, 'm').exec(text)?.[1];
      return micros === undefined ? [] : [{ resource, kind, seconds: Number(micros) / 1e6 }];
    });
  });
}
