import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  write,
  writeFileSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { V1Limits, V2Limits } from './cgroup-limits.ts';
import type { CgroupLimits } from './cgroup-limits.ts';
import { hiddenCgroups, hybridMounts, inPrivateMounts } from './host-thread.ts';
import { mount, MS_NOSUID, SyscallError, umount } from './syscalls.ts';

/**
 * The machine's cgroups, v1 or v2, behind one set of verbs. Paths are relative to each hierarchy's
 * root, like `bulkhead/<tenant>/<container>`. crun makes a container's cgroup; here are the parents,
 * limits, counting, killing and removing.
 */
export interface Cgroups {
  readonly layout: 'v1' | 'hybrid' | 'v2';
  readonly limits: CgroupLimits;
  /** Makes a cgroup and its parents in every hierarchy, ready to be limited. */
  ensure(path: string): void;
  /**
   * Makes a cgroup directly below one that has processes, within the limits of that one and without
   * its own: on v2 nobody below is given controllers there, or no process could enter.
   */
  ensureInside(path: string): void;
  /**
   * Asks the kernel to get ready for processes changing cgroups: the first change in a while waits
   * for an RCU grace period (10 to 20 ms), those soon after do not. Started early, a container's
   * start spends that time making the container. Moves nothing.
   */
  warm(): void;
  /** Moves a process, in the hierarchies where it would be limited or killed with its old cgroup; takes a millisecond or more per hierarchy, so not on the way of a start. */
  enter(path: string, pid: number): Promise<void>;
  /** Moves a process in every hierarchy, so that every limit is on it. Throws when one fails. */
  confine(path: string, pid: number): Promise<void>;
  /** Names of the cgroups below. */
  children(path: string): string[];
  /** Processes in the cgroup and below. */
  processes(path: string): number[];
  /** Kills what is inside until nothing is left; throws when the deadline passes first. */
  kill(path: string, deadlineMs?: number): Promise<void>;
  /**
   * Holds every process in the cgroup and below still, or lets them go on; resolves when they are.
   * Throws, with them going on, when the deadline passes first. Nothing happens without the cgroup.
   */
  freeze(path: string, frozen: boolean, deadlineMs?: number): Promise<void>;
  /** Whether its processes are held still, or about to be. */
  isFrozen(path: string): boolean;
  /** How many processes in the cgroup the kernel killed for want of memory. */
  oomKills(path: string): number;
  /** What its processes have used and hold; null when it is gone. */
  use(path: string): CgroupUse | null;
  /** How its own cap on processor time held it back; null when it is gone. */
  throttling(path: string): Throttling | null;
  /** Removes an empty cgroup with empty ones below it; true when it is gone. */
  remove(path: string): boolean;
}

/** The scheduler's periods in which something ran, and those in which it was held back; since the cgroup was made. */
export interface Throttling {
  periods: number;
  throttledPeriods: number;
  throttledNanos: number;
}

/** Counters are since the cgroup was made. */
export interface CgroupUse extends Throttling {
  cpuNanos: number;
  /** Without page cache that has not been used for long: the kernel takes that back before it refuses anything. */
  memoryBytes: number;
  pids: number;
  readBytes: number;
  writtenBytes: number;
}

/** Looks at what is mounted; never assumes. */
export function detectCgroups(
  mountinfo: string = readFileSync('/proc/self/mountinfo', 'utf8'),
): Cgroups {
  const mounts = mountinfo
    .split('\n')
    .map((line) => line.split(' '))
    .map((f) => ({
      point: f[4] ?? '',
      type: f[f.indexOf('-') + 1],
      options: f.at(-1)?.split(',') ?? [],
    }));
  const v1 = mounts.filter((m) => m.type === 'cgroup');
  if (v1.length > 0) {
    const roots = [...new Set(v1.map((m) => m.point))];
    const withController = (name: string): string | undefined =>
      v1.find((m) => m.options.includes(name))?.point;
    // The main thread's own view has no v2 on a hybrid machine; process 1 has the machine's.
    const hybrid = hybridMounts(readFileSync('/proc/1/mountinfo', 'utf8')).length > 0;
    const supervision = ['pids', 'memory', 'name=systemd']
      .map(withController)
      .filter((root) => root !== undefined);
    return new CgroupTree(
      hybrid ? 'hybrid' : 'v1',
      new V1Limits((name) => withController(name) ?? null),
      roots,
      supervision,
      withController('freezer'),
      withController('memory'),
      {
        use: (path) => readUseV1((name) => `${withController(name) ?? ''}/${path}`),
        throttling: (path) => throttlingIn(read(`${withController('cpu') ?? ''}/${path}/cpu.stat`)),
      },
    );
  }
  const v2 = mounts.find((m) => m.type === 'cgroup2');
  if (!v2) throw new Error('No cgroup file system is mounted; mount cgroup2 on /sys/fs/cgroup.');
  const limits = new V2Limits(() => v2.point);
  return new CgroupTree('v2', limits, [v2.point], [v2.point], undefined, undefined, {
    use: (path) => readUseV2(`${v2.point}/${path}`),
    throttling: (path) => throttlingIn(read(`${v2.point}/${path}/cpu.stat`)),
  });
}

class CgroupTree implements Cgroups {
  readonly layout: Cgroups['layout'];
  readonly limits: CgroupLimits;
  readonly #roots: readonly string[];
  readonly #supervision: readonly string[];
  readonly #freezer: string | undefined;
  readonly #memory: string | undefined;
  readonly use: Cgroups['use'];
  readonly throttling: Cgroups['throttling'];

  constructor(
    layout: Cgroups['layout'],
    limits: CgroupLimits,
    roots: readonly string[],
    supervision: readonly string[],
    freezer: string | undefined,
    memory: string | undefined,
    counters: Pick<Cgroups, 'use' | 'throttling'>,
  ) {
    this.layout = layout;
    this.use = counters.use;
    this.throttling = counters.throttling;
    this.limits = limits;
    this.#roots = roots;
    this.#supervision = supervision;
    this.#freezer = freezer;
    this.#memory = memory;
  }

  ensureInside(path: string): void {
    if (this.layout === 'v2') mkdirSync(`${this.#roots[0]}/${path}`, { recursive: true });
    else this.ensure(path);
  }

  ensure(path: string): void {
    for (const root of this.#roots) {
      let at = root;
      for (const part of path.split('/')) {
        const parent = at;
        at = `${at}/${part}`;
        if (this.layout === 'v2') enableControllers(parent);
        mkdirSync(at, { recursive: true });
        // A v1 cpuset starts without CPUs and memory nodes, and refuses processes until it has some.
        for (const file of ['cpuset.cpus', 'cpuset.mems']) {
          if (this.layout !== 'v2' && read(`${at}/${file}`) === '')
            writeFileSync(`${at}/${file}`, read(`${parent}/${file}`) ?? '');
        }
      }
    }
  }

  warm(): void {
    const line = readFileSync('/proc/self/cgroup', 'utf8')
      .split('\n')
      .find((text) =>
        this.layout === 'v2' ? text.startsWith('0::') : text.split(':')[1] === 'pids',
      );
    const own = line?.split(':').slice(2).join(':');
    if (!own) return;
    // To where we are already: nothing moves. In the thread pool at once, because the caller keeps the main thread busy.
    const file = openSync(`${this.#supervision[0]}${own}/cgroup.procs`, 'w');
    write(file, String(process.pid), () => closeSync(file));
  }

  async enter(path: string, pid: number): Promise<void> {
    for (const root of this.#supervision)
      await writeFile(`${root}/${path}/cgroup.procs`, String(pid));
  }

  async confine(path: string, pid: number): Promise<void> {
    for (const root of this.#roots) await writeFile(`${root}/${path}/cgroup.procs`, String(pid));
  }

  children(path: string): string[] {
    const names = new Set<string>();
    for (const root of this.#roots)
      for (const name of directories(`${root}/${path}`)) names.add(name);
    return [...names];
  }

  processes(path: string): number[] {
    // crun puts a container's processes into every hierarchy; these two hold conmon's, and those that freeze.
    const pids = new Set<number>();
    for (const root of new Set([this.#supervision[0], this.#freezer]))
      if (root !== undefined) collect(`${root}/${path}`, pids);
    return [...pids];
  }

  async kill(path: string, deadlineMs = 10_000): Promise<void> {
    const deadline = performance.now() + deadlineMs;
    for (let round = 0; ; round++) {
      const pids = this.processes(path);
      if (pids.length === 0) return;
      if (performance.now() > deadline)
        throw new Error(
          `Processes ${pids.slice(0, 5).join(', ')} survived SIGKILL for ${deadlineMs} ms.`,
        );
      if (this.layout === 'v2') {
        writeIfThere(`${this.#roots[0]}/${path}/cgroup.kill`, '1');
      } else {
        // Frozen, nothing can fork between the list and the signal; SIGKILL acts on thawing.
        const state = `${this.#freezer}/${path}/freezer.state`;
        if (this.#freezer) writeIfThere(state, 'FROZEN');
        for (const pid of this.processes(path)) killNumber(pid);
        if (this.#freezer) writeIfThere(state, 'THAWED');
      }
      await delay(Math.min(1 + round * 2, 50));
    }
  }

  async freeze(path: string, frozen: boolean, deadlineMs = 10_000): Promise<void> {
    const deadline = performance.now() + deadlineMs;
    this.#setFrozen(path, frozen);
    // A process in the middle of a system call that cannot be interrupted is held when it returns.
    while (!this.#hasSettled(path, frozen)) {
      if (performance.now() > deadline) {
        this.#setFrozen(path, false);
        throw new Error(`The processes of ${path} could not be frozen within ${deadlineMs} ms.`);
      }
      await delay(2);
    }
  }

  #setFrozen(path: string, frozen: boolean): void {
    if (this.layout === 'v2')
      writeIfThere(`${this.#roots[0]}/${path}/cgroup.freeze`, frozen ? '1' : '0');
    else if (this.#freezer)
      writeIfThere(`${this.#freezer}/${path}/freezer.state`, frozen ? 'FROZEN' : 'THAWED');
    else throw new Error('This machine has no cgroup freezer: mount the v1 controller "freezer".');
  }

  #hasSettled(path: string, frozen: boolean): boolean {
    if (this.layout === 'v2') {
      const events = read(`${this.#roots[0]}/${path}/cgroup.events`);
      return events === null || /^frozen 1$/m.test(events) === frozen;
    }
    const state = read(`${this.#freezer}/${path}/freezer.state`);
    return state === null || state === (frozen ? 'FROZEN' : 'THAWED');
  }

  isFrozen(path: string): boolean {
    if (this.layout === 'v2') return read(`${this.#roots[0]}/${path}/cgroup.freeze`) === '1';
    if (!this.#freezer) return false;
    const state = read(`${this.#freezer}/${path}/freezer.state`);
    return state !== null && state !== 'THAWED';
  }

  oomKills(path: string): number {
    const file = this.#memory
      ? `${this.#memory}/${path}/memory.oom_control`
      : `${this.#roots[0]}/${path}/memory.events`;
    return Number(/^oom_kill (\d+)$/m.exec(read(file) ?? '')?.[1] ?? 0);
  }

  remove(path: string): boolean {
    const gone = this.#roots.map((root) => removeTree(`${root}/${path}`)).every(Boolean);
    // What crun wrote where it took an ordinary directory for a cgroup.
    if (gone)
      for (const root of hiddenCgroups())
        rmSync(`${root}/${path}`, { recursive: true, force: true });
    return gone;
  }
}

function readUseV1(dirOf: (controller: string) => string): CgroupUse | null {
  const cpu = read(`${dirOf('cpuacct')}/cpuacct.usage`);
  if (cpu === null) return null;
  const throttling = throttlingIn(read(`${dirOf('cpu')}/cpu.stat`));
  const memory = fieldsOf(read(`${dirOf('memory')}/memory.stat`));
  const held = Number(read(`${dirOf('memory')}/memory.usage_in_bytes`) ?? 0);
  const io = read(`${dirOf('blkio')}/blkio.throttle.io_service_bytes_recursive`) ?? '';
  const sumOf = (kind: string): number =>
    [...io.matchAll(new RegExp(`^\\d+:\\d+ ${kind} (\\d+)$`, 'gm'))].reduce(
      (sum, [, bytes]) => sum + Number(bytes),
      0,
    );
  return {
    cpuNanos: Number(cpu),
    ...(throttling ?? notThrottled),
    memoryBytes: Math.max(0, held - (memory.get('total_inactive_file') ?? 0)),
    pids: Number(read(`${dirOf('pids')}/pids.current`) ?? 0),
    readBytes: sumOf('Read'),
    writtenBytes: sumOf('Write'),
  };
}

function readUseV2(dir: string): CgroupUse | null {
  const text = read(`${dir}/cpu.stat`);
  if (text === null) return null;
  const memory = fieldsOf(read(`${dir}/memory.stat`));
  const held = Number(read(`${dir}/memory.current`) ?? 0);
  const io = read(`${dir}/io.stat`) ?? '';
  const sumOf = (kind: string): number =>
    [...io.matchAll(new RegExp(`\\b${kind}=(\\d+)`, 'g'))].reduce(
      (sum, [, bytes]) => sum + Number(bytes),
      0,
    );
  return {
    cpuNanos: (fieldsOf(text).get('usage_usec') ?? 0) * 1000,
    ...(throttlingIn(text) ?? notThrottled),
    memoryBytes: Math.max(0, held - (memory.get('inactive_file') ?? 0)),
    pids: Number(read(`${dir}/pids.current`) ?? 0),
    readBytes: sumOf('rbytes'),
    writtenBytes: sumOf('wbytes'),
  };
}

const notThrottled: Throttling = { periods: 0, throttledPeriods: 0, throttledNanos: 0 };

/** From a cpu.stat of either version. */
function throttlingIn(text: string | null): Throttling | null {
  if (text === null) return null;
  const fields = fieldsOf(text);
  return {
    periods: fields.get('nr_periods') ?? 0,
    throttledPeriods: fields.get('nr_throttled') ?? 0,
    throttledNanos: fields.get('throttled_time') ?? (fields.get('throttled_usec') ?? 0) * 1000,
  };
}

/** Lines of a name and a number. */
const fieldsOf = (text: string | null): ReadonlyMap<string, number> =>
  new Map(
    (text ?? '').split('\n').map((line) => {
      const [name = '', value] = line.split(' ');
      return [name, Number(value)];
    }),
  );

/**
 * Tells the kernel that processes often change cgroups here (mount option `favordynmods`): without it
 * each change waits for an RCU grace period, 8 ms and more, when there was none just before. The
 * option belongs to a hierarchy and acts on all of them, so an empty one of our own asks for it, for
 * a moment and where nobody sees it. Since Linux 6.18 it lasts until the next boot. Older kernels
 * forget it at once (before 6.0 they refuse it), and `warm` has to do.
 *
 * While that hierarchy exists every process is in it, and crun, ours or anybody's, fails to mount it
 * in a container. So it is made once per boot, and is gone when this resolves.
 */
export async function favorMoves(scratch: string, boot: string): Promise<void> {
  try {
    closeSync(openSync(`/run/bulkhead-favor-${boot}`, 'wx', 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
    throw error;
  }
  try {
    inPrivateMounts(() => {
      mount('none', scratch, 'cgroup', MS_NOSUID, `none,name=${favorName},favordynmods`);
      umount(scratch);
    });
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
  }
  const deadline = performance.now() + 5000;
  while ((read('/proc/self/cgroup') ?? '').includes(favorName) && performance.now() < deadline)
    await delay(5);
}
const favorName = 'bulkhead-favor';

/** On v2 a cgroup's files of a controller are there when the parent has it enabled for its children. */
function enableControllers(cgroup: string): void {
  const words = (file: string): string[] => (read(`${cgroup}/${file}`) ?? '').split(' ');
  const enabled = words('cgroup.subtree_control');
  for (const name of words('cgroup.controllers'))
    if (limiting.includes(name) && !enabled.includes(name))
      writeFileSync(`${cgroup}/cgroup.subtree_control`, `+${name}`);
}
const limiting = ['cpu', 'memory', 'pids', 'io', 'hugetlb', 'rdma'];

/** Its number is read from the cgroup a moment ago, and the freezer holds it: it cannot be another's yet. */
function killNumber(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Null when the file is not there (ENODEV: its cgroup was removed while it was open). */
function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    if (['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

function writeIfThere(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    if (!['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

function directories(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

function collect(path: string, into: Set<number>): void {
  for (const line of (read(`${path}/cgroup.procs`) ?? '').split('\n'))
    if (line !== '') into.add(Number(line));
  for (const name of directories(path)) collect(`${path}/${name}`, into);
}

function removeTree(path: string): boolean {
  for (const name of directories(path)) if (!removeTree(`${path}/${name}`)) return false;
  try {
    rmdirSync(path);
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (['ENOENT', 'ENODEV'].includes(code)) return true;
    // A process that has just ended may be counted a moment longer.
    if (code === 'EBUSY' || code === 'ENOTEMPTY') return false;
    throw error;
  }
}
