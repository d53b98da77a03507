import type { Resources, TenantLimits } from '@bulkhead/protocol';
import { disksBehind } from './block-devices.ts';
import { containerCgroup, tenantCgroup } from './host.ts';
import type { Host } from './host.ts';
import { limitNetwork } from './network.ts';
import type { ContainerRecord } from './state.ts';
import { step } from './steps.ts';

/** Makes the tenant's cgroup, if need be, and sets its share of the CPU; `containers` are all on the host. Synchronous. */
export function limitTenant(
  host: Host,
  tenantId: string,
  limits: TenantLimits,
  containers: Iterable<ContainerRecord>,
): void {
  const path = tenantCgroup(host, tenantId);
  host.cgroups.ensure(path);
  const caps = new Map<string, number>();
  for (const { id, tenantId: owner, resources } of containers)
    if (owner === tenantId && resources) caps.set(id, resources.cpuCapMillis);
  host.cgroups.limits.tenant(path, limits, caps);
}

/** Everything but the network and the size of the writable layer. Its cgroup must be there. Synchronous. */
export function limitContainer(host: Host, record: ContainerRecord, resources: Resources): void {
  const { layer } = host.store.paths(record.id);
  const disks = disksBehind([layer, host.images.dir]);
  host.cgroups.limits.container(containerCgroup(host, record), resources, disks);
}

/** Changes what a running container may take. Synchronous. */
export function relimitContainer(host: Host, record: ContainerRecord, resources: Resources): void {
  step('relimit-container');
  limitContainer(host, record, resources);
  step('relimit-network');
  if (record.process)
    limitNetwork(record.process.pid, record.slot, host.addresses, resources.networkBytesPerSecond);
}
