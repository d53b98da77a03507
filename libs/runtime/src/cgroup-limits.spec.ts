import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { defaultResources, defaultTenantLimits } from '@bulkhead/protocol';
import { describe, expect, it, onTestFinished } from 'vitest';
import { V1Limits, V2Limits } from './cgroup-limits.ts';

/**
 * What is written to which file, on a directory tree in place of the kernel's. It cannot say what the
 * kernel makes of it: limits.spec.ts does, in the layout that the machine has.
 */
function tree(files: Readonly<Record<string, string>>) {
  const root = mkdtempSync(`${tmpdir()}/bulkhead-cgroup-`);
  onTestFinished(() => rmSync(root, { recursive: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(`${root}/${name}`), { recursive: true });
    writeFileSync(`${root}/${name}`, text);
  }
  const read = (name: string) => readFileSync(`${root}/${name}`, 'utf8');
  return { root, read };
}

const resources = { ...defaultResources, memoryMiB: 64, cpuMillis: 250, cpuCapMillis: 1500 };
const MiB = 1024 * 1024;

describe('cgroup v2', () => {
  const fresh = (dir: string) => ({
    [`${dir}/cpu.weight`]: '100\n',
    [`${dir}/cpu.max`]: 'max 100000\n',
    [`${dir}/pids.max`]: 'max\n',
  });
  const container = {
    ...fresh('t/c'),
    't/c/memory.max': 'max\n',
    't/c/memory.high': 'max\n',
    't/c/memory.current': '1000\n',
    't/c/memory.swap.max': 'max\n',
    't/c/io.max': '',
    't/c/hugetlb.2MB.max': 'max\n',
    't/c/hugetlb.2MB.rsvd.max': 'max\n',
    't/c/hugetlb.2MB.current': '0\n',
    't/c/rdma.max': '',
  };

  it('limits a container', () => {
    const { root, read } = tree(container);
    new V2Limits(() => root, ['mlx5_0']).container('t/c', resources, ['8:0']);
    expect(read('t/c/cpu.weight')).toBe('25');
    expect(read('t/c/cpu.max')).toBe('150000 100000');
    expect(read('t/c/memory.max')).toBe(String(64 * MiB));
    expect(read('t/c/memory.swap.max')).toBe('0');
    expect(read('t/c/memory.high')).toBe('max\n');
    expect(read('t/c/pids.max')).toBe('256');
    expect(read('t/c/io.max')).toBe('8:0 rbps=52428800 wbps=52428800 riops=2000 wiops=2000');
    expect([read('t/c/hugetlb.2MB.max'), read('t/c/hugetlb.2MB.rsvd.max')]).toEqual(['0', '0']);
    expect(read('t/c/hugetlb.2MB.current')).toBe('0\n');
    expect(read('t/c/rdma.max')).toBe('mlx5_0 hca_handle=0 hca_object=0');
  });

  it('limits a tenant, and takes its ceiling away', () => {
    const { root, read } = tree(fresh('t'));
    const limits = new V2Limits(() => root, []);
    limits.tenant('t', { cpuWeight: 300, cpuCapMillis: 2500, pids: 900, asOf: 0 });
    expect([read('t/cpu.weight'), read('t/cpu.max')]).toEqual(['300', '250000 100000']);
    expect(read('t/pids.max')).toBe('900');
    limits.tenant('t', defaultTenantLimits);
    expect([read('t/cpu.weight'), read('t/cpu.max')]).toEqual(['100', 'max 100000']);
    expect(read('t/pids.max')).toBe('max');
  });

  it('does not lower memory below what is in use', () => {
    const used = { 't/c/memory.max': `${128 * MiB}\n`, 't/c/memory.current': `${100 * MiB}\n` };
    const { root, read } = tree({ ...container, ...used });
    const limits = new V2Limits(() => root, []);
    expect(() => limits.container('t/c', resources, [])).toThrow('more memory than the 64 MiB');
    expect(read('t/c/memory.max')).toBe(`${128 * MiB}\n`);
    expect(read('t/c/memory.high')).toBe('max');
    expect(read('t/c/pids.max')).toBe('max\n');
  });

  it('fails when a controller is missing', () => {
    const { root } = tree({ 't/c/pids.max': 'max' });
    expect(() => new V2Limits(() => root, []).container('t/c', resources, [])).toThrow('ENOENT');
  });
});

describe('cgroup v1', () => {
  const cpu = (dir: string) => ({
    [`cpu/${dir}/cpu.shares`]: '1024\n',
    [`cpu/${dir}/cpu.cfs_quota_us`]: '-1\n',
    [`cpu/${dir}/cpu.cfs_period_us`]: '100000\n',
  });
  const files = {
    ...cpu('t'),
    ...cpu('t/c'),
    'pids/t/pids.max': 'max\n',
    'pids/t/c/pids.max': 'max\n',
    'memory/t/c/memory.limit_in_bytes': '9223372036854771712\n',
    'memory/t/c/memory.memsw.limit_in_bytes': '9223372036854771712\n',
    'blkio/t/c/blkio.throttle.read_bps_device': '',
    'blkio/t/c/blkio.throttle.write_bps_device': '',
    'blkio/t/c/blkio.throttle.read_iops_device': '',
    'blkio/t/c/blkio.throttle.write_iops_device': '',
    'hugetlb/t/c/hugetlb.2MB.limit_in_bytes': '9223372036854771712\n',
  };
  const limitsOf = (root: string) => new V1Limits((controller) => `${root}/${controller}`);

  it('limits a container, and never above its tenant', () => {
    const { root, read } = tree(files);
    const limits = limitsOf(root);
    limits.container('t/c', resources, ['8:0']);
    expect(read('cpu/t/c/cpu.shares')).toBe('256');
    expect(read('cpu/t/c/cpu.cfs_quota_us')).toBe('150000');
    expect(read('memory/t/c/memory.limit_in_bytes')).toBe(String(64 * MiB));
    expect(read('memory/t/c/memory.memsw.limit_in_bytes')).toBe(String(64 * MiB));
    expect(read('pids/t/c/pids.max')).toBe('256');
    expect(read('blkio/t/c/blkio.throttle.write_bps_device')).toBe('8:0 52428800');
    expect(read('blkio/t/c/blkio.throttle.read_iops_device')).toBe('8:0 2000');
    expect(read('hugetlb/t/c/hugetlb.2MB.limit_in_bytes')).toBe('0');
    limits.tenant(
      't',
      { ...defaultTenantLimits, cpuCapMillis: 700, pids: 512 },
      new Map([['c', 1500]]),
    );
    expect(read('cpu/t/cpu.shares')).toBe('1024\n');
    expect(read('cpu/t/cpu.cfs_quota_us')).toBe('70000');
    expect(read('pids/t/pids.max')).toBe('512');
    expect(read('cpu/t/c/cpu.cfs_quota_us')).toBe('70000');
    limits.container('t/c', resources, ['8:0']);
    expect(read('cpu/t/c/cpu.cfs_quota_us')).toBe('70000');
    const absent = new Map([
      ['c', 1500],
      ['not-made-yet', 100],
    ]);
    limits.tenant('t', { ...defaultTenantLimits, cpuCapMillis: 1200 }, absent);
    expect(read('cpu/t/c/cpu.cfs_quota_us')).toBe('120000');
    limits.tenant('t', defaultTenantLimits, absent);
    expect(read('cpu/t/cpu.cfs_quota_us')).toBe('-1');
    expect(read('cpu/t/c/cpu.cfs_quota_us')).toBe('150000');
  });

  it('fails without a controller that it cannot do without', () => {
    const limits = new V1Limits(() => null);
    expect(() => limits.container('t/c', resources, [])).toThrow('"memory" is not there');
  });
});
