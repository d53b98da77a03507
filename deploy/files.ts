/** Files and directories with their right owner and mode, also when they exist with wrong ones. */
import {
  chmod,
  chown,
  lchown,
  mkdir,
  readFile,
  readdir,
  rename,
  stat,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';

export interface Owner {
  uid: number;
  gid: number;
}
export const root: Owner = { uid: 0, gid: 0 };

export async function ensureDirectory(
  path: string,
  mode: number,
  owner: Owner = root,
): Promise<void> {
  await mkdir(path, { recursive: true });
  await setOwnerAndMode(path, mode, owner);
}

/**
 * As `ensureDirectory`, for a directory that a service fills: when it belongs to somebody else (the
 * state came from another machine, where the user had another number), so does what is in it, and
 * all of it changes hands.
 */
export async function ensureServiceDirectory(path: string, owner: Owner): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const now = await stat(path);
  if (now.uid !== owner.uid) {
    for (const name of await readdir(path, { recursive: true }))
      await lchown(join(path, name), owner.uid, owner.gid);
  }
  await setOwnerAndMode(path, 0o700, owner);
}

/** Sets owner and mode only where they differ, so that a second run changes nothing. */
export async function setOwnerAndMode(path: string, mode: number, owner: Owner): Promise<void> {
  const now = await stat(path);
  if (now.uid !== owner.uid || now.gid !== owner.gid) await chown(path, owner.uid, owner.gid);
  if ((now.mode & 0o7777) !== mode) await chmod(path, mode);
}

/**
 * Writes a file whole or not at all; true when its text changed. The temporary file has its final
 * owner and mode before any text is in it.
 */
export async function ensureFile(
  path: string,
  text: string,
  mode: number,
  owner: Owner = root,
): Promise<boolean> {
  if ((await readTextIfThere(path)) === text) {
    await setOwnerAndMode(path, mode, owner);
    return false;
  }
  const temporary = `${path}.${randomBytes(6).toString('hex')}`;
  await writeFile(temporary, '', { mode: 0o600, flag: 'wx' });
  await setOwnerAndMode(temporary, mode, owner);
  await writeFile(temporary, text);
  await rename(temporary, path);
  return true;
}

/** A file that is made once and kept: its text as it is, or as `make` made it. */
export async function ensureFileOnce(
  path: string,
  make: () => string | Promise<string>,
  mode: number,
  owner: Owner = root,
): Promise<string> {
  const there = await readTextIfThere(path);
  const text = there ?? (await make());
  await ensureFile(path, text, mode, owner);
  return text;
}

export async function readTextIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
