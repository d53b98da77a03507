import {
  chownSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  rmSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { limitContainer, limitTenant } from './container-limits.ts';
import { containerCgroup, startFifo } from './host.ts';
import type { Host } from './host.ts';
import { CreateError, spawnConmon } from './conmon.ts';
import type { Conmon } from './conmon.ts';
import { CommandError, isOutOfDisk, run } from './exec.ts';
import { inPrivateMounts } from './host-thread.ts';
import { resolveUser } from './image-user.ts';
import { currentLog, logSizeMax, prepareLog } from './logs.ts';
import { connectNetwork } from './network.ts';
import { busyboxInside, ociConfig } from './oci-config.ts';
import { identify } from './processes.ts';
import { prepareEtc } from './etc.ts';
import { mountRootfs, readInside } from './rootfs.ts';
import { RuntimeError } from './runtime.ts';
import type { ContainerSpec } from './runtime.ts';
import type { ContainerRecord } from './state.ts';
import { withFilter } from './seccomp-filter.ts';
import { step } from './steps.ts';

/** With less than this a start that failed for no reason given failed for that. */
const leastFree = { bytes: 1024 * 1024, inodes: 64 };

/** Waits, takes in what loses its parent, and ends when it is told to. */
const waiting = [
  busyboxInside,
  ...['sh', '-c', 'trap "exit 0" TERM INT; while :; do sleep 3600 & wait $!; done'],
];

/** What runs: the spec's command, else the image's. */
export function commandOf(spec: ContainerSpec): readonly string[] {
  if (spec.idle) return waiting;
  const { entrypoint, cmd } = spec.image.config;
  const args = spec.command ?? [...entrypoint, ...cmd];
  if (args.length === 0 || args[0] === '')
    throw new RuntimeError('no-command', 'The image has no command; give the process one.');
  if ([...args, ...Object.entries(spec.env).flat()].some((text) => text.includes('\0')))
    throw new RuntimeError('start-failed', 'The command or a variable contains a NUL character.');
  return args;
}

/**
 * Makes a container and lets its process go. The record is written before each step whose remains
 * `dismantle` would have to find; whoever calls this dismantles when it throws.
 */
export async function makeContainer(
  host: Host,
  spec: ContainerSpec,
  slot: { slot: number; usernsFd: number },
  onChange: (record: ContainerRecord) => void,
  records: ReadonlyMap<string, ContainerRecord>,
): Promise<{ record: ContainerRecord; conmon: Conmon }> {
  const write = (record: ContainerRecord): void => {
    host.store.write(record);
    onChange(record);
  };
  const args = commandOf(spec);
  const layers = host.images.layersOf(spec.image.repository, spec.image.digest);
  const record: ContainerRecord = {
    v: 1,
    id: spec.id,
    tenantId: spec.tenantId,
    phase: 'making',
    paused: false,
    slot: slot.slot,
    bootId: host.bootId,
    digest: spec.image.digest,
    stopSignal: spec.image.config.stopSignal,
    resources: spec.resources,
    process: null,
    conmon: null,
    startedAt: null,
    exit: null,
  };
  try {
    const conmon = withUmask(0o022, () => {
      step('record-making');
      write(record);
      step('limit-tenant');
      limitTenant(host, spec.tenantId, spec.tenantLimits, records.values());
      prepareDirectories(host, spec, slot.slot);
      return mountAndSpawn(host, spec, args, layers, slot);
    });
    step('await-container');
    const pid = await conmon.created(host.createDeadlineMs);
    step('limit-container');
    limitContainer(host, record, spec.resources);
    connectNetwork(pid, slot.slot, host.addresses, spec.resources.networkBytesPerSecond);
    const made: ContainerRecord = {
      ...record,
      phase: 'starting',
      process: identify(pid),
      conmon: identify(conmon.pid),
      startedAt: new Date().toISOString(),
    };
    step('record-starting');
    write(made);
    step('ensure-walls');
    // The walls may have fallen while the container was being made; without them nothing starts.
    await host.firewall.ensure();
    step('let-go');
    await letGo(host, spec.id);
    step('started');
    // Not written: that the FIFO is gone says it.
    const running: ContainerRecord = { ...made, phase: 'running' };
    onChange(running);
    return { record: running, conmon };
  } catch (error) {
    throw startError(host, args[0] ?? '', error);
  }
}

/** The modes of a container's directories must not depend on how the agent was started. `work` is synchronous. */
function withUmask<T>(mask: number, work: () => T): T {
  const before = process.umask(mask);
  try {
    return work();
  } finally {
    process.umask(before);
  }
}

/**
 * Lets the process that crun made run the container's command, as `crun start` does: a byte into
 * the FIFO that it waits on, which is then removed. Loading crun for that takes five milliseconds.
 */
async function letGo(host: Host, id: string): Promise<void> {
  const fifo = startFifo(host, id);
  try {
    // Without a reader this fails at once (ENXIO); another crun may wait in another way (ENOENT).
    const file = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
    try {
      writeSync(file, '\0');
    } finally {
      closeSync(file);
    }
  } catch {
    await run(host.crun, [`--root=${host.dirs.crun}`, 'start', id], { deadlineMs: 10_000 });
    return;
  }
  // While it is there `reconcile` takes the container for one that never ran.
  step('remove-fifo');
  unlinkSync(fifo);
}

/** Synchronous: a few microseconds a call, where the thread pool takes a fraction of a millisecond. */
function prepareDirectories(host: Host, { id, resources }: ContainerSpec, slot: number): void {
  const paths = host.store.paths(id);
  const idBase = host.addresses.idBase(slot);
  step('make-directories');
  rmSync(`${host.dirs.exits}/${id}`, { force: true });
  for (const dir of [paths.run, paths.rootfs, paths.etc]) mkdirSync(dir, { mode: 0o711 });
  mkdirSync(paths.bundle, { mode: 0o700 });
  mkdirSync(paths.logs, { recursive: true, mode: 0o700 });
  step('rotate-log');
  host.rotations.watch(paths.logs);
  prepareLog(paths.logs, (dir) => host.rotations.take(dir));
  step('make-layer');
  host.layers().make(id, resources.diskMiB * 1024 * 1024, idBase);
  const address = host.addresses.address(slot);
  const files = {
    hosts: `127.0.0.1\tlocalhost\n${address}\t${id}\n`,
    hostname: `${id}\n`,
    'resolv.conf': host.firewall.resolvers.map((server) => `nameserver ${server}\n`).join(''),
  };
  step('write-etc');
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(`${paths.etc}/${name}`, text, { mode: 0o644 });
    chownSync(`${paths.etc}/${name}`, idBase, idBase);
  }
}

/** The synchronous heart: in a mount namespace that only this container's processes will hold. */
function mountAndSpawn(
  host: Host,
  spec: ContainerSpec,
  args: readonly string[],
  layers: readonly string[],
  { slot, usernsFd }: { slot: number; usernsFd: number },
): Conmon {
  const paths = host.store.paths(spec.id);
  const idBase = host.addresses.idBase(slot);
  return inPrivateMounts(() => {
    mountRootfs({
      layers,
      usernsFd,
      layer: paths.layer,
      rootfs: paths.rootfs,
      idBase,
      scratch: host.dirs.scratch,
    });
    step('prepare-etc');
    prepareEtc(paths.rootfs, idBase);
    const user = resolveUser(spec.image.config.user, (path) => readInside(paths.rootfs, path));
    const config = ociConfig({
      id: spec.id,
      args,
      env: environment(spec, user.home),
      cwd: spec.image.config.workingDir || '/',
      user,
      rootfs: paths.rootfs,
      usernsPath: `/proc/${process.pid}/fd/${usernsFd}`,
      cgroupPath: containerCgroup(host, spec),
      resources: spec.resources,
      readOnlyRoot: spec.readOnlyRoot,
      etc: paths.etc,
      busybox: host.busybox,
    });
    step('write-config');
    writeFileSync(`${paths.bundle}/config.json`, JSON.stringify(withFilter(config)), {
      mode: 0o600,
    });
    step('spawn-conmon');
    return spawnConmon({
      id: spec.id,
      bundle: paths.bundle,
      logFile: currentLog(paths.logs),
      logSizeMax,
      exitDir: host.dirs.exits,
      socketDir: host.dirs.sockets,
      crunRoot: host.dirs.crun,
      conmon: host.conmon,
      crun: host.crun,
    });
  });
}

/** The image's variables, then the spec's; PATH, HOME and HOSTNAME are always there. */
function environment(spec: ContainerSpec, home: string): string[] {
  const variables = new Map<string, string>([
    ['PATH', '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
    ['HOME', home],
  ]);
  for (const entry of spec.image.config.env) {
    const at = entry.indexOf('=');
    if (at > 0 && !entry.includes('\0')) variables.set(entry.slice(0, at), entry.slice(at + 1));
  }
  for (const [name, value] of Object.entries(spec.env)) variables.set(name, value);
  variables.set('HOSTNAME', spec.id);
  return [...variables].map(([name, value]) => `${name}=${value}`);
}

/** What crun says, in words for the tenant; crun's own stay in `cause`. */
function startError(host: Host, command: string, error: unknown): Error {
  if (error instanceof RuntimeError) return error;
  const said =
    error instanceof CreateError
      ? error.message
      : error instanceof CommandError
        ? error.stderr
        : '';
  const options = { cause: error };
  if (isOutOfDisk(error)) return outOfDisk(error);
  if (/executable file .* not found|exec.*No such file or directory/i.test(said))
    return new RuntimeError('command-not-found', `The image has no command "${command}".`, options);
  if (/exec.*Permission denied/i.test(said))
    return new RuntimeError(
      'command-not-found',
      `The command "${command}" may not be executed (permission denied).`,
      options,
    );
  if (/Exec format error/i.test(said))
    return new RuntimeError(
      'command-not-found',
      `The command "${command}" is not a program for this machine.`,
      options,
    );
  if (/chdir|cwd/i.test(said))
    return new RuntimeError(
      'start-failed',
      'The working directory of the image cannot be entered.',
      options,
    );
  // crun and conmon do not always say that it was the disk.
  for (const dir of [host.dirs.scratch, host.dirs.crun]) {
    const { bavail, bsize, files, ffree } = statfsSync(dir);
    // A file system that has as many inodes as it has room says that it has none.
    if (bavail * bsize < leastFree.bytes || (files > 0 && ffree < leastFree.inodes))
      return outOfDisk(error);
  }
  return new RuntimeError('start-failed', 'The container could not be started.', options);
}

const outOfDisk = (cause: unknown): RuntimeError =>
  new RuntimeError('out-of-disk', 'The node has no disk left for another start.', { cause });
