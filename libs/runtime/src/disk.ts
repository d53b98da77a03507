import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as btrfs from './btrfs.ts';
import { findProgram, run } from './exec.ts';
import { attachLoop, findLoop, growLoop } from './loop.ts';
import type { Loop } from './loop.ts';
import { step } from './steps.ts';
import { mount, MS_NOATIME, MS_NODEV, MS_NOSUID, SyscallError, umount } from './syscalls.ts';

/**
 * The writable layers of all containers, with a hard limit on each where the host can have one: on
 * btrfs, a layer is a subvolume and its quota group has the limit. Where the state directory is on
 * btrfs with quotas it is used as it is; anywhere else a file in it holds a btrfs of our own (the pool).
 *
 * The pool is mounted in the main thread's base namespace (host-thread.ts) and nowhere else, so that
 * only this thread and the programs it spawns see it, and the kernel takes mount and loop device away
 * with the last process that needs them: the agent, or a container. A pool that nothing holds has no
 * layer worth keeping (a layer ends with its run), so it is made anew instead of being repaired.
 */
export interface WritableLayers {
  /** `none`: this host has no way to limit a layer. */
  readonly kind: 'btrfs' | 'none';
  /** Makes the layer of a container: `upper` and `work`, owned by the host id `owner`. */
  make(id: string, bytes: number, owner: number): void;
  /** Succeeds when there is none. */
  remove(id: string): Promise<void>;
  /** What the layer takes as of the last commit (seconds), and may take; null when nothing is counted here. */
  usage(id: string): { bytes: number; limit: number } | null;
  /** Whether the layer was as good as at its limit; asked when its container has ended. */
  isFull(id: string): boolean;
  list(): string[];
  /** Room for all layers; null when that is whatever the state directory's file system has. */
  pool(): { bytes: number; usedBytes: number } | null;
  /** Removes all layers, and the pool with its mount, loop device and file. */
  destroy(): Promise<void>;
}

export interface LayersOptions {
  stateDir: string;
  /** Where the layers go; on the pool when there is one. */
  dir: string;
  /** Size of the pool; undefined: what there is, or a share of the free space; 0: no pool. */
  poolMiB: number | undefined;
  onProblem: (what: string, error: unknown) => void;
}

const mebibyte = 1024 * 1024;
/** Of the root directory of every subvolume. */
const rootInode = 256;
const btrfsMagic = 0x9123683e;
/** Of the free space, for a pool whose size nobody chose. The rest is for images, logs and the host. */
const shareOfFree = 0.5;
const smallestPoolMiB = 128;
/** A write that does not fit fails before the last byte is taken: whole blocks, and metadata reserved for the worst case. */
const slackBytes = mebibyte;
/** A deleted layer's space comes back this much later. */
const reclaimAfterMs = 200;

/** Finds out what this host can do and makes it ready. Call in the base namespace, once. */
export async function openLayers(options: LayersOptions): Promise<WritableLayers> {
  const { stateDir, dir, poolMiB, onProblem } = options;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const file = `${stateDir}/pool.img`;
  if (isMounted(dir)) return new BtrfsLayers(dir, file);
  const loop = existsSync(file) ? findLoop(file) : null;
  if (loop) {
    try {
      mountPool(loop.device, dir);
      await grow(loop, file, dir, poolMiB);
    } finally {
      closeSync(loop.fd);
    }
    return new BtrfsLayers(dir, file);
  }
  if (hasQuotas(stateDir)) {
    rmSync(file, { force: true });
    return new BtrfsLayers(dir, null);
  }
  if (poolMiB === 0) return new PlainLayers(dir);
  const missing = await whatIsMissing(dir);
  if (missing !== null) {
    onProblem('limiting the disk of containers', new Error(missing));
    return new PlainLayers(dir);
  }
  await makePool(file, poolMiB);
  step('attach-loop');
  const made = attachLoop(file);
  try {
    step('mount-pool');
    mountPool(made.device, dir);
    step('enable-quotas');
    btrfs.onDirectory(dir, btrfs.enableQuotas);
  } catch (error) {
    if (isMounted(dir)) umount(dir);
    throw error;
  } finally {
    closeSync(made.fd);
  }
  return new BtrfsLayers(dir, file);
}

/** Whether `path` is on a btrfs whose operator has switched quotas on. We do not: they slow down whoever keeps snapshots. */
function hasQuotas(path: string): boolean {
  if (statfsSync(path).type !== btrfsMagic) return false;
  const id = btrfs.onDirectory(path, btrfs.fileSystemId);
  const fact = (name: string): string => textOf(`/sys/fs/btrfs/${id}/qgroups/${name}`);
  // While they are counted anew the kernel enforces nothing.
  return fact('enabled') === '1' && fact('inconsistent') === '0';
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}

const isMounted = (dir: string): boolean => statSync(dir).dev !== statSync(`${dir}/..`).dev;

/** Why there can be no pool on this host; null when there can. */
async function whatIsMissing(dir: string): Promise<string | null> {
  if (readdirSync(dir).length > 0)
    return 'Containers that were started without a disk limit are still here; remove them and start the agent again.';
  // Fails where it is built in, or there is nothing to load.
  await run('modprobe', ['-a', 'btrfs', 'loop']).catch(() => undefined);
  if (!/\bbtrfs$/m.test(textOf('/proc/filesystems'))) return 'The kernel has no btrfs.';
  if (!existsSync('/dev/loop-control')) return 'There are no loop devices (/dev/loop-control).';
  try {
    findProgram('mkfs.btrfs');
  } catch {
    return 'mkfs.btrfs is not installed (package btrfs-progs).';
  }
  return null;
}

/**
 * All of its space is taken from the host's file system now. A sparse pool on a full disk would fail
 * to write what tenants were promised, and btrfs then goes read-only under all of them.
 */
async function makePool(file: string, poolMiB: number | undefined): Promise<void> {
  if (poolMiB === undefined ? !existsSync(file) : !existsSync(file) || sizeMiB(file) !== poolMiB) {
    step('allocate-pool');
    rmSync(file, { force: true });
    await allocatePool(file, poolMiB ?? defaultSizeMiB(dirname(file)));
  }
  step('format-pool');
  await run('mkfs.btrfs', ['-q', '-f', '-K', '-m', 'single', '-d', 'single', file]);
}

const sizeMiB = (file: string): number => Math.floor(statSync(file).size / mebibyte);

function defaultSizeMiB(dir: string): number {
  const { bavail, bsize } = statfsSync(dir);
  return Math.floor((bavail * bsize * shareOfFree) / mebibyte);
}

async function allocatePool(file: string, size: number): Promise<void> {
  if (size < smallestPoolMiB)
    throw new Error(
      `A pool for the containers' disks of ${size} MiB is too small (the least is ${smallestPoolMiB} MiB): free some disk, or choose its size.`,
    );
  const fresh = `${file}.new`;
  rmSync(fresh, { force: true });
  try {
    await run('truncate', ['--size=0', fresh]);
    chmodSync(fresh, 0o600);
    // On btrfs itself, space that is allocated is only sure to be there without copy-on-write.
    if (statfsSync(fresh).type === btrfsMagic) await run('chattr', ['+C', fresh]);
    await run('fallocate', [`--length=${size}MiB`, fresh], { deadlineMs: 120_000 });
  } catch (error) {
    rmSync(fresh, { force: true });
    throw new Error(`No room for a pool of ${size} MiB for the containers' disks.`, {
      cause: error,
    });
  }
  renameSync(fresh, file);
}

/** Scratch space: checksums, barriers and the log protect nothing that outlives the machine. The file keeps its blocks. */
function mountPool(device: string, dir: string): void {
  const options = 'nodatasum,nodiscard,nobarrier,notreelog';
  mount(device, dir, 'btrfs', MS_NOSUID | MS_NODEV | MS_NOATIME, options);
  chmodSync(dir, 0o700);
}

/** A pool in use gets larger, never smaller. */
async function grow(
  loop: Loop,
  file: string,
  dir: string,
  poolMiB: number | undefined,
): Promise<void> {
  if (poolMiB === undefined || poolMiB <= sizeMiB(file)) return;
  await run('fallocate', [`--length=${poolMiB}MiB`, file], { deadlineMs: 120_000 });
  growLoop(loop);
  btrfs.onDirectory(dir, btrfs.growToDevice);
}

function makeUpperAndWork(layer: string, owner: number): void {
  for (const name of ['upper', 'work']) {
    mkdirSync(`${layer}/${name}`, { mode: 0o755 });
    chownSync(`${layer}/${name}`, owner, owner);
  }
}

class BtrfsLayers implements WritableLayers {
  readonly kind = 'btrfs';
  readonly #dir: string;
  /** The pool's file; null on the host's own btrfs. */
  readonly #file: string | null;
  #reclaim: NodeJS.Timeout | null = null;

  constructor(dir: string, file: string | null) {
    this.#dir = dir;
    this.#file = file;
  }

  make(id: string, bytes: number, owner: number): void {
    btrfs.onDirectory(this.#dir, (fd) => btrfs.createSubvolume(fd, id));
    const layer = `${this.#dir}/${id}`;
    step('limit-layer');
    btrfs.onDirectory(layer, (fd) => btrfs.limitSubvolume(fd, bytes));
    step('own-layer');
    chmodSync(layer, 0o700);
    makeUpperAndWork(layer, owner);
  }

  remove(id: string): Promise<void> {
    try {
      btrfs.onDirectory(this.#dir, (fd) => btrfs.destroySubvolume(fd, id));
    } catch (error) {
      if (!(error instanceof SyscallError)) return Promise.reject(error as Error);
      if (error.code === 'ENOENT') return Promise.resolve();
      // Made before this file system had quotas.
      if (error.code === 'EINVAL')
        return Promise.resolve(rmSync(`${this.#dir}/${id}`, { recursive: true, force: true }));
      return Promise.reject(error);
    }
    // The kernel takes its time (30 s) to clean up what was deleted, and a full pool would stay full until then.
    this.#reclaim ??= setTimeout(() => {
      this.#reclaim = null;
      if (existsSync(this.#dir)) btrfs.onDirectory(this.#dir, btrfs.startSync);
    }, reclaimAfterMs).unref();
    return Promise.resolve();
  }

  usage(id: string): { bytes: number; limit: number } | null {
    const layer = `${this.#dir}/${id}`;
    // What has another number is no subvolume's root: a layer from before this file system had quotas.
    if (!existsSync(layer) || statSync(layer).ino !== rootInode) return null;
    const quota = btrfs.onDirectory(layer, (fd) => btrfs.quotaOf(fd, btrfs.subvolumeId(fd)));
    return quota?.limit ? { bytes: quota.bytes, limit: quota.limit } : null;
  }

  isFull(id: string): boolean {
    // Exact without a sync: the kernel commits what there is before it refuses a write.
    const usage = this.usage(id);
    return usage !== null && usage.limit - usage.bytes < slackBytes;
  }

  list(): string[] {
    return readdirSync(this.#dir);
  }

  pool(): { bytes: number; usedBytes: number } | null {
    if (this.#file === null) return null;
    const { blocks, bfree, bsize } = statfsSync(this.#dir);
    return { bytes: blocks * bsize, usedBytes: (blocks - bfree) * bsize };
  }

  async destroy(): Promise<void> {
    if (this.#reclaim) clearTimeout(this.#reclaim);
    this.#reclaim = null;
    for (const id of this.list()) await this.remove(id);
    if (this.#reclaim) clearTimeout(this.#reclaim);
    this.#reclaim = null;
    if (this.#file === null) {
      btrfs.onDirectory(this.#dir, btrfs.startSync);
    } else {
      umount(this.#dir);
      await untilDetached(this.#file);
      rmSync(this.#file, { force: true });
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** The kernel takes the last mount away some time after the last process that had it. */
async function untilDetached(file: string, deadlineMs = 10_000): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const loop = findLoop(file);
    if (!loop) return;
    closeSync(loop.fd);
    if (performance.now() > deadline)
      throw new Error(`Something still uses ${loop.device} (${file}).`);
    await delay(5);
  }
}

/** Without any limit, for hosts that cannot have one. */
class PlainLayers implements WritableLayers {
  readonly kind = 'none';
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  make(id: string, _bytes: number, owner: number): void {
    mkdirSync(`${this.#dir}/${id}`, { mode: 0o700 });
    makeUpperAndWork(`${this.#dir}/${id}`, owner);
  }

  remove(id: string): Promise<void> {
    rmSync(`${this.#dir}/${id}`, { recursive: true, force: true });
    return Promise.resolve();
  }

  usage(): null {
    return null;
  }

  isFull(): boolean {
    return false;
  }

  list(): string[] {
    return readdirSync(this.#dir);
  }

  pool(): null {
    return null;
  }

  destroy(): Promise<void> {
    rmSync(this.#dir, { recursive: true, force: true });
    return Promise.resolve();
  }
}
