import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { defaultResources } from '@bulkhead/protocol';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run } from './exec.ts';
import { createRuntime } from './host-runtime.ts';
import type {
  ContainerRuntime,
  ContainerSpec,
  ContainerStatus,
  RuntimeOptions,
} from './runtime.ts';
import { account } from './testing/account.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

/**
 * A start writes to two file systems: the state directory's, and the memory that `run` is on. Both
 * are small ones of the test's own here, and each is filled up, once by bytes and once by inodes, to
 * where nothing is free, then one page or inode, then two, until a start succeeds. So each of its
 * writes is once the one that fails.
 */
const sizes = { state: 'size=256m,nr_inodes=2000', memory: 'size=4m,nr_inodes=500' } as const;
type Disk = keyof typeof sizes;
type Shortage = 'bytes' | 'inodes';
const page = 4096;

let outer: string;
let registry: TestRegistry;
let image: TestImage;
let own: RuntimeOptions;
let runtime: ContainerRuntime;
/** Writes without pause, and is not to notice anything. */
let running: ContainerStatus;

const point = (disk: Disk): string => `${outer}/${disk}`;
const limited = (script: string): ContainerSpec =>
  containerSpec(image, ['sh', '-c', script], {
    resources: { ...defaultResources, memoryMiB: 64, diskMiB: 16 },
  });

/** The mounts before any runtime is there: the main thread's namespace is then still the host's. */
beforeAll(async () => {
  outer = mkdtempSync(`${tmpdir()}/bulkhead-full-`);
  chmodSync(outer, 0o711);
  for (const disk of Object.keys(sizes) as Disk[]) {
    mkdirSync(point(disk));
    await run('mount', ['-t', 'tmpfs', '-o', `${sizes[disk]},mode=0711`, 'tmpfs', point(disk)]);
  }
  registry = await startRegistry();
  image = await registry.push('test/base', [baseLayer]);
  const options = testOptions([registry.host]);
  removeState(options);
  own = { ...options, stateDir: `${point('state')}/state`, diskPoolMiB: 128 };
  mkdirSync(own.stateDir, { mode: 0o711 });
  // As an agent before this one would have left it.
  mkdirSync(`${point('memory')}/run`, { mode: 0o711 });
  symlinkSync(`${point('memory')}/run`, `${own.stateDir}/run`);
  runtime = createRuntime(own);
  await runtime.reconcile();
  await runtime.ensureImage(image);
  running = await runtime.start(limited('while :; do echo x > /t || exit 1; sleep 0.05; done'));
});

afterAll(async () => {
  for (const disk of Object.keys(sizes) as Disk[]) empty(disk);
  await runtime.destroy();
  expect(await traces(own)).toEqual([]);
  await registry.close();
  for (const disk of Object.keys(sizes) as Disk[]) {
    // In the runtime's namespace, and in the host's.
    await run('umount', [point(disk)]);
    await run('nsenter', [`--mount=/proc/${process.ppid}/ns/mnt`, 'umount', point(disk)]);
  }
  rmSync(outer, { recursive: true });
});

const empty = (disk: Disk): void =>
  rmSync(`${point(disk)}/filler`, { recursive: true, force: true });

const left = (disk: Disk, shortage: Shortage): number => {
  const { bavail, bsize, ffree } = statfsSync(point(disk));
  return shortage === 'bytes' ? (bavail * bsize) / page : ffree;
};

/** Leaves `free` pages or inodes. */
function fill(disk: Disk, shortage: Shortage, free: number): void {
  const filler = `${point(disk)}/filler`;
  mkdirSync(filler);
  const file = openSync(`${filler}/pages`, 'w');
  // Looked at before each: what was removed a moment ago may be given back in between.
  for (let n = 0; left(disk, shortage) > free; n++)
    if (shortage === 'bytes') writeSync(file, Buffer.alloc(page));
    else writeFileSync(`${filler}/${n}`, '');
  closeSync(file);
  expect(left(disk, shortage)).toBe(free);
}

const present = async (): Promise<string[]> =>
  account(own, await runtime.list(), [process.pid], running.pid ?? 0);

it.each<[Disk, Shortage]>([
  ['state', 'bytes'],
  ['state', 'inodes'],
  ['memory', 'bytes'],
  ['memory', 'inodes'],
])(
  '%s out of %s at any step of a start: a clear error, and nothing is left',
  async (disk, shortage) => {
    const before = await present();
    const leftBefore = left(disk, shortage);
    const measured = limited('sleep 1000');
    await runtime.start(measured);
    const taken = leftBefore - left(disk, shortage);
    await runtime.remove(measured.id);
    // The kernel lets go of files that were mounted in a namespace a moment after its last process.
    const given = (): Promise<void> =>
      until('all is given back', () => left(disk, shortage) === leftBefore);
    await given();
    expect(taken).toBeGreaterThan(0);

    const spec = limited('sleep 1000');
    let failures = 0;
    for (; ; failures++) {
      fill(disk, shortage, failures);
      const result = await runtime.start(spec).catch((error: unknown) => error);
      if (!(result instanceof Error)) break;
      expect(result).toMatchObject({ name: 'RuntimeError', reason: 'out-of-disk' });
      expect(await runtime.find(spec.id)).toBeNull();
      empty(disk);
      expect(await present()).toEqual(before);
      await given();
      // Tried again when there is room, it succeeds.
      await runtime.start(spec);
      await runtime.remove(spec.id);
    }
    // With less than it leaves behind no start can have succeeded.
    expect(failures).toBeGreaterThanOrEqual(taken);
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'running' });

    // What runs can be ended and removed on a full disk, too.
    empty(disk);
    fill(disk, shortage, 0);
    await runtime.stop(spec.id, 0);
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'stopped' });
    await runtime.remove(spec.id);
    empty(disk);
    expect(await present()).toEqual(before);
    expect(await runtime.find(running.id)).toMatchObject({ state: 'running', pid: running.pid });
  },
  120_000,
);
