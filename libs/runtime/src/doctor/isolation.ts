import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
  openSync,
} from 'node:fs';
import * as btrfs from '../btrfs.ts';
import { run } from '../exec.ts';
import { inPrivateMounts } from '../host-thread.ts';
import { attachLoop } from '../loop.ts';
import { mountRootfs } from '../rootfs.ts';
import { MS_NOATIME, MS_NODEV, MS_NOSUID, mount } from '../syscalls.ts';
import { openUserNamespace } from '../userns.ts';
import { degraded, missing, ok, type Finding } from './findings.ts';
import { tryFilter } from './seccomp.ts';
import { errorText } from './trial.ts';

const noStart = 'no container starts';

/** A user namespace of its own for a container, and whether there can be one for each of `wanted`. */
export async function examineUserNamespaces(idBase: number, wanted: number): Promise<Finding> {
  const check = 'user-namespaces';
  try {
    closeSync(await openUserNamespace(idBase));
  } catch (error) {
    return missing(check, {
      found: errorText(error),
      fallback: noStart,
      meaning: 'Root in a container would be root of the host.',
      todo: 'sysctl user.max_user_namespaces=65536; a kernel with CONFIG_USER_NS.',
    });
  }
  const most = Number(readFileSync('/proc/sys/user/max_user_namespaces', 'utf8'));
  if (most >= wanted) return ok(check, `made one with ids from ${idBase}; at most ${most}`);
  return degraded(check, {
    found: `made one; at most ${most}, and ${wanted} instances may run here`,
    fallback: 'starts fail when there are no more',
    meaning: 'Nothing is less isolated; fewer instances fit.',
    todo: `sysctl user.max_user_namespaces=${wanted * 2}`,
  });
}

/** An overlay over an idmapped layer, as a container's root file system is, and whose the layer's file is in it. */
export async function examineIdmap(dir: string, idBase: number): Promise<Finding> {
  const check = 'idmapped-layers';
  const at = mkdtempSync(`${dir}/bulkhead-doctor-`);
  let usernsFd: number | null = null;
  try {
    usernsFd = await openUserNamespace(idBase);
    const parts = { layers: [`${at}/lower`], layer: `${at}/layer`, rootfs: `${at}/root` };
    for (const path of [...parts.layers, parts.layer, parts.rootfs, `${at}/scratch`])
      mkdirSync(path);
    for (const path of ['upper', 'work']) mkdirSync(`${parts.layer}/${path}`);
    writeFileSync(`${at}/lower/file`, '');
    const owner = inPrivateMounts(() => {
      mountRootfs({ ...parts, usernsFd: usernsFd ?? -1, idBase, scratch: `${at}/scratch` });
      return statSync(`${parts.rootfs}/file`).uid;
    });
    if (owner !== idBase) throw new Error(`the layer's file belongs to ${owner}, not to ${idBase}`);
    return ok(check, `mounted an overlay over an idmapped layer in ${dir}`);
  } catch (error) {
    return missing(check, {
      found: errorText(error),
      fallback: noStart,
      meaning: 'Layers cannot be shared by containers with ids of their own.',
      todo: 'Linux 5.19 or newer, with the state directory on ext4, xfs or btrfs.',
    });
  } finally {
    if (usernsFd !== null) closeSync(usernsFd);
    rmSync(at, { recursive: true, force: true });
  }
}

/** A filter, loaded on this process for a call that nobody makes. */
export function examineSeccomp(): Finding {
  const check = 'seccomp';
  try {
    tryFilter();
    const actions = readFileSync('/proc/sys/kernel/seccomp/actions_avail', 'utf8').trim();
    if (!actions.split(' ').includes('errno')) throw new Error(`no action errno, only ${actions}`);
    return ok(check, `loaded a filter and it refused; actions: ${actions}`);
  } catch (error) {
    return missing(check, {
      found: errorText(error),
      fallback: noStart,
      meaning: 'Containers could make every system call.',
      todo: 'A kernel with CONFIG_SECCOMP_FILTER.',
    });
  }
}

const poolMiB = 128;
const limitBytes = 1024 * 1024;

const noDiskLimit = (found: string, todo: string): Finding =>
  missing('disk-limit', {
    found,
    fallback: 'writable layers in the state directory, without limits',
    meaning: 'One container can fill the disk of all.',
    todo,
  });

/** A pool with a subvolume in it that is written to past its limit. `wantedMiB` is what the agent is told. */
export async function examineDiskLimit(dir: string, wantedMiB?: number): Promise<Finding> {
  if (wantedMiB === 0)
    return noDiskLimit('AGENT_DISK_POOL_MIB is 0: none is wanted', 'Give the pool a size.');
  const at = mkdtempSync(`${dir}/bulkhead-doctor-`);
  const file = `${at}/pool.img`;
  try {
    await run('modprobe', ['-a', 'btrfs', 'loop']).catch(() => undefined);
    mkdirSync(`${at}/pool`);
    await run('truncate', [`--size=${poolMiB}M`, file]);
    await run('mkfs.btrfs', ['-q', '-f', '-K', '-m', 'single', '-d', 'single', file]);
    const { device, fd } = attachLoop(file);
    try {
      const written = inPrivateMounts(() => {
        mount(device, `${at}/pool`, 'btrfs', MS_NOSUID | MS_NODEV | MS_NOATIME, 'nodatasum');
        return writePastLimit(`${at}/pool`);
      });
      return ok(
        'disk-limit',
        `btrfs pool: a layer of ${limitBytes / 1024} KiB took ${Math.round(written / 1024)} KiB and no more`,
      );
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    return noDiskLimit(
      `btrfs pool: ${errorText(error)}`,
      'Install btrfs-progs, and a kernel with btrfs and loop devices.',
    );
  } finally {
    rmSync(at, { recursive: true, force: true });
  }
}

/** Bytes until the quota refused; throws when it did not. */
function writePastLimit(pool: string): number {
  btrfs.onDirectory(pool, btrfs.enableQuotas);
  btrfs.onDirectory(pool, (fd) => btrfs.createSubvolume(fd, 'layer'));
  btrfs.onDirectory(`${pool}/layer`, (fd) => btrfs.limitSubvolume(fd, limitBytes));
  const block = Buffer.alloc(64 * 1024, 1);
  const fd = openSync(`${pool}/layer/file`, 'w');
  try {
    for (let written = 0; written < limitBytes * 4; written += block.length) {
      try {
        writeSync(fd, block);
      } catch (error) {
        const EDQUOT = -122; // Node has no name for it
        if ((error as NodeJS.ErrnoException).errno === EDQUOT) return written;
        throw error;
      }
    }
  } finally {
    closeSync(fd);
  }
  throw new Error('a layer took four times its limit');
}
