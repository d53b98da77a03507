import { readFileSync } from 'node:fs';
import type { CgroupUse } from './cgroups.ts';
import { containerCgroup } from './host.ts';
import type { Host } from './host.ts';
import type { ContainerUse } from './runtime.ts';
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
