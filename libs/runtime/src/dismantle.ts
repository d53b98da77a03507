import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { containerCgroup, tenantCgroup } from './host.ts';
import type { Host } from './host.ts';
import { removeInterface } from './network.ts';
import { isAlive, killSupervisors, signal } from './processes.ts';
import type { ContainerRecord } from './state.ts';
import { step } from './steps.ts';

/**
 * Ends what lives of a container, however far it was made: conmon, processes, crun's state, cgroup,
 * interface. Every part may be missing. The slot may be used again when this returns.
 */
export async function dismantle(host: Host, record: ContainerRecord): Promise<void> {
  const cgroup = containerCgroup(host, record);
  // Half-made: its conmon and crun are in no record and no cgroup of the container yet.
  if (record.phase === 'making') await killSupervisors(host.store.paths(record.id).run);
  step('kill');
  await host.cgroups.kill(cgroup);
  step('remove-crun-state');
  // Nothing lives and its cgroup is ours to remove: of crun's own delete only the files are left to do.
  rmSync(`${host.dirs.crun}/${record.id}`, { recursive: true, force: true });
  await host.cgroups.kill(cgroup);
  if (record.process) await untilEnded(record.process);
  step('await-conmon');
  if (record.conmon) {
    // It ends by itself with the container; one that has nothing to wait for any more is not waited for.
    await untilEnded(record.conmon, 1000).catch(
      () => record.conmon && signal(record.conmon, constants.signals.SIGKILL),
    );
  }
  step('remove-interface');
  await removeInterface(host.addresses.interfaceName(record.slot));
  step('remove-cgroup');
  await removeCgroup(host, cgroup);
  step('remove-exit-file');
  rmSync(`${host.dirs.exits}/${record.id}`, { force: true });
  // conmon's link to the bundle.
  rmSync(`${host.dirs.sockets}/${record.id}`, { force: true });
}

async function untilEnded(
  process: { pid: number; startTime: string },
  deadlineMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (isAlive(process)) {
    if (performance.now() > deadline)
      throw new Error(`Process ${process.pid} has not ended within ${deadlineMs} ms.`);
    await delay(2);
  }
}

async function removeCgroup(host: Host, path: string): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!host.cgroups.remove(path)) {
    if (performance.now() > deadline) throw new Error(`The cgroup ${path} stays busy.`);
    await delay(5);
  }
}

/** Removes a tenant's cgroup when none of its containers needs it. Synchronous, so that no start comes between look and act. */
export function removeTenantCgroup(
  host: Host,
  tenantId: string,
  others: Iterable<ContainerRecord>,
): void {
  const live = ['making', 'starting', 'running'];
  for (const other of others) if (other.tenantId === tenantId && live.includes(other.phase)) return;
  step('remove-tenant');
  host.cgroups.remove(tenantCgroup(host, tenantId));
}

/** Removes what belonged to one run: the writable layer and its files in memory. */
export async function clearRun(host: Host, id: string): Promise<void> {
  step('clear-layer');
  await host.layers().remove(id);
  step('clear-bundle');
  host.store.deleteRun(id);
}

/** Removes every file of a container. */
export async function deleteContainer(host: Host, id: string): Promise<void> {
  step('delete-layer');
  await host.layers().remove(id);
  step('delete-files');
  await host.store.delete(id);
}

/** How a process ended, read before its cgroup and its writable layer go. Waits a little for conmon to write it down. */
export async function readExit(
  host: Host,
  record: ContainerRecord,
): Promise<NonNullable<ContainerRecord['exit']>> {
  step('read-exit');
  const file = `${host.dirs.exits}/${record.id}`;
  const deadline = performance.now() + 5000;
  while (
    !existsSync(file) &&
    record.conmon &&
    isAlive(record.conmon) &&
    performance.now() < deadline
  )
    await delay(2);
  const oom = host.cgroups.oomKills(containerCgroup(host, record)) > 0;
  const diskFull = host.layers().isFull(record.id);
  if (!existsSync(file)) {
    // conmon was killed: nobody knows the code.
    const at = new Date().toISOString();
    return { exitCode: null, signal: null, oomKilled: oom, diskFull, rebooted: false, at };
  }
  const exitCode = Number(readFileSync(file, 'utf8').trim());
  return {
    exitCode,
    signal: signalName(exitCode),
    oomKilled: oom && exitCode !== 0,
    diskFull: diskFull && exitCode !== 0,
    rebooted: false,
    at: statSync(file).mtime.toISOString(),
  };
}

/** conmon writes 128 + n for signal n, as shells do. */
export function signalName(exitCode: number): string | null {
  const entry = Object.entries(constants.signals).find(([, number]) => number === exitCode - 128);
  return entry?.[0] ?? null;
}

/** Number of an image's stop signal ("SIGTERM", "term", "15", "SIGRTMIN+3"); SIGTERM when it names none. */
export function stopSignalNumber(text: string | null): number {
  const name = (text ?? 'SIGTERM').toUpperCase();
  const realtime = /^(?:SIG)?RTMIN(?:\+(\d{1,2}))?$/.exec(name);
  const rtmin = 34;
  const number = realtime
    ? rtmin + Number(realtime[1] ?? 0)
    : /^\d{1,2}$/.test(name)
      ? Number(name)
      : new Map<string, number>(Object.entries(constants.signals)).get(
          name.startsWith('SIG') ? name : `SIG${name}`,
        );
  return number !== undefined && number >= 1 && number <= 64 ? number : constants.signals.SIGTERM;
}
