import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { favorMoves } from './cgroups.ts';
import { clearRun, deleteContainer, dismantle } from './dismantle.ts';
import { endEntries, endEntriesOf } from './enter.ts';
import { conmonCgroup, containerCgroup, startFifo } from './host.ts';
import type { Host } from './host.ts';
import { enterBaseNamespace, makeReadOnly } from './host-thread.ts';
import { listInterfaces, removeInterface } from './network.ts';
import { isAlive, killSupervisors } from './processes.ts';
import { prepareRunDir, runDir } from './run-dir.ts';
import type { RuntimeEvent } from './runtime.ts';
import type { ContainerRecord } from './state.ts';
import { raiseHostPids } from './host-pids.ts';
import { ensureRoutes } from './fleet-routes.ts';
import { step } from './steps.ts';

/** Directories, cgroup parents, firewall: what must be there before any container. */
export async function prepareHost(host: Host, stateDir: string): Promise<void> {
  await enterBaseNamespace();
  step('seal-crun');
  makeReadOnly(host.crun);
  mkdirSync(stateDir, { recursive: true, mode: 0o711 });
  step('make-run-directory');
  prepareRunDir(stateDir);
  step('make-host-directories');
  // Mapped ids pass through these to a container's root file system, and see nothing on the way.
  const run = runDir(stateDir);
  for (const dir of [stateDir, run, `${run}/containers`]) {
    mkdirSync(dir, { recursive: true, mode: 0o711 });
    chmodSync(dir, 0o711);
  }
  mkdirSync(`${stateDir}/containers`, { recursive: true, mode: 0o700 });
  for (const dir of Object.values(host.dirs)) mkdirSync(dir, { recursive: true, mode: 0o700 });
  step('favor-moves');
  await favorMoves(host.dirs.scratch, host.bootId);
  await host.openLayers();
  await host.images.prepare();
  step('make-conmon-cgroup');
  host.cgroups.ensure(conmonCgroup(host));
  step('raise-pids');
  raiseHostPids();
  await host.firewall.apply();
}

/**
 * Finishes or undoes what crashed calls left, removes what belongs to no container, and returns what
 * stays. One that cannot be cleaned up does not stop the rest: it stays as half-made, with its slot,
 * for the next start or removal to finish it.
 */
export async function cleanUp(
  host: Host,
  onProblem: (what: string, error: unknown) => void,
  onLeak: (kind: Leak) => void,
): Promise<ContainerRecord[]> {
  const kept: ContainerRecord[] = [];
  const slots = new Set<number>();
  for (const id of host.store.ids()) {
    const record = host.store.find(id);
    try {
      step('judge');
      const fate = record && !slots.has(record.slot) ? await decide(host, record) : null;
      if (fate) {
        slots.add(fate.slot);
        host.slots.claim(fate.slot);
        host.store.write(fate);
        kept.push(fate);
        continue;
      }
      if (record) await dismantle(host, { ...record, phase: 'making' });
      else await killSupervisors(host.store.paths(id).run);
      await deleteContainer(host, id);
    } catch (error) {
      if (record) {
        host.slots.claim(record.slot);
        kept.push(runs(host, record) ? record : { ...record, phase: 'making' });
      }
      onProblem(`cleaning up after ${id}`, error);
    }
  }
  // Those of containers have ended with their cgroups: what is left had not got that far.
  await endEntries(host);
  await removeOrphans(host, kept, onLeak);
  return kept;
}

/** Whatever is the matter, what runs goes on. */
const runs = (host: Host, record: ContainerRecord): boolean =>
  record.phase === 'running' &&
  record.bootId === host.bootId &&
  record.process !== null &&
  isAlive(record.process);

/** The record to go on with; null: nothing of it stays. */
async function decide(host: Host, record: ContainerRecord): Promise<ContainerRecord | null> {
  const rebooted = record.bootId !== host.bootId;
  switch (record.phase) {
    case 'making':
    case 'removing':
      return null;
    case 'starting':
      if (existsSync(startFifo(host, record.id))) return null;
      return decide(host, { ...record, phase: 'running' });
    case 'running': {
      if (!rebooted) {
        // An agent that died in the middle of a pause or a kill left it otherwise than it is meant to be.
        const cgroup = containerCgroup(host, record);
        await endEntriesOf(host, record);
        if (host.cgroups.isFrozen(cgroup) !== record.paused)
          await host.cgroups.freeze(cgroup, record.paused);
        return record;
      }
      const exit = record.exit ?? {
        ...{ exitCode: null, signal: null, oomKilled: false, diskFull: false, rebooted: true },
        at: new Date().toISOString(),
      };
      await dismantle(host, { ...record, process: null, conmon: null });
      await clearRun(host, record.id);
      return {
        ...record,
        phase: 'stopped',
        bootId: host.bootId,
        process: null,
        conmon: null,
        exit,
      };
    }
    case 'stopped':
      return record;
  }
}

type Leak = Extract<RuntimeEvent, { type: 'leak-removed' }>['kind'];

/** Interfaces, cgroups, writable layers, crun states and exit files that no container owns. */
async function removeOrphans(
  host: Host,
  kept: readonly ContainerRecord[],
  onLeak: (kind: Leak) => void = () => undefined,
): Promise<void> {
  const live = kept.filter((record) => record.phase === 'running');
  const ids = new Set(live.map((record) => record.id));
  step('sweep-cgroups');
  for (const tenant of host.cgroups.children(host.cgroup)) {
    const path = `${host.cgroup}/${tenant}`;
    if (path === conmonCgroup(host)) continue;
    for (const id of host.cgroups.children(path)) {
      if (live.some((record) => record.id === id && record.tenantId === tenant)) continue;
      await host.cgroups.kill(`${path}/${id}`);
      host.cgroups.remove(`${path}/${id}`);
      onLeak('cgroup');
    }
    if (!live.some((record) => record.tenantId === tenant)) host.cgroups.remove(path);
  }
  step('sweep-interfaces');
  const slots = new Set(live.map((record) => record.slot));
  for (const [slot, name] of listInterfaces(host.addresses))
    if (!slots.has(slot)) {
      await removeInterface(name);
      onLeak('interface');
    }
  step('sweep-layers');
  for (const id of host.layers().list()) {
    if (ids.has(id)) continue;
    await host.layers().remove(id);
    onLeak('layer');
  }
  step('sweep-files');
  for (const dir of [host.dirs.crun, host.dirs.exits, host.dirs.sockets]) {
    for (const name of readdirSync(dir)) {
      // crun keeps what it shares between containers under a name that no container has.
      if (ids.has(name) || name.startsWith('.')) continue;
      await rm(`${dir}/${name}`, { recursive: true, force: true });
      onLeak('file');
    }
  }
}

/** Removes what `prepareHost` made, but for images. */
export async function clearHost(host: Host): Promise<void> {
  await removeOrphans(host, []);
  await host.slots.close();
  await host.layers().destroy();
  await host.firewall.remove();
  await ensureRoutes(host.addresses.idBase(0), { edges: [], places: [] });
  await host.cgroups.kill(conmonCgroup(host));
  host.cgroups.remove(host.cgroup);
  for (const dir of Object.values(host.dirs))
    if (existsSync(dir)) rmSync(dir, { recursive: true, force: true });
}
