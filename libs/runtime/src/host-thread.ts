import { closeSync, openSync, readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { isMainThread } from 'node:worker_threads';
import {
  CLONE_NEWNET,
  CLONE_NEWNS,
  MS_BIND,
  MS_NODEV,
  MS_NOSUID,
  MS_RDONLY,
  MS_REC,
  MS_REMOUNT,
  MS_SLAVE,
  mount,
  setns,
  umount,
  unshareMounts,
} from './syscalls.ts';

/**
 * The mount namespaces of Node's main thread. Namespaces belong to a thread, and a child process
 * inherits those of the thread that forks it: `spawn` forks on the main thread, so a synchronous
 * block can enter a namespace, mount, spawn, and return, with nothing else of the process in it.
 *
 * The main thread lives in a private copy of the host's namespace (the base) in which a hybrid
 * machine's `/sys/fs/cgroup/unified` is not mounted, because crun refuses hybrid. It is a slave of
 * the host's: what the host mounts or unmounts later happens here too, nothing goes back. libuv's
 * threads, and with them `fs/promises`, stay in the host's namespace.
 */
/** Where cgroup v2 was before this process covered it. */
const hidden: string[] = [];
let base: number | null = null;
let entering: Promise<void> | null = null;

/** Moves the main thread into its base namespace, once per process. */
export function enterBaseNamespace(): Promise<void> {
  entering ??= enter();
  return entering;
}

async function enter(): Promise<void> {
  if (!isMainThread)
    throw new Error('The container runtime works on the main thread only, not in a worker.');
  // Starts libuv's threads while the main thread is still in the host's namespace.
  await stat('/');
  const cwd = workingDirectory();
  unshareMounts();
  mount('none', '/', null, MS_REC | MS_SLAVE, null);
  for (const point of hybridMounts(readFileSync('/proc/self/mountinfo', 'utf8'))) {
    umount(point);
    // crun makes directories here all the same: in memory of ours, not hidden under the host's mount.
    mount('tmpfs', point, 'tmpfs', MS_NOSUID | MS_NODEV, 'size=16m,mode=0755');
    hidden.push(point);
  }
  base = openSync('/proc/thread-self/ns/mnt', 'r');
  process.chdir(cwd);
}

/**
 * Makes a program's file read-only for what this process starts. crun copies itself before it touches
 * a container, so that nobody in there can write to the host's crun (CVE-2019-5736), unless it finds
 * itself on a read-only mount and `readOnlyCrun` in its environment: loading it twice costs a start a
 * millisecond. Should the file be replaced, the mount goes with it, and crun copies itself again.
 */
export function makeReadOnly(program: string): void {
  if (base === null) throw new Error('Call enterBaseNamespace() first.');
  if (readOnly.has(program)) return;
  mount(program, program, null, MS_BIND, null);
  mount('none', program, null, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, null);
  readOnly.add(program);
}
const readOnly = new Set<string>();
export const readOnlyCrun = { _LIBCONTAINER_CLONED_BINARY: '1' } as const;

/** Mount points of a hybrid machine's cgroup v2, hidden from crun behind ordinary directories. */
export const hiddenCgroups = (): readonly string[] => hidden;

/** Mount points of cgroup v2 on a machine that has v1 controllers too. */
export function hybridMounts(mountinfo: string): string[] {
  const mounts = mountinfo
    .split('\n')
    .map((line) => line.split(' '))
    .map((fields) => ({ point: fields[4] ?? '', type: fields[fields.indexOf('-') + 1] }));
  if (!mounts.some((m) => m.type === 'cgroup')) return [];
  return mounts.filter((m) => m.type === 'cgroup2').map((m) => m.point);
}

/** Runs `work`, which must be synchronous, in a new mount namespace: children it spawns keep it, this thread returns. */
export function inPrivateMounts<T>(work: () => T): T {
  if (base === null) throw new Error('Call reconcile() before anything else.');
  const cwd = workingDirectory();
  unshareMounts();
  try {
    return work();
  } finally {
    orAbort(() => {
      setns(base ?? -1, CLONE_NEWNS);
      process.chdir(cwd);
    });
  }
}

/** Runs `work`, which must be synchronous, in the network namespace of the process `pid`. */
export function inNetworkOf<T>(pid: number, work: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    const there = openSync(`/proc/${pid}/ns/net`, 'r');
    try {
      setns(there, CLONE_NEWNET);
    } finally {
      closeSync(there);
    }
    try {
      return work();
    } finally {
      orAbort(() => setns(home, CLONE_NEWNET));
    }
  } finally {
    closeSync(home);
  }
}

/** Namespace changes lose it, so it is put back; one that was deleted cannot be. */
function workingDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}

/** A main thread stuck in a container's namespace would do the host's work there: worse than a crash. */
function orAbort(goBack: () => void): void {
  try {
    goBack();
  } catch (error) {
    console.error('The main thread cannot return to its namespace; ending the process.', error);
    process.abort();
  }
}
