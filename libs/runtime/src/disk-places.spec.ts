import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { defaultResources } from '@bulkhead/protocol';
import { afterAll, beforeAll, expect, it } from 'vitest';
import * as btrfs from './btrfs.ts';
import { openLayers } from './disk.ts';
import { run } from './exec.ts';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, ContainerSpec, RuntimeOptions } from './runtime.ts';
import {
  containerSpec,
  removeState,
  runToEnd,
  testOptions,
  traces,
  until,
} from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

/** State directories on disks of other kinds and sizes than the machine's, one for each test. */
const disks = {
  quotas: { mkfs: ['mkfs.btrfs', '-q'], mebibytes: 512 },
  btrfs: { mkfs: ['mkfs.btrfs', '-q'], mebibytes: 768 },
  small: { mkfs: null, mebibytes: 64 },
} as const;

let outer: string;
let registry: TestRegistry;
let image: TestImage;
const runtimes: ContainerRuntime[] = [];

/**
 * Before any runtime is there: the main thread's namespace is then still the host's, and the copies
 * of it that runtimes work in have these mounts.
 */
beforeAll(async () => {
  outer = mkdtempSync(`${tmpdir()}/bulkhead-disk-`);
  chmodSync(outer, 0o711);
  for (const [name, { mkfs, mebibytes }] of Object.entries(disks)) {
    const point = `${outer}/${name}`;
    mkdirSync(point);
    if (mkfs === null) {
      await run('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', point]);
    } else {
      const file = `${point}.image`;
      await run('truncate', [`--size=${mebibytes}M`, file]);
      await run(mkfs[0], [...mkfs.slice(1), file]);
      await run('mount', ['-o', 'loop', file, point]);
    }
  }
  registry = await startRegistry();
  image = await registry.push('test/base', [baseLayer]);
});

afterAll(async () => {
  await Promise.all(runtimes.map((runtime) => runtime.destroy()));
  await registry.close();
  for (const name of Object.keys(disks)) {
    // In the runtimes' namespace, and in the host's.
    await run('umount', [`${outer}/${name}`]);
    const host = `--mount=/proc/${process.ppid}/ns/mnt`;
    await run('nsenter', [host, 'umount', `${outer}/${name}`]);
  }
  rmSync(outer, { recursive: true });
});

function optionsOn(disk: keyof typeof disks): RuntimeOptions {
  const options = testOptions([registry.host]);
  removeState(options);
  const own = { ...options, stateDir: `${outer}/${disk}/state` };
  mkdirSync(own.stateDir);
  return own;
}

async function startRuntime(own: RuntimeOptions): Promise<ContainerRuntime> {
  const runtime = createRuntime(own);
  runtimes.push(runtime);
  await runtime.reconcile();
  await runtime.ensureImage(image);
  return runtime;
}

const open = (own: RuntimeOptions, poolMiB: number | undefined) =>
  openLayers({
    stateDir: own.stateDir,
    dir: `${own.stateDir}/layers`,
    poolMiB,
    onProblem: (what, error) => {
      throw new Error(what, { cause: error });
    },
  });

const mebibyte = 1024 * 1024;
const limited = (diskMiB: number, script: string): ContainerSpec =>
  containerSpec(image, ['sh', '-c', script], {
    resources: { ...defaultResources, memoryMiB: 64, diskMiB },
  });

it('on btrfs with quotas no pool is needed', async () => {
  const own = optionsOn('quotas');
  await run('btrfs', ['quota', 'enable', own.stateDir]);
  await run('btrfs', ['quota', 'rescan', '-w', own.stateDir]);
  const groups = (): number =>
    btrfs.onDirectory(own.stateDir, (fd) => btrfs.quotaGroups(fd)).length;
  const before = groups();
  const runtime = await startRuntime(own);
  expect(await runtime.facts()).toMatchObject({ diskLimit: 'btrfs', diskPoolMiB: null });
  expect(existsSync(`${own.stateDir}/pool.img`)).toBe(false);
  const { out, exit } = await runToEnd(
    runtime,
    limited(32, 'dd if=/dev/zero of=/big bs=1M 2>&1 | grep -o "Disk quota exceeded"; exit 1'),
  );
  expect(out).toEqual(['Disk quota exceeded']);
  expect(exit).toMatchObject({ diskFull: true });
  const spec = limited(32, 'sleep 1000');
  await runtime.start(spec);
  expect(await runtime.diskUsage(spec.id)).toMatchObject({ limit: 32 * mebibyte });
  await runtime.destroy();
  expect(await traces(own)).toEqual([]);
  await until('the quota groups are gone', () => groups() === before, 40_000);
}, 90_000);

it('on btrfs without quotas there is a pool as anywhere, and the file system stays as it is', async () => {
  const own = optionsOn('btrfs');
  const layers = await open(own, 256);
  expect(layers.pool()?.bytes).toBe(256 * mebibyte);
  expect((await run('lsattr', [`${own.stateDir}/pool.img`])).stdout).toMatch(/^-+C/);
  await expect(run('btrfs', ['qgroup', 'show', own.stateDir])).rejects.toThrow('not enabled');
  layers.make('a', 16 * mebibyte, 0);
  expect(layers.usage('a')?.limit).toBe(16 * mebibyte);
  await layers.destroy();
  expect(await traces(own)).toEqual([]);
}, 60_000);

it('a disk too small for a pool is an error, and no reason to do without', async () => {
  const own = optionsOn('small');
  await expect(open(own, undefined)).rejects.toThrow('is too small');
  await expect(open(own, 256)).rejects.toThrow('No room for a pool of 256 MiB');
  expect(readdirSync(own.stateDir)).toEqual(['layers']);
});
