import { closeSync, openSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { defaultResources } from '@bulkhead/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as btrfs from './btrfs.ts';
import { openLayers } from './disk.ts';
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
import { umount } from './syscalls.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let image: TestImage;
let options: RuntimeOptions;
let runtime: ContainerRuntime;

beforeAll(async () => {
  registry = await startRegistry();
  image = await registry.push('test/base', [baseLayer]);
  options = testOptions([registry.host]);
  runtime = createRuntime(options);
  await runtime.reconcile();
  await runtime.ensureImage(image);
});

afterAll(async () => {
  await runtime.destroy();
  expect(await traces(options)).toEqual([]);
  removeState(options);
  await registry.close();
});

const mebibyte = 1024 * 1024;
const sh = (script: string): string[] => ['sh', '-c', script];
const limited = (diskMiB: number, script: string): ContainerSpec =>
  containerSpec(image, sh(script), {
    resources: { ...defaultResources, memoryMiB: 64, diskMiB },
  });
const fill = 'dd if=/dev/zero of=/big bs=1M 2>&1 | grep -o "Disk quota exceeded\\|No space left.*"';

async function linesOf(of: ContainerRuntime, id: string, count: number): Promise<string[]> {
  const read = async (): Promise<string[]> =>
    (await of.readLogs(id, null, 1000)).lines.map((line) => line.text);
  await until(`${id} wrote ${count} lines`, async () => (await read()).length >= count);
  return read();
}

/** Quota groups of the pool or file system that the layers are in. */
const groups = (of: RuntimeOptions): number =>
  btrfs.onDirectory(`${of.stateDir}/layers`, (fd) => btrfs.quotaGroups(fd)).length;

async function untilNoGroups(of: RuntimeOptions, before = 0): Promise<void> {
  await until('the quota groups are gone', () => groups(of) === before, 40_000);
}

/** A pool without containers. */
const open = (own: RuntimeOptions, poolMiB: number | undefined) =>
  openLayers({
    stateDir: own.stateDir,
    dir: `${own.stateDir}/layers`,
    poolMiB,
    onProblem: (what, error) => {
      throw new Error(what, { cause: error });
    },
  });

describe('a container at its limit', () => {
  it('cannot write past it, may delete and write again, and nobody else notices', async () => {
    const other = limited(32, 'while :; do echo x > /t && rm /t && echo ok; sleep 0.05; done');
    await runtime.start(other);
    const full = limited(
      32,
      `${fill}; echo x 2>/dev/null > /more || echo refused; rm /big; echo x > /more && cat /more; sleep 1000`,
    );
    await runtime.start(full);
    expect(await linesOf(runtime, full.id, 3)).toEqual(['Disk quota exceeded', 'refused', 'x']);
    const written = (await linesOf(runtime, other.id, 1)).length;
    const after = await linesOf(runtime, other.id, written + 3);
    expect(new Set(after)).toEqual(new Set(['ok']));
    for (const { id } of [full, other]) await runtime.remove(id);
    await untilNoGroups(options);
  });

  it('is told what it uses, to a few blocks', async () => {
    const spec = limited(
      64,
      'dd if=/dev/zero of=/big bs=1M count=20 2>/dev/null; sync; echo done; sleep 1000',
    );
    await runtime.start(spec);
    await linesOf(runtime, spec.id, 1);
    await until(
      'it is counted',
      async () => {
        const usage = await runtime.diskUsage(spec.id);
        return usage !== null && Math.abs(usage.bytes - 20 * mebibyte) < mebibyte / 4;
      },
      60_000,
    );
    expect(await runtime.diskUsage(spec.id)).toMatchObject({ limit: 64 * mebibyte });
    await runtime.remove(spec.id);
    expect(await runtime.diskUsage(spec.id)).toBeNull();
  });

  it('meets it with empty files and directories, too: names count', async () => {
    const script =
      'perl -e \'for (;; $n++) { open(F, ">", "/f$n") or do { print "$!\\n"; last }; close F } print $n > 10000 ? "many" : "few", "\\n"\'';
    const { out } = await runToEnd(runtime, limited(16, script));
    expect(out).toEqual(['Disk quota exceeded', 'many']);
  });

  it('ends with that as the reason when it ends with an error', async () => {
    const failed = await runToEnd(runtime, limited(16, `${fill}; exit 3`));
    expect(failed.exit).toMatchObject({ exitCode: 3, diskFull: true, oomKilled: false });
    const fine = await runToEnd(runtime, limited(16, `${fill}; exit 0`));
    expect(fine.exit).toMatchObject({ exitCode: 0, diskFull: false });
    const other = await runToEnd(runtime, limited(16, 'echo x > /t; exit 3'));
    expect(other.exit).toMatchObject({ exitCode: 3, diskFull: false });
  });

  it('gets a new layer and the whole limit with a restart', async () => {
    const spec = limited(16, `${fill}; exit 1`);
    for (const n of [1, 2]) {
      await runtime.start(spec);
      expect(await runtime.waitExit(spec.id, AbortSignal.timeout(20_000))).toMatchObject({
        diskFull: true,
      });
      expect(await linesOf(runtime, spec.id, n)).toHaveLength(n);
    }
    await runtime.remove(spec.id);
  });
});

describe('the pool', () => {
  it('takes its space from the disk at once, and tells its size', async () => {
    const { size, blocks } = statSync(`${options.stateDir}/pool.img`);
    expect(size).toBe(512 * mebibyte);
    expect(blocks * 512).toBeGreaterThanOrEqual(size);
    expect(await runtime.facts()).toMatchObject({ diskLimit: 'btrfs', diskPoolMiB: 512 });
  });

  it('when full refuses writes but ends nobody, and gives space back', async () => {
    const quiet = limited(
      64,
      'trap "echo x > /t && echo wrote || echo refused" USR1; echo up; while :; do sleep 0.05; done',
    );
    await runtime.start(quiet);
    await linesOf(runtime, quiet.id, 1);
    const hog = limited(4096, `${fill}; sleep 1000`);
    await runtime.start(hog);
    expect(await linesOf(runtime, hog.id, 1)).toEqual(['No space left on device']);
    expect(await runtime.find(quiet.id)).toMatchObject({ state: 'running' });
    await runtime.remove(hog.id);
    await untilNoGroups(options, 1);
    const fine = limited(64, 'dd if=/dev/zero of=/t bs=1M count=32 2>/dev/null && echo wrote');
    expect((await runToEnd(runtime, fine)).out).toEqual(['wrote']);
    const { pid } = (await runtime.find(quiet.id)) ?? {};
    process.kill(pid ?? 0, 'SIGUSR1');
    expect((await linesOf(runtime, quiet.id, 2))[1]).toBe('wrote');
    await runtime.remove(quiet.id);
  });

  it('grows while something lives in it', async () => {
    const own = testOptions([]);
    const dir = `${own.stateDir}/layers`;
    const before = await open(own, 256);
    before.make('a', 4096 * mebibyte, 0);
    const file = openSync(`${dir}/a/upper/big`, 'w');
    // The next agent finds the loop device, which this file holds, and no mount.
    umount(dir);
    const layers = await open(own, 512);
    expect(layers.pool()?.bytes).toBe(512 * mebibyte);
    let written = 0;
    expect(() => {
      for (;;) written += writeSync(file, Buffer.alloc(mebibyte, 1));
    }).toThrow('ENOSPC');
    expect(written).toBeGreaterThan(400 * mebibyte);
    closeSync(file);
    expect((await open(own, 128)).pool()?.bytes).toBe(512 * mebibyte);
    await layers.destroy();
    expect(await traces(own)).toEqual([]);
    removeState(own);
  });

  it('that nothing holds any more is made anew, whatever it holds', async () => {
    const own = testOptions([]);
    await open(own, 128);
    umount(`${own.stateDir}/layers`);
    // As after a power cut.
    writeFileSync(`${own.stateDir}/pool.img`, Buffer.alloc(mebibyte, 0xff), { flag: 'r+' });
    const layers = await open(own, undefined);
    expect(layers.pool()?.bytes).toBe(128 * mebibyte);
    expect(layers.kind).toBe('btrfs');
    expect(layers.list()).toEqual([]);
    layers.make('a', 16 * mebibyte, 0);
    expect(layers.usage('a')?.limit).toBe(16 * mebibyte);
    await layers.destroy();
    expect(await traces(own)).toEqual([]);
    removeState(own);
  });

  it('can be done without, which is told', async () => {
    const own = { ...testOptions([]), diskPoolMiB: 0 };
    const without = createRuntime(own);
    await without.reconcile();
    expect(await without.facts()).toMatchObject({ diskLimit: 'none', diskPoolMiB: null });
    await without.destroy();
    expect(await traces(own)).toEqual([]);
    removeState(own);
  });
});
