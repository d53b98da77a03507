import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Resources, TenantLimits } from '@bulkhead/protocol';
import { RuntimeError } from './runtime.ts';

/**
 * Limits as the kernel's files want them, for v1 and v2. crun makes a container's cgroup with its
 * memory and process limits, since those must stand before its first process; everything else is
 * written here, at the start and for a running container alike, so that there is one way and not two.
 * What is as it should be is not written again. Synchronous: CPU quotas of a tenant and of its
 * containers depend on each other, and nothing may come between reading and writing them.
 */
export interface CgroupLimits {
  /**
   * Weight and ceiling of a tenant's cgroup. `caps` are the containers' own CPU caps, by cgroup name,
   * in thousandths of a core.
   */
  tenant(path: string, limits: TenantLimits, caps: ReadonlyMap<string, number>): void;
  /** Throws RuntimeError `limit-refused` when memory in use cannot be brought under a lower limit; nothing is killed for it. */
  container(path: string, resources: Resources, disks: readonly string[]): void;
}

/** Root directory of a controller's hierarchy; null: it is not there. */
export type ControllerRoot = (controller: string) => string | null;

const period = 100_000;
const quotaOf = (capMillis: number): number => Math.max(1000, capMillis * (period / 1000));
const bytes = (resources: Resources): number => resources.memoryMiB * 1024 * 1024;

/** cpu.shares, where 1024 is a core, as Docker and Kubernetes count. */
const shares = (cpuMillis: number): number => Math.max(2, Math.round(cpuMillis * 1.024));

export class V1Limits implements CgroupLimits {
  readonly #rootOf: ControllerRoot;
  constructor(rootOf: ControllerRoot) {
    this.#rootOf = rootOf;
  }

  /** A quota above the parent's is refused (EINVAL) on v1, in either order: children go first when it falls, last when it rises. */
  tenant(path: string, limits: TenantLimits, caps: ReadonlyMap<string, number>): void {
    set(`${this.#dir('pids', path)}/pids.max`, String(limits.pids ?? 'max'));
    const dir = this.#dir('cpu', path);
    // 100 is the default weight of v2, 1024 that of v1.
    set(`${dir}/cpu.shares`, String(Math.max(2, Math.round(limits.cpuWeight * 10.24))));
    const now = Number(read(`${dir}/cpu.cfs_quota_us`));
    const wanted = limits.cpuCapMillis === null ? -1 : quotaOf(limits.cpuCapMillis);
    if (now === wanted) return;
    const falls = wanted !== -1 && (now === -1 || wanted < now);
    const setParent = (): void => set(`${dir}/cpu.cfs_quota_us`, String(wanted));
    if (!falls) setParent();
    for (const [name, cap] of caps) {
      const file = `${dir}/${name}/cpu.cfs_quota_us`;
      // Its cgroup is not made yet, or gone already: then it is limited when it is made.
      if (existsSync(file)) set(file, String(under(quotaOf(cap), wanted)));
    }
    if (falls) setParent();
  }

  container(path: string, resources: Resources, disks: readonly string[]): void {
    // First, since it alone can be refused: then nothing is changed.
    this.#memory(this.#dir('memory', path), bytes(resources));
    const cpu = this.#dir('cpu', path);
    const ceiling = Number(read(`${dirname(cpu)}/cpu.cfs_quota_us`));
    set(`${cpu}/cpu.shares`, String(shares(resources.cpuMillis)));
    set(`${cpu}/cpu.cfs_period_us`, String(period));
    set(`${cpu}/cpu.cfs_quota_us`, String(under(quotaOf(resources.cpuCapMillis), ceiling)));
    set(`${this.#dir('pids', path)}/pids.max`, String(resources.pids));
    this.#blockIo(path, resources, disks);
    this.#noHugePages(path);
  }

  /** Memory with swap may never be less than memory alone, so the order depends on the direction. */
  #memory(dir: string, limit: number): void {
    const [alone, withSwap] = [
      `${dir}/memory.limit_in_bytes`,
      `${dir}/memory.memsw.limit_in_bytes`,
    ];
    const rises = limit > Number(read(alone));
    const files = [alone, withSwap].filter((file) => existsSync(file));
    for (const file of rises ? files.reverse() : files) {
      try {
        set(file, String(limit));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EBUSY') throw inUse(limit);
        throw error;
      }
    }
  }

  #blockIo(path: string, resources: Resources, disks: readonly string[]): void {
    const root = this.#rootOf('blkio');
    if (root === null) return;
    const rates = {
      'blkio.throttle.read_bps_device': resources.ioBytesPerSecond,
      'blkio.throttle.write_bps_device': resources.ioBytesPerSecond,
      'blkio.throttle.read_iops_device': resources.ioOperationsPerSecond,
      'blkio.throttle.write_iops_device': resources.ioOperationsPerSecond,
    };
    for (const [name, rate] of Object.entries(rates)) {
      const file = `${root}/${path}/${name}`;
      if (!existsSync(file)) continue;
      const now = read(file).split('\n');
      for (const disk of disks)
        if (!now.includes(`${disk} ${rate}`)) writeFileSync(file, `${disk} ${rate}`);
    }
  }

  #noHugePages(path: string): void {
    const root = this.#rootOf('hugetlb');
    if (root === null) return;
    const file = /^hugetlb\..*\.limit_in_bytes$/;
    for (const name of readdirSync(`${root}/${path}`))
      if (file.test(name)) set(`${root}/${path}/${name}`, '0');
  }

  #dir(controller: string, path: string): string {
    return directory(this.#rootOf, controller, path);
  }
}

/** -1 is no ceiling. */
const under = (quota: number, ceiling: number): number =>
  ceiling === -1 ? quota : Math.min(quota, ceiling);

/** From the kernel's Documentation/admin-guide/cgroup-v2.rst. */
export class V2Limits implements CgroupLimits {
  readonly #rootOf: ControllerRoot;
  /** Names of RDMA devices, none of which a container may use. */
  readonly #rdma: readonly string[];
  constructor(rootOf: ControllerRoot, rdma: readonly string[] = rdmaDevices()) {
    this.#rootOf = rootOf;
    this.#rdma = rdma;
  }

  /** A container's cap may stand above the tenant's: the lower counts. */
  tenant(path: string, limits: TenantLimits): void {
    const dir = directory(this.#rootOf, 'cpu', path);
    set(`${dir}/cpu.weight`, String(limits.cpuWeight));
    const cap = limits.cpuCapMillis === null ? 'max' : quotaOf(limits.cpuCapMillis);
    set(`${dir}/cpu.max`, `${cap} ${period}`);
    set(`${dir}/pids.max`, String(limits.pids ?? 'max'));
  }

  container(path: string, resources: Resources, disks: readonly string[]): void {
    const dir = directory(this.#rootOf, 'cpu', path);
    // First, since it alone can be refused: then nothing is changed.
    this.#memory(dir, bytes(resources));
    // A tenth of the millis: a core is the default weight of 100.
    const weight = Math.min(10_000, Math.max(1, Math.round(resources.cpuMillis / 10)));
    set(`${dir}/cpu.weight`, String(weight));
    set(`${dir}/cpu.max`, `${quotaOf(resources.cpuCapMillis)} ${period}`);
    set(`${dir}/pids.max`, String(resources.pids));
    if (existsSync(`${dir}/io.max`)) {
      const { ioBytesPerSecond: rate, ioOperationsPerSecond: operations } = resources;
      const now = read(`${dir}/io.max`).split('\n');
      for (const disk of disks) {
        const line = `${disk} rbps=${rate} wbps=${rate} riops=${operations} wiops=${operations}`;
        if (!now.includes(line)) writeFileSync(`${dir}/io.max`, line);
      }
    }
    const hugePages = /^hugetlb\..*\.max$/;
    for (const name of readdirSync(dir)) if (hugePages.test(name)) set(`${dir}/${name}`, '0');
    if (existsSync(`${dir}/rdma.max`))
      for (const device of this.#rdma)
        writeFileSync(`${dir}/rdma.max`, `${device} hca_handle=0 hca_object=0`);
  }

  /** A memory.max below what is used has the kernel kill; memory.high only has it reclaim, which shows whether the limit can be met. */
  #memory(dir: string, limit: number): void {
    if (existsSync(`${dir}/memory.swap.max`)) set(`${dir}/memory.swap.max`, '0');
    const now = read(`${dir}/memory.max`);
    if (now === String(limit)) return;
    if ((now === 'max' || limit < Number(now)) && Number(read(`${dir}/memory.current`)) > limit) {
      writeFileSync(`${dir}/memory.high`, String(limit));
      const met = Number(read(`${dir}/memory.current`)) <= limit;
      writeFileSync(`${dir}/memory.high`, 'max');
      if (!met) throw inUse(limit);
    }
    set(`${dir}/memory.max`, String(limit));
  }
}

function inUse(limit: number): RuntimeError {
  const message = `It uses more memory than the ${limit / 1024 / 1024} MiB that it is to have.`;
  return new RuntimeError('limit-refused', message);
}

/** A wall that is missing is no wall: without these controllers nothing runs. */
function directory(rootOf: ControllerRoot, controller: string, path: string): string {
  const root = rootOf(controller);
  if (root === null)
    throw new Error(`The cgroup controller "${controller}" is not there: it cannot be limited.`);
  return `${root}/${path}`;
}

function rdmaDevices(): string[] {
  const dir = '/sys/class/infiniband';
  return existsSync(dir) ? readdirSync(dir) : [];
}

const read = (file: string): string => readFileSync(file, 'utf8').trim();

function set(file: string, text: string): void {
  if (read(file) !== text) writeFileSync(file, text);
}
