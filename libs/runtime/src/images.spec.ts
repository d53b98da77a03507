import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { run } from './exec.ts';
import { enterBaseNamespace } from './host-thread.ts';
import { ImageStorage } from './image-storage.ts';
import { Images } from './images.ts';
import type { ImageOptions } from './images.ts';
import { architecture } from './pull-errors.ts';
import type { PullProgress, RuntimeEvent } from './runtime.ts';
import { startFaultyRegistry } from './testing/faulty-registry.ts';
import type { Fault } from './testing/faulty-registry.ts';
import { until } from './testing/host.ts';

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const undo of cleanUps.splice(0).reverse()) await undo();
});

/** Holds a file system of 40 MB at `mnt`. Mounted first: this thread's own namespace is a copy, and libuv's threads stay in the host's. */
let small = '';
beforeAll(async () => {
  small = mkdtempSync(`${tmpdir()}/bulkhead-small-`);
  mkdirSync(`${small}/mnt`);
  await run('truncate', ['-s', '40M', `${small}/disk`]);
  await run('mkfs.ext4', ['-q', '-F', '-m', '0', `${small}/disk`]);
  await run('mount', ['-o', 'loop', `${small}/disk`, `${small}/mnt`]);
  await enterBaseNamespace();
});
afterAll(async () => {
  await run('umount', [`${small}/mnt`]);
  await run('nsenter', [`--mount=/proc/${process.ppid}/ns/mnt`, 'umount', `${small}/mnt`]);
  rmSync(small, { recursive: true });
});

async function layer(bytes: number): Promise<Buffer> {
  const dir = mkdtempSync(`${tmpdir()}/bulkhead-layer-`);
  cleanUps.push(() => rmSync(dir, { recursive: true, force: true }));
  mkdirSync(`${dir}/root`);
  writeFileSync(`${dir}/root/file`, randomBytes(bytes));
  await run('tar', ['-C', `${dir}/root`, '-cf', `${dir}/tar`, '.']);
  return readFileSync(`${dir}/tar`);
}

async function registryOf(layers: readonly Buffer[], of = architecture) {
  const registry = await startFaultyRegistry(of, layers);
  cleanUps.push(() => registry.close());
  return registry;
}

async function newImages(hosts: readonly string[], rest: Partial<ImageOptions> = {}) {
  const dir = rest.dir ?? mkdtempSync(`${tmpdir()}/bulkhead-images-`);
  if (rest.dir === undefined) cleanUps.push(() => rmSync(dir, { recursive: true, force: true }));
  const events: RuntimeEvent[] = [];
  const images = new Images({
    insecureRegistries: hosts,
    registryAuthFile: `${dir}/none`,
    inUse: () => [],
    onEvent: (event) => events.push(event),
    ...rest,
    dir,
  });
  await images.prepare();
  cleanUps.push(() => images.close());
  return { images, dir, events };
}

const leftIn = (dir: string): string[] => [
  ...readdirSync(`${dir}/tmp`),
  ...readdirSync(`${dir}/storage/overlay`).filter((name) => /^[0-9a-f]{64}/.test(name)),
];

test.each<[Fault, string]>([
  ['bad bytes', 'image-corrupt'],
  ['cut short', 'image-corrupt'],
  ['breaks off', 'registry-unreachable'],
  ['unauthorised', 'image-unauthorised'],
])(
  'a registry that answers with %s: %s, nothing is left, and the next pull works',
  async (fault, reason) => {
    const registry = await registryOf([await layer(1000), await layer(200_000)]);
    const { images, dir, events } = await newImages([registry.host]);
    const { repository, digest } = registry.image;
    registry.state.fault = fault;
    const error = (await images.ensure(repository, digest).catch((e: unknown) => e)) as Error;
    expect(error).toMatchObject({ name: 'RuntimeError', reason });
    expect(error.message).not.toContain(dir);
    await images.collect();
    expect(leftIn(dir)).toEqual([]);
    registry.state.fault = null;
    await images.ensure(repository, digest);
    expect(images.layersOf(repository, digest)).toHaveLength(2);
    expect(events.map((event) => event.type)).toEqual(['image-pull-failed', 'image-pulled']);
  },
);

test('an image for another processor is refused and does not stay', async () => {
  const registry = await registryOf([await layer(1000)], 's390x');
  const { images, dir } = await newImages([registry.host]);
  const { repository, digest } = registry.image;
  await expect(images.ensure(repository, digest)).rejects.toMatchObject({
    reason: 'image-wrong-platform',
    message: expect.stringContaining('linux/s390x') as string,
  });
  expect(() => images.layersOf(repository, digest)).toThrow('not on this node');
  expect(images.list()).toEqual([]);
  await images.collect();
  expect(leftIn(dir)).toEqual([]);
});

test('names without an address', async () => {
  const { images } = await newImages([]);
  await expect(
    images.ensure('registry.invalid/a', `sha256:${'0'.repeat(64)}`),
  ).rejects.toMatchObject({ reason: 'registry-unreachable' });
});

test('a pull tells how far it is, ends at its deadline, and leaves nothing', async () => {
  const registry = await registryOf([await layer(1000), await layer(2_000_000)]);
  const { images, dir } = await newImages([registry.host], { pullDeadlineMs: 5000 });
  registry.state.fault = 'hangs';
  const told: (PullProgress | null)[] = [];
  const { repository, digest } = registry.image;
  await expect(images.ensure(repository, digest, (p) => told.push(p))).rejects.toMatchObject({
    reason: 'image-pull-failed',
    message: expect.stringContaining('longer than 5 seconds') as string,
  });
  expect(told[0]).toBeNull();
  expect(told.at(-1)).toMatchObject({ layersDone: 1, layersTotal: 2 });
  expect(told.at(-1)?.bytesDone).toBeGreaterThan(900_000);
  await images.collect();
  expect(leftIn(dir)).toEqual([]);
});

test('what an agent left that was killed in a pull is removed by the next', async () => {
  const registry = await registryOf([await layer(1000), await layer(200_000)]);
  const { dir } = await newImages([registry.host]);
  const storage = new ImageStorage(dir);
  registry.state.fault = 'hangs';
  const pull = storage
    .copy({ ...registry.image, insecure: true, authFile: null }, storage.makeTmp(), {})
    .catch((error: unknown) => error);
  await until('the first layer is stored', () => storage.layers().length === 1);
  // The next agent ends what still writes here before it looks.
  const { images } = await newImages([registry.host], { dir });
  expect(await pull).toBeInstanceOf(Error);
  expect(leftIn(dir)).toEqual([]);
  registry.state.fault = null;
  await images.ensure(registry.image.repository, registry.image.digest);
});

test('unused images go, what runs or was just asked for stays, and shared layers stay whole', async () => {
  const base = await layer(100_000);
  const registries = [
    await registryOf([base, await layer(100_000)]),
    await registryOf([base, await layer(100_000)]),
  ];
  const [one, two] = registries.map((r) => r.image);
  if (!one || !two) throw new Error('two images');
  const hosts = registries.map((r) => r.host);
  const inUse = [one.digest];
  const first = await newImages(hosts, { inUse: () => inUse });
  await first.images.ensure(one.repository, one.digest);
  await first.images.ensure(two.repository, two.digest);
  // Just asked for: both stay, whatever is wanted.
  expect(await first.images.collect(Infinity)).toBe(0);
  await first.images.close();
  // Leases end with the process.
  const next = await newImages(hosts, { dir: first.dir, inUse: () => inUse });
  expect(await next.images.collect(Infinity)).toBeGreaterThan(100_000);
  expect(next.images.list()).toEqual([one.digest]);
  for (const dir of next.images.layersOf(one.repository, one.digest))
    expect(readdirSync(dir)).toEqual(['file']);
  expect(leftIn(next.dir)).toHaveLength(2);
  await next.images.ensure(two.repository, two.digest);
  expect(next.images.layersOf(two.repository, two.digest)).toHaveLength(2);
});

test('a full disk: unused images make room, and without any it is said', async () => {
  const registries = [
    await registryOf([await layer(15_000_000)]),
    await registryOf([await layer(15_000_000)]),
  ];
  const [one, two] = registries.map((r) => r.image);
  if (!one || !two) throw new Error('two images');
  const hosts = registries.map((r) => r.host);
  const dir = `${small}/mnt/images`;
  mkdirSync(dir);
  const first = await newImages(hosts, { dir });
  await first.images.ensure(one.repository, one.digest);
  // Leased: it may not go, and the second does not fit beside it.
  await expect(first.images.ensure(two.repository, two.digest)).rejects.toMatchObject({
    reason: 'image-no-space',
  });
  expect(first.images.list()).toEqual([one.digest]);
  await first.images.close();
  const next = await newImages(hosts, { dir });
  await next.images.ensure(two.repository, two.digest);
  expect(next.images.list()).toEqual([two.digest]);
  expect(next.events.map((event) => event.type)).toEqual(['images-removed', 'image-pulled']);
});
