import {
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  type Dirent,
} from 'node:fs';
import { planAddresses, idsPerContainer } from '../addresses.ts';
import { run } from '../exec.ts';
import { runDir } from '../run-dir.ts';
import type { ContainerStatus, RuntimeOptions } from '../runtime.ts';

/**
 * Counts all that a runtime of these options has on this host, in lines that two moments can be
 * compared by: numbers that differ from run to run (pids, slots) are told by the container they
 * belong to. What only the agent sees (layers, quota groups) it is asked for.
 *
 * `agents` are the processes that may see and hold everything, with the programs that they run at
 * the moment; `server` may have children that answer.
 */
export async function account(
  options: RuntimeOptions,
  present: readonly ContainerStatus[],
  agents: readonly number[],
  server: number,
): Promise<string[]> {
  const addresses = planAddresses(options.network, options.idBase, options.vethPrefix);
  const owners = new Map<number, string>();
  for (let slot = 1; slot <= addresses.last; slot++) {
    const owner = present.find(({ address }) => address === addresses.address(slot));
    if (owner) owners.set(slot, owner.id);
  }
  const ownerOf = (slot: number): string => owners.get(slot) ?? `nobody (slot ${slot})`;
  const found: string[] = [];
  for (const name of readdirSync('/sys/class/net')) {
    const slot = addresses.slotOfInterface(name);
    if (slot !== null) found.push(`interface of ${ownerOf(slot)}`);
  }
  const prefix = options.network.split('.').slice(0, 3).join('.');
  for (const line of (await run('ip', ['route'])).stdout.split('\n')) {
    const slot = addresses.slotOfInterface(/ dev (\S+)/.exec(line)?.[1] ?? '');
    if (line.startsWith(`${prefix}.`)) found.push(`route to ${ownerOf(slot ?? 0)}`);
  }
  for (const root of readdirSync('/sys/fs/cgroup'))
    found.push(
      ...tree(`/sys/fs/cgroup/${root}/${options.cgroup}`).map((at) => `cgroup ${root}${at}`),
    );
  found.push(
    ...processes(options, { agents, server }, (uid) => {
      const slot = Math.floor((uid - options.idBase) / idsPerContainer);
      return slot >= 1 && slot <= addresses.last ? ownerOf(slot) : null;
    }),
  );
  for (const name of readdirSync('/sys/block'))
    if (text(`/sys/block/${name}/loop/backing_file`).startsWith(`${options.stateDir}/`))
      found.push('loop device');
  const rules = (await run('ip', ['rule'])).stdout.split('\n');
  found.push(
    ...rules.filter((line) => line.includes(options.network)).map((line) => `rule ${line}`),
  );
  const tables = (await run('nft', ['list', 'tables'])).stdout.split('\n');
  found.push(...tables.filter((line) => line.endsWith(` ${options.nftTable}`)));
  found.push(...files(options.stateDir));
  found.push(...files(realpathSync(runDir(options.stateDir))).map((path) => `/run${path}`));
  return found.toSorted();
}

/** All that live in our namespaces, cgroups, id ranges or directories, and how many namespaces those are. */
function processes(
  options: RuntimeOptions,
  but: { agents: readonly number[]; server: number },
  owner: (uid: number) => string | null,
): string[] {
  const found: string[] = [];
  const namespaces = { mnt: new Set<string>(), net: new Set<string>(), user: new Set<string>() };
  const own = (kind: string): string => link(`/proc/self/ns/${kind}`);
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (Number(pid) === process.pid || but.agents.includes(Number(pid))) continue;
    const program = link(`/proc/${pid}/exe`).split('/').at(-1);
    const parent = Number(/^PPid:\s+(\d+)/m.exec(text(`/proc/${pid}/status`))?.[1]);
    if (parent === but.server || (but.agents.includes(parent) && program !== 'conmon')) continue;
    const command = text(`/proc/${pid}/cmdline`).split('\0');
    const uid = Number(/^Uid:\s+(\d+)/m.exec(text(`/proc/${pid}/status`))?.[1]);
    const cgroup = /:(?:[^:]*pids[^:]*|):\/?(.*)$/m.exec(text(`/proc/${pid}/cgroup`))?.[1] ?? '';
    const mapped = owner(uid);
    const ours =
      mapped !== null ||
      cgroup.includes(`${options.cgroup}/`) ||
      command.some((argument) => argument.includes(`${options.stateDir}/`)) ||
      text(`/proc/${pid}/mountinfo`).includes(`${options.stateDir}/`);
    // One that ended while it was looked at.
    if (!ours || program === '') continue;
    const of = mapped ?? command[command.indexOf('--cid') + 1] ?? '';
    // One that was let go, or held still, may still be crun on its way to the container's command.
    found.push(mapped === null ? `process ${program} of ${of}` : `process of ${of}`);
    for (const [kind, set] of Object.entries(namespaces)) {
      const namespace = link(`/proc/${pid}/ns/${kind}`);
      if (namespace !== own(kind)) set.add(namespace);
    }
  }
  return [
    ...found,
    ...Object.entries(namespaces).map(([kind, set]) => `${set.size} ${kind} namespaces`),
  ];
}

/** Directories below, each with a slash before it; none when `path` is not there. */
function tree(path: string): string[] {
  // It may end while it is looked at; who counts counts again.
  let entries: Dirent[];
  try {
    entries = readdirSync(path, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  const below = entries.filter((entry) => entry.isDirectory());
  return [
    '/',
    ...below.flatMap(({ name }) => tree(`${path}/${name}`).map((at) => `/${name}${at}`)),
  ];
}

/** Paths in the state directory, but for images (`imageFiles`), the pool's content and how often a log was rotated. */
function files(dir: string, at = ''): string[] {
  return readdirSync(`${dir}${at}`, { withFileTypes: true }).flatMap((entry) => {
    const path = `${at}/${entry.name}`;
    if (['/images', '/layers', '/scratch/entries'].includes(path) || at.endsWith('/logs'))
      return [];
    // Of a running container: its mount point, which its own namespace covers.
    return entry.isDirectory() ? [path, ...files(dir, path)] : [path];
  });
}

/** What there is of images: records, layers, downloads. */
export function imageFiles({ stateDir }: RuntimeOptions): string[] {
  const listing = (dir: string): string[] =>
    existsSync(`${stateDir}/images/${dir}`)
      ? readdirSync(`${stateDir}/images/${dir}`)
          .filter((name) => !name.endsWith('.lock'))
          .map((name) => `${dir}/${name}`)
      : [];
  return ['records', 'tmp', 'storage/overlay', 'storage/overlay/l', 'storage/overlay-images']
    .flatMap(listing)
    .concat(listing('storage/overlay-layers').filter((file) => file.endsWith('.gz')))
    .toSorted();
}

function text(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
