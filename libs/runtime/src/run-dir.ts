import { randomBytes } from 'node:crypto';
import {
  lstatSync,
  mkdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statfsSync,
  symlinkSync,
} from 'node:fs';

/**
 * Where containers' small, boot-lived files are: bundles, what conmon and crun keep, exit files. In
 * memory, because a start makes two dozen of them, and each costs about 0.1 ms on ext4 (and waits for
 * the journal when the disk is busy) but 5 µs on tmpfs. `run` in the state directory is a link to a
 * directory on one of the host's own memory file systems; no mount of ours is needed, a killed agent
 * leaves it to the next one, and a reboot clears it. Without such a file system `run` is a directory.
 */
const candidates = ['/run', '/dev/shm'];
const tmpfsMagic = 0x01021994;
/** With less the host's own services come first. */
const leastFreeBytes = 64 * 1024 * 1024;

export const runDir = (stateDir: string): string => `${stateDir}/run`;

/** Makes it unless it is there. The link comes first, so that a kill in between leaves nothing that is not found. */
export function prepareRunDir(stateDir: string): void {
  const path = runDir(stateDir);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found && (found.isDirectory() || isOurs(readlinkSync(path)))) return;
  const parent = candidates.find(isRoomyMemory);
  if (parent === undefined) {
    rmSync(path, { force: true });
    mkdirSync(path, { mode: 0o711 });
    return;
  }
  // Others may write to /dev/shm: nobody can take a name first that nobody can guess.
  const target = `${parent}/bulkhead-${randomBytes(8).toString('hex')}`;
  rmSync(`${path}.new`, { force: true });
  symlinkSync(target, `${path}.new`);
  renameSync(`${path}.new`, path);
  mkdirSync(target, { mode: 0o711 });
}

/** With everything in it. */
export function removeRunDir(stateDir: string): void {
  const path = runDir(stateDir);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isSymbolicLink()) {
    const target = readlinkSync(path);
    if (isOurs(target)) rmSync(target, { recursive: true, force: true });
  }
  rmSync(path, { recursive: true, force: true });
}

/** After a reboot the name is anybody's. */
function isOurs(target: string): boolean {
  const found = lstatSync(target, { throwIfNoEntry: false });
  return (
    found !== undefined &&
    found.isDirectory() &&
    found.uid === process.geteuid?.() &&
    (found.mode & 0o022) === 0
  );
}

function isRoomyMemory(dir: string): boolean {
  try {
    const { type, bavail, bsize } = statfsSync(dir);
    return type === tmpfsMagic && bavail * bsize >= leastFreeBytes;
  } catch {
    return false;
  }
}
