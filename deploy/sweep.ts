/**
 * Removes by force what a platform left behind: the second net of `down`, for the case that the
 * agent cannot do it (its files are damaged, or it was killed on the way).
 */
import { execFile } from 'node:child_process';
import { rmdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Inventory } from './leftovers.ts';

const execute = promisify(execFile);

/** Tries everything; what did not work is found by looking again. */
export async function sweep(found: Inventory): Promise<void> {
  for (const { pid } of found.processes) attemptKill(pid);
  // The last mounted first, and lazily: a process may be a moment from its end.
  for (const mount of found.mounts.toReversed()) await attempt('umount', ['--lazy', mount]);
  for (const { device } of found.loopDevices) await attempt('losetup', ['--detach', device]);
  for (const name of found.networkNamespaces) await attempt('ip', ['netns', 'delete', name]);
  for (const name of found.interfaces) await attempt('ip', ['link', 'delete', name]);
  for (const table of found.nftTables)
    await attempt('nft', ['delete', 'table', ...table.split(' ')]);
  // Behind everything that they keep from being forwarded.
  for (const rule of found.policyRules) await attempt('ip', ['rule', 'delete', ...rule.split(' ')]);
  for (const route of found.routes) await attempt('ip', ['route', 'delete', ...route.split(' ')]);
  // Deepest first; a cgroup whose processes are not gone yet is found again by the next look.
  for (const dir of found.cgroups.toReversed()) await rmdir(dir).catch(() => undefined);
}

async function attempt(command: string, args: string[]): Promise<void> {
  await execute(command, args, { timeout: 10_000 }).catch(() => undefined);
}

function attemptKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone in the meantime.
  }
}
