/**
 * What a platform leaves on a machine while it runs, found by looking at the kernel and not by
 * remembering: `down` ends with nothing of it, and `npm test` compares before and after.
 */
import { execFile } from 'node:child_process';
import { readFile, readdir, readlink } from 'node:fs/promises';
import { BlockList } from 'node:net';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { PlatformSettings } from './settings.ts';

const execute = promisify(execFile);

export interface Inventory {
  processes: { pid: number; command: string }[];
  mounts: string[];
  networkNamespaces: string[];
  cgroups: string[];
  interfaces: string[];
  nftTables: string[];
  /** As `ip rule` takes them: `pref 31002 from all to 10.201.0.0/16 prohibit`. */
  policyRules: string[];
  /** To other hosts' containers, as `ip route` takes them: `10.202.0.0/19 via 10.0.0.2 proto 201 metric 1000016`. */
  routes: string[];
  loopDevices: { device: string; file: string }[];
}

export const isEmpty = (inventory: Inventory): boolean =>
  Object.values(inventory).every((found) => found.length === 0);

/** One line for each thing, for people. */
export function describe(inventory: Inventory): string[] {
  return [
    ...inventory.processes.map(({ pid, command }) => `process ${pid}: ${command}`),
    ...inventory.mounts.map((mount) => `mount ${mount}`),
    ...inventory.networkNamespaces.map((name) => `network namespace ${name}`),
    ...inventory.cgroups.map((dir) => `cgroup ${dir}`),
    ...inventory.interfaces.map((name) => `interface ${name}`),
    ...inventory.nftTables.map((table) => `nftables table ${table}`),
    ...inventory.policyRules.map((rule) => `policy rule ${rule}`),
    ...inventory.routes.map((route) => `route ${route}`),
    ...inventory.loopDevices.map(({ device, file }) => `loop device ${device} on ${file}`),
  ];
}

/** Everything on this machine that belongs to the platform with these settings. */
export async function findLeftovers(settings: PlatformSettings): Promise<Inventory> {
  const { stateDir, node } = settings;
  const below = (path: string) => path === stateDir || path.startsWith(`${stateDir}/`);
  const mine = await namesThatAreOurs(settings);
  const cgroups = (await allCgroups()).filter(
    (dir) => mine.cgroup && dir.split('/').includes(node.cgroup),
  );
  return {
    processes: await processesOf(below, stateDir, cgroups),
    mounts: (await allMounts()).filter(below),
    networkNamespaces: (await namedNamespaces()).filter(
      (name) => mine.vethPrefix && name.startsWith(`${node.vethPrefix}-`),
    ),
    cgroups,
    interfaces: (await allInterfaces()).filter(
      (name) => mine.vethPrefix && name.startsWith(`${node.vethPrefix}-`),
    ),
    nftTables: (await allTables()).filter(
      (table) => mine.nftTable && table.split(' ')[1] === node.nftTable,
    ),
    policyRules: (await allPolicyRules()).filter(
      (rule) => mine.network && isPolicyRuleOf(node.network, rule),
    ),
    routes: (await allRoutes()).filter(
      (route) => mine.idBase && route.endsWith(` metric ${metricOf(node.idBase)}`),
    ),
    loopDevices: (await allLoops()).filter(({ file }) => below(file)),
  };
}

/**
 * Names in the kernel say nothing about who made them. Where the agent of another platform runs with
 * the same name (it was started with too few options to be told apart), the thing is taken for its.
 */
async function namesThatAreOurs(settings: PlatformSettings) {
  const taken = await findTakenNames(settings);
  return {
    cgroup: !taken.includes('AGENT_CGROUP'),
    nftTable: !taken.includes('AGENT_NFT_TABLE'),
    vethPrefix: !taken.includes('AGENT_VETH_PREFIX'),
    network: !taken.includes('AGENT_NETWORK'),
    idBase: !taken.includes('AGENT_ID_BASE'),
  };
}

/**
 * The variables in which the agent of another platform on this machine has the value that we have, or
 * a network that overlaps ours: answers to its containers would go to ours.
 */
export async function findTakenNames({ stateDir, node }: PlatformSettings): Promise<string[]> {
  const ours = {
    AGENT_CGROUP: node.cgroup,
    AGENT_NFT_TABLE: node.nftTable,
    AGENT_VETH_PREFIX: node.vethPrefix,
    AGENT_NETWORK: node.network,
    AGENT_ID_BASE: String(node.idBase),
  };
  const theirs: Map<string, string>[] = [];
  for (const pid of await allPids()) {
    const environment = await environmentOf(pid);
    if (!environment.includes('BULKHEAD_SERVICE=agent')) continue;
    if (environment.includes(`BULKHEAD_STATE=${stateDir}`)) continue;
    theirs.push(new Map(environment.map((entry) => entry.split('=', 2) as [string, string])));
  }
  return Object.entries(ours)
    .filter(([name, own]) =>
      theirs.some((environment) => {
        const other = environment.get(name);
        if (other === undefined) return false;
        return name === 'AGENT_NETWORK' ? overlap(own, other) : own === other;
      }),
    )
    .map(([name]) => name);
}

/** Whether two networks in CIDR notation have an address in common. */
function overlap(one: string, other: string): boolean {
  // Of two networks one contains the other or they are apart.
  const [wider, narrower] = [one, other]
    .map((network) => network.split('/') as [string, string])
    .sort(([, bits], [, otherBits]) => Number(bits) - Number(otherBits)) as [
    [string, string],
    [string, string],
  ];
  const list = new BlockList();
  list.addSubnet(wider[0], Number(wider[1]));
  return list.check(narrower[0]);
}

const environmentOf = async (pid: number): Promise<string[]> =>
  (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0');

/** The whole machine's, but for processes: those come and go by themselves. */
export async function takeInventory(): Promise<Inventory> {
  return {
    processes: [],
    mounts: await allMounts(),
    networkNamespaces: await namedNamespaces(),
    cgroups: await allCgroups(),
    interfaces: await allInterfaces(),
    nftTables: await allTables(),
    policyRules: await allPolicyRules(),
    routes: await allRoutes(),
    loopDevices: await allLoops(),
  };
}

/** What is in `after` and was not in `before`. */
export function difference(before: Inventory, after: Inventory): Inventory {
  const without = <T>(later: readonly T[], earlier: readonly T[]): T[] => {
    const known = new Map<string, number>();
    for (const item of earlier)
      known.set(JSON.stringify(item), (known.get(JSON.stringify(item)) ?? 0) + 1);
    // Counted, because two mounts can lie on one directory.
    return later.filter((item) => {
      const left = known.get(JSON.stringify(item)) ?? 0;
      known.set(JSON.stringify(item), left - 1);
      return left <= 0;
    });
  };
  return {
    processes: without(after.processes, before.processes),
    mounts: without(after.mounts, before.mounts),
    networkNamespaces: without(after.networkNamespaces, before.networkNamespaces),
    // One below a cgroup that was there before was made by whoever has that one.
    cgroups: without(after.cgroups, before.cgroups).filter(
      (dir) => after.mounts.includes(dirname(dir)) || !before.cgroups.includes(dirname(dir)),
    ),
    interfaces: without(after.interfaces, before.interfaces),
    nftTables: without(after.nftTables, before.nftTables),
    policyRules: without(after.policyRules, before.policyRules),
    routes: without(after.routes, before.routes),
    loopDevices: without(after.loopDevices, before.loopDevices),
  };
}

/** Processes with this text in their environment, other than the asker and those above it. */
export async function findProcessesWithEnvironment(text: string): Promise<Inventory['processes']> {
  const own = await ownAncestry();
  const found: Inventory['processes'] = [];
  for (const pid of await allPids()) {
    if (own.has(pid)) continue;
    if ((await environmentOf(pid)).includes(text))
      found.push({ pid, command: await commandOf(pid) });
  }
  return found;
}

async function processesOf(
  below: (path: string) => boolean,
  stateDir: string,
  cgroups: readonly string[],
): Promise<Inventory['processes']> {
  const own = await ownAncestry();
  const contained = new Set<number>();
  for (const dir of cgroups)
    for (const pid of (await readFile(join(dir, 'cgroup.procs'), 'utf8').catch(() => '')).split(
      '\n',
    ))
      contained.add(Number(pid));
  const found: Inventory['processes'] = [];
  for (const pid of await allPids()) {
    if (own.has(pid)) continue;
    const link = (name: string) => readlink(`/proc/${pid}/${name}`).catch(() => '');
    const environment = await environmentOf(pid);
    const isService =
      environment.includes(`BULKHEAD_STATE=${stateDir}`) &&
      environment.some((e) => e.startsWith('BULKHEAD_SERVICE='));
    const command = await commandOf(pid);
    if (
      isService ||
      contained.has(pid) ||
      below(await link('cwd')) ||
      below(await link('exe')) ||
      command.split(' ').some(below)
    )
      found.push({ pid, command: command.slice(0, 150) });
  }
  return found;
}

/** This process and everything above it: whoever asked is not left over. */
async function ownAncestry(): Promise<Set<number>> {
  const own = new Set<number>();
  for (let pid = process.pid; pid > 1;) {
    own.add(pid);
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    pid = Number(/^PPid:\s+(\d+)/m.exec(status)?.[1] ?? 0);
  }
  return own;
}

const allPids = async () =>
  (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
const commandOf = async (pid: number) =>
  (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ').trim();

const allMounts = async (): Promise<string[]> =>
  (await readFile('/proc/self/mountinfo', 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => unescape(line.split(' ')[4] ?? ''));
/** The kernel writes a space in a path as \040. */
const unescape = (path: string) =>
  path.replace(/\\([0-7]{3})/g, (_, code: string) => String.fromCharCode(parseInt(code, 8)));

const namedNamespaces = () => readdir('/run/netns').catch(() => [] as string[]);

/** Every directory of every cgroup hierarchy, as a path. */
async function allCgroups(): Promise<string[]> {
  const found: string[] = [];
  const walk = async (dir: string): Promise<void> => {
    const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
    for (const entry of entries)
      if (entry.isDirectory()) {
        found.push(join(dir, entry.name));
        await walk(join(dir, entry.name));
      }
  };
  await walk('/sys/fs/cgroup');
  return found;
}

const allInterfaces = () => readdir('/sys/class/net');

async function allTables(): Promise<string[]> {
  const { stdout } = await execute('nft', ['list', 'tables'], { timeout: 10_000 }).catch(() => ({
    stdout: '',
  }));
  return stdout
    .split('\n')
    .filter((line) => line.startsWith('table '))
    .map((line) => line.slice('table '.length).trim());
}

async function allPolicyRules(): Promise<string[]> {
  const { stdout } = await execute('ip', ['-4', 'rule'], { timeout: 10_000 }).catch(() => ({
    stdout: '',
  }));
  return stdout
    .split('\n')
    .map((line) => /^(\d+):\s+(\S.*)$/.exec(line.trim()))
    .filter((match) => match !== null)
    .map(([, priority = '', rest = '']) => `pref ${priority} ${rest.replaceAll(/\s+/g, ' ')}`);
}

/**
 * The agent's six rules: into the container network at 31000 to 31002, out of it at 0, 31003 and
 * 31004. Platforms have the same priorities, so the network tells whose a rule is.
 */
function isPolicyRuleOf(network: string, rule: string): boolean {
  const [, priority, from, to] = /^pref (\d+) from (\S+)(?: to (\S+))?/.exec(rule) ?? [];
  return ['31000', '31001', '31002'].includes(priority ?? '')
    ? from === 'all' && to === network
    : ['0', '31003', '31004'].includes(priority ?? '') && from === network && to === undefined;
}

/** The protocol number and the metric by which an agent's routes are known: libs/runtime/src/fleet-routes.ts. */
async function allRoutes(): Promise<string[]> {
  const ours = ['-4', '-o', 'route', 'show', 'proto', '201'];
  const { stdout } = await execute('ip', ours, { timeout: 10_000 }).catch(() => ({ stdout: '' }));
  return [...stdout.matchAll(/^(\S+) via (\S+) .*?metric (\d+)/gm)].map(
    ([, network = '', via = '', metric = '']) => `${network} via ${via} proto 201 metric ${metric}`,
  );
}
const metricOf = (idBase: number): number => 1_000_000 + idBase / 65_536;

async function allLoops(): Promise<Inventory['loopDevices']> {
  const devices = (await readdir('/sys/block').catch(() => [] as string[])).filter((name) =>
    name.startsWith('loop'),
  );
  const loops = await Promise.all(
    devices.map(async (name) => ({
      device: `/dev/${name}`,
      file: (await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '')).trim(),
    })),
  );
  return loops.filter(({ file }) => file !== '');
}
