import {
  chownSync,
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  unlinkSync,
} from 'node:fs';
import { RuntimeError } from './runtime.ts';
import { openWithoutLinks, SyscallError } from './syscalls.ts';

/** What every container gets from the platform, whatever its image has there. */
export const etcFiles = ['hosts', 'hostname', 'resolv.conf'] as const;

/**
 * Makes `/etc` and an ordinary file for each of `etcFiles` in a root file system that nothing runs
 * in yet, so that something can be mounted on them. A link that the image planted there would lead
 * the mount elsewhere in the container; it is taken away, never followed.
 */
export function prepareEtc(rootfs: string, owner: number): void {
  const root = openSync(rootfs, constants.O_RDONLY | constants.O_DIRECTORY);
  let etc: number | null = null;
  try {
    etc = openEtc(root, owner);
    for (const name of etcFiles) prepareFile(`/proc/self/fd/${etc}/${name}`, name, owner);
  } finally {
    if (etc !== null) closeSync(etc);
    closeSync(root);
  }
}

function openEtc(root: number, owner: number): number {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY;
  try {
    return openWithoutLinks(root, 'etc', flags);
  } catch (error) {
    const code = error instanceof SyscallError ? error.code : '';
    if (code === 'ELOOP' || code === 'ENOTDIR')
      throw new RuntimeError(
        'start-failed',
        'The image has no directory /etc but something else of that name; make it a directory.',
      );
    if (code !== 'ENOENT') throw error;
  }
  const path = `/proc/self/fd/${root}/etc`;
  mkdirSync(path, { mode: 0o755 });
  chownSync(path, owner, owner);
  return openWithoutLinks(root, 'etc', flags);
}

function prepareFile(path: string, name: string, owner: number): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isFile()) return;
  if (found?.isDirectory())
    throw new RuntimeError(
      'start-failed',
      `The image has a directory /etc/${name}, where the platform puts a file; remove it.`,
    );
  if (found) unlinkSync(path);
  const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
  closeSync(openSync(path, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0o644));
  chownSync(path, owner, owner);
}
