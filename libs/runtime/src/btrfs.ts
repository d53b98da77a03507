import { closeSync, openSync } from 'node:fs';
import { ioctl, SyscallError } from './syscalls.ts';

/**
 * What we need of btrfs, by its ioctls (linux/btrfs.h, linux/btrfs_tree.h): microseconds a call, where
 * the btrfs program takes milliseconds. Synchronous and on the calling thread, which must see the mount.
 * Limits are of quota groups of level 0, one per subvolume, made and named by the kernel.
 */
const request = {
  resize: 0x5000_9403,
  sync: 0x9408,
  subvolumeCreate: 0x5000_940e,
  subvolumeDestroy: 0x5000_940f,
  treeSearch: 0xd000_9411,
  inodeLookup: 0xd000_9412,
  startSync: 0x8008_9418,
  fsInfo: 0x8400_941f,
  quotaControl: 0xc010_9428,
  quotaGroupLimit: 0x8030_942b,
} as const;

const firstFreeObject = 256n;
const lastFreeObject = -256n;
const rootTree = 1n;
const quotaTree = 8n;
const rootItem = 132;
const quotaGroupInfo = 242;
const quotaGroupLimitItem = 244;
const limitOfReferenced = 1n;

/** A directory on btrfs; the root of a subvolume, where that is said. */
export function onDirectory<T>(path: string, work: (fd: number) => T): T {
  const fd = openSync(path, 'r');
  try {
    return work(fd);
  } finally {
    closeSync(fd);
  }
}

/** struct btrfs_ioctl_vol_args */
function named(name: string): Buffer {
  const args = Buffer.alloc(4096);
  if (Buffer.byteLength(name) > 255) throw new Error(`The name ${name} is too long.`);
  args.write(name, 8);
  return args;
}

export const createSubvolume = (parentFd: number, name: string): void =>
  void ioctl('btrfs subvolume create', parentFd, request.subvolumeCreate, named(name));

/** With everything in it. Its space and its quota group follow when the kernel has cleaned it up (`startSync`). */
export const destroySubvolume = (parentFd: number, name: string): void =>
  void ioctl('btrfs subvolume delete', parentFd, request.subvolumeDestroy, named(name));

/** Number of the subvolume that the directory lies in, and of its quota group. */
export function subvolumeId(fd: number): bigint {
  const args = Buffer.alloc(4096);
  args.writeBigUInt64LE(firstFreeObject, 8);
  ioctl('btrfs inode lookup', fd, request.inodeLookup, args);
  return args.readBigUInt64LE(0);
}

/** Limits what the subvolume that `fd` lies in refers to: data and metadata, bytes. */
export function limitSubvolume(fd: number, bytes: number): void {
  const args = Buffer.alloc(48); // qgroupid (0: the one of fd), flags, max_rfer, max_excl, rsv_rfer, rsv_excl
  args.writeBigUInt64LE(limitOfReferenced, 8);
  args.writeBigUInt64LE(BigInt(bytes), 16);
  ioctl('btrfs qgroup limit', fd, request.quotaGroupLimit, args);
}

/**
 * Simple quotas (Linux 6.7) charge an extent to the subvolume that made it, and cost next to nothing;
 * the older kind finds out at each commit who shares what, which nobody does here.
 */
export function enableQuotas(fd: number): void {
  const [full, simple] = [1n, 4n];
  const args = Buffer.alloc(16);
  args.writeBigUInt64LE(simple, 0);
  try {
    ioctl('btrfs quota enable', fd, request.quotaControl, args);
  } catch (error) {
    if (!(error instanceof SyscallError) || error.code !== 'EINVAL') throw error;
    args.writeBigUInt64LE(full, 0);
    ioctl('btrfs quota enable', fd, request.quotaControl, args);
  }
}

/** Writes everything out, so that usage is exact; takes as long as the disk does. */
export const sync = (fd: number): void => void ioctl('btrfs sync', fd, request.sync, 0);

/** Starts writing out without waiting; after it the kernel cleans up deleted subvolumes. */
export const startSync = (fd: number): void =>
  void ioctl('btrfs start sync', fd, request.startSync, Buffer.alloc(8));

/** Lets the only device of the file system use all of its space. */
export const growToDevice = (fd: number): void =>
  void ioctl('btrfs resize', fd, request.resize, named('max'));

/** As in /sys/fs/btrfs. */
export function fileSystemId(fd: number): string {
  const args = Buffer.alloc(1024);
  ioctl('btrfs fs info', fd, request.fsInfo, args);
  return args
    .toString('hex', 16, 32)
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

interface Item {
  objectId: bigint;
  type: number;
  offset: bigint;
  data: Buffer;
}

interface Key {
  objectId: bigint;
  type: number;
  offset: bigint;
}

/** Items of a tree whose key is between the two, which both count. */
function searchTree(fd: number, tree: bigint, from: Key, to: Key): Item[] {
  const headerOfKey = 104;
  const headerOfItem = 32;
  const found: Item[] = [];
  let next: Key | null = from;
  while (next) {
    const args = Buffer.alloc(4096);
    args.writeBigUInt64LE(tree, 0);
    args.writeBigUInt64LE(BigInt.asUintN(64, next.objectId), 8);
    args.writeBigUInt64LE(BigInt.asUintN(64, to.objectId), 16);
    args.writeBigUInt64LE(BigInt.asUintN(64, next.offset), 24);
    args.writeBigUInt64LE(BigInt.asUintN(64, to.offset), 32);
    args.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 48); // max_transid
    args.writeUInt32LE(next.type, 56);
    args.writeUInt32LE(to.type, 60);
    args.writeUInt32LE(1000, 64);
    ioctl('btrfs tree search', fd, request.treeSearch, args);
    const count = args.readUInt32LE(64);
    let at = headerOfKey;
    next = null;
    for (let n = 0; n < count; n++) {
      const length = args.readUInt32LE(at + 28);
      const item = {
        objectId: args.readBigUInt64LE(at + 8),
        offset: args.readBigUInt64LE(at + 16),
        type: args.readUInt32LE(at + 24),
        data: Buffer.from(args.subarray(at + headerOfItem, at + headerOfItem + length)),
      };
      found.push(item);
      at += headerOfItem + length;
      next = { ...item, offset: item.offset + 1n };
    }
  }
  return found;
}

/** Bytes that the subvolume refers to as of the last commit, and its limit; null when it has no quota group. */
export function quotaOf(fd: number, id: bigint): { bytes: number; limit: number | null } | null {
  const read = (type: number): Buffer | null => {
    const key = { objectId: 0n, type, offset: id };
    return searchTree(fd, quotaTree, key, key)[0]?.data ?? null;
  };
  const info = read(quotaGroupInfo);
  if (!info) return null;
  const limit = read(quotaGroupLimitItem);
  const isLimited = limit !== null && (limit.readBigUInt64LE(0) & limitOfReferenced) !== 0n;
  return {
    bytes: Number(info.readBigUInt64LE(8)), // generation, rfer, ...
    limit: isLimited ? Number(limit.readBigUInt64LE(8)) : null,
  };
}

/** Numbers of all quota groups of subvolumes, gone ones included. */
export const quotaGroups = (fd: number): bigint[] =>
  searchTree(
    fd,
    quotaTree,
    { objectId: 0n, type: quotaGroupInfo, offset: firstFreeObject },
    { objectId: 0n, type: quotaGroupInfo, offset: (1n << 48n) - 1n },
  )
    .filter((item) => item.type === quotaGroupInfo)
    .map((item) => item.offset);

/** Numbers of the subvolumes under the file system's root, deleted ones that wait for the kernel included. */
export const subvolumes = (fd: number): bigint[] =>
  searchTree(
    fd,
    rootTree,
    { objectId: firstFreeObject, type: rootItem, offset: 0n },
    { objectId: lastFreeObject, type: rootItem, offset: -1n },
  )
    .filter((item) => item.type === rootItem)
    .map((item) => item.objectId);
