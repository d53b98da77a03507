import { closeSync, constants, fstatSync, mkdirSync, openSync, readSync, rmSync } from 'node:fs';
import {
  attach,
  cloneIdmapped,
  closeFd,
  makeNullDevice,
  mount,
  MS_BIND,
  MS_NODEV,
  MS_NOSUID,
  openInRoot,
  SyscallError,
  umount,
} from './syscalls.ts';
import { step } from './steps.ts';

/** Parts of a container's root file system; paths are the host's. */
export interface RootfsParts {
  /** Image layers, topmost first. */
  layers: readonly string[];
  usernsFd: number;
  /** Has `upper` and `work`. */
  layer: string;
  rootfs: string;
  /** Host id of the container's root. */
  idBase: number;
  /** An empty directory; used as a mount point in the caller's private namespace only. */
  scratch: string;
}

/**
 * Mounts the overlay: layers that all containers share, seen through this container's ids, under
 * its own writable layer. Only inside `inPrivateMounts`. The layers get no place in the tree: the
 * overlay takes them by descriptor. A kernel before 6.15 refuses that (EINVAL); there they are mounted
 * on short relative paths, because the options of a mount must fit a page and an image may have 127
 * layers, and unmounted again, which waits for an RCU grace period.
 *
 * It also gets a /dev/null of its own: crun hands the files behind standard input and output to the
 * container's user, and with the machine's /dev/null as input every tenant would own that.
 */
export function mountRootfs(parts: RootfsParts): void {
  step('mount-scratch');
  mount('tmpfs', parts.scratch, 'tmpfs', MS_NOSUID, 'size=1m,mode=0755');
  process.chdir(parts.scratch);
  makeNullDevice('null');
  mount('null', '/dev/null', null, MS_BIND, null);
  step('mount-layers');
  const trees: number[] = [];
  try {
    for (const layer of parts.layers) trees.push(cloneIdmapped(layer, parts.usernsFd));
    try {
      mountOverlay(
        parts,
        trees.map((tree) => `/proc/self/fd/${tree}`),
      );
    } catch (error) {
      if (!(error instanceof SyscallError) || error.code !== 'EINVAL') throw error;
      // What the refused attempt left there: `volatile` does not start on the remains of another.
      rmSync(`${parts.layer}/work/work`, { recursive: true, force: true });
      trees.forEach((tree, index) => {
        mkdirSync(String(index));
        attach(tree, String(index));
      });
      mountOverlay(
        parts,
        trees.map((_, index) => String(index)),
      );
      process.chdir('/');
      umount(parts.scratch);
    }
  } finally {
    for (const tree of trees) closeFd(tree);
  }
}

function mountOverlay(parts: RootfsParts, lowers: readonly string[]): void {
  const options = [
    `lowerdir=${lowers.join(':')}`,
    `upperdir=${parts.layer}/upper`,
    `workdir=${parts.layer}/work`,
    // A layer's own attributes must not send lookups elsewhere.
    'redirect_dir=nofollow,metacopy=off,index=off,xino=off',
    // The layer ends with the run: nothing in it needs to survive a power cut, so syncs cost nobody.
    'volatile',
  ];
  step('mount-overlay');
  mount('overlay', parts.rootfs, 'overlay', MS_NOSUID | MS_NODEV, options.join(','));
}

const largestFile = 1024 * 1024;

/** Text of a regular file inside a root file system; null when there is none. No link in it leads out. */
export function readInside(rootfs: string, path: string): string | null {
  const root = openSync(rootfs, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    // Non-blocking: the image may have a FIFO there.
    const file = openInRoot(
      root,
      path,
      constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY,
    );
    try {
      if (!fstatSync(file).isFile()) return null;
      const buffer = Buffer.alloc(Math.min(fstatSync(file).size, largestFile));
      let size = 0;
      for (let read = 1; read > 0 && size < buffer.length; size += read)
        read = readSync(file, buffer, size, buffer.length - size, null);
      return buffer.toString('utf8', 0, size);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (error instanceof SyscallError) return null;
    throw error;
  } finally {
    closeSync(root);
  }
}
