import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { errorText } from './trial.ts';
import { degraded, missing, ok, type Finding } from './findings.ts';

/** Where the cgroup file systems are, as this process sees them. */
interface Mounted {
  layout: 'v1' | 'hybrid' | 'v2' | 'none';
  rootOf(controller: string): string | null;
}

const limits = [
  ['cpu-limit', 'cpu', 'weight and cap of the CPU'],
  ['memory-limit', 'memory', 'a limit of memory'],
  ['pids-limit', 'pids', 'a limit of processes, against fork bombs'],
  ['io-limit', 'blkio', 'rates of the disk'],
] as const;

/** File and value by which a limit is tried. */
const trials = {
  v1: {
    'cpu-limit': ['cpu.cfs_quota_us', '50000'],
    'memory-limit': ['memory.limit_in_bytes', '67108864'],
    'pids-limit': ['pids.max', '16'],
    'io-limit': ['blkio.throttle.write_bps_device', '1048576'],
  },
  v2: {
    'cpu-limit': ['cpu.max', '50000 100000'],
    'memory-limit': ['memory.max', '67108864'],
    'pids-limit': ['pids.max', '16'],
    'io-limit': ['io.max', 'wbps=1048576'],
  },
} as const;

/** Tries each limit on a cgroup of its own, `name`, that is gone again when this returns. */
export function examineCgroups(name: string, mountinfo: string, disk: string | null): Finding[] {
  const mounted = readMounts(mountinfo);
  if (mounted.layout === 'none') {
    const found = 'no cgroup file system is mounted';
    const todo = 'Mount cgroup2 on /sys/fs/cgroup.';
    return limits.map(([check, , what]) => noLimit(check, what, found, todo));
  }
  return [
    layoutFinding(mounted.layout),
    ...limits.map(([check, controller, what]) =>
      tryLimit({ mounted, name, check, controller, what, disk }),
    ),
    trySwap(mounted, name),
    tryFreezer(mounted, name),
  ];
}

function readMounts(mountinfo: string): Mounted {
  const mounts = mountinfo.split('\n').map((line) => {
    const fields = line.split(' ');
    const type = fields[fields.indexOf('-') + 1];
    return { point: fields[4] ?? '', type, options: fields.at(-1)?.split(',') ?? [] };
  });
  const v1 = mounts.filter(({ type }) => type === 'cgroup');
  const v2 = mounts.find(({ type }) => type === 'cgroup2');
  if (v1.length > 0)
    return {
      layout: v2 ? 'hybrid' : 'v1',
      rootOf: (controller) => v1.find(({ options }) => options.includes(controller))?.point ?? null,
    };
  if (!v2) return { layout: 'none', rootOf: () => null };
  const here = readFileSync(`${v2.point}/cgroup.controllers`, 'utf8').trim().split(' ');
  return {
    layout: 'v2',
    rootOf: (controller) =>
      here.includes(controller === 'blkio' ? 'io' : controller) || controller === 'freezer'
        ? v2.point
        : null,
  };
}

function layoutFinding(layout: 'v1' | 'hybrid' | 'v2'): Finding {
  if (layout === 'v2') return ok('cgroup-layout', 'pure v2');
  return degraded('cgroup-layout', {
    found: layout === 'v1' ? 'v1' : 'hybrid: v1, and v2 beside it',
    fallback: 'v1 controllers',
    meaning:
      'Plain buffered writes are on nobody’s account, so the rates of the disk hold for direct and synchronous ones only.',
    todo: 'Boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all for pure v2.',
  });
}

const noLimit = (check: string, what: string, found: string, todo: string): Finding =>
  missing(check, {
    found,
    fallback:
      check === 'io-limit' ? 'containers run without rates of the disk' : 'no container starts',
    meaning: `There is no ${what.replace(/^an? /, '')}: one container can take all of it.`,
    todo,
  });

interface Trial {
  mounted: Mounted;
  name: string;
  check: (typeof limits)[number][0];
  controller: string;
  what: string;
  disk: string | null;
}

function tryLimit({ mounted, name, check, controller, what, disk }: Trial): Finding {
  const version = mounted.layout === 'v2' ? 'v2' : 'v1';
  const kernelName = version === 'v2' && controller === 'blkio' ? 'io' : controller;
  const root = mounted.rootOf(controller);
  const todo = `Mount or enable the cgroup controller ${kernelName} (cgroup_disable= on the kernel's command line, /proc/cgroups).`;
  if (root === null) return noLimit(check, what, `the controller ${kernelName} is not there`, todo);
  const [file, value] = trials[version][check];
  if (check === 'io-limit' && disk === null)
    return noLimit(check, what, 'no disk was found to limit', todo);
  try {
    return inCgroup(root, name, version === 'v2' ? kernelName : null, (dir) => {
      const path = `${dir}/${file}`;
      if (!existsSync(path))
        return noLimit(check, what, `${file} is not there: the kernel was built without it`, todo);
      writeFileSync(path, check === 'io-limit' ? `${disk} ${value}` : value);
      const read = readFileSync(path, 'utf8');
      if (!read.includes(value)) return noLimit(check, what, `${file} took no value`, todo);
      return ok(check, `${file} of ${version} took ${value}`);
    });
  } catch (error) {
    return noLimit(check, what, `${file}: ${errorText(error)}`, todo);
  }
}

function trySwap(mounted: Mounted, name: string): Finding {
  const swaps = readFileSync('/proc/swaps', 'utf8').trim().split('\n').length - 1;
  if (swaps === 0) return ok('swap-limit', 'this host has no swap');
  const version = mounted.layout === 'v2' ? 'v2' : 'v1';
  const root = mounted.rootOf('memory');
  const file = version === 'v2' ? 'memory.swap.max' : 'memory.memsw.limit_in_bytes';
  const isThere =
    root !== null &&
    inCgroup(root, name, version === 'v2' ? 'memory' : null, (dir) => existsSync(`${dir}/${file}`));
  if (isThere) return ok('swap-limit', `${file} is there`);
  return missing('swap-limit', {
    found: `this host swaps, and ${file} is not there`,
    fallback: 'containers may swap',
    meaning:
      'A container over its memory limit slows the disk of all others down instead of ending.',
    todo: 'swapoff -a, or boot with swapaccount=1.',
  });
}

function tryFreezer(mounted: Mounted, name: string): Finding {
  const isV2 = mounted.layout === 'v2';
  const root = mounted.rootOf('freezer');
  const file = isV2 ? 'cgroup.freeze' : 'freezer.state';
  if (root !== null) {
    try {
      inCgroup(root, name, null, (dir) => {
        writeFileSync(`${dir}/${file}`, isV2 ? '1' : 'FROZEN');
        writeFileSync(`${dir}/${file}`, isV2 ? '0' : 'THAWED');
      });
      return ok('freezer', `${file} froze and thawed`);
    } catch (error) {
      return noFreezer(`${file}: ${errorText(error)}`);
    }
  }
  return noFreezer('the controller freezer is not there');
}

const noFreezer = (found: string): Finding =>
  degraded('freezer', {
    found,
    fallback: 'kills are repeated until nothing is left',
    meaning: 'Instances cannot be paused, and ending a fork bomb takes longer.',
    todo: 'Mount the cgroup controller freezer.',
  });

/** Runs `work` on a new cgroup; it and what had to be switched on for it are gone afterwards. */
function inCgroup<T>(
  root: string,
  name: string,
  enable: string | null,
  work: (dir: string) => T,
): T {
  const control = `${root}/cgroup.subtree_control`;
  const isOn = (): boolean =>
    readFileSync(control, 'utf8')
      .trim()
      .split(' ')
      .includes(enable ?? '');
  const switchOn = enable !== null && !isOn();
  const dir = `${root}/${name}`;
  mkdirSync(dir, { recursive: true });
  try {
    if (switchOn) writeFileSync(control, `+${enable}`);
    return work(dir);
  } finally {
    rmdirSync(dir);
    // Unless somebody else has come to use it meanwhile.
    if (switchOn && !siblingsUse(root)) writeFileSync(control, `-${enable}`);
  }
}

/** Whether any cgroup below exists: they may rely on what is switched on. */
const siblingsUse = (root: string): boolean =>
  readdirSync(root, { withFileTypes: true }).some((entry) => entry.isDirectory());
