import { readFileSync } from 'node:fs';
import { afterAll, expect, it } from 'vitest';
import { forgetConnections } from './connections.ts';
import { createRuntime } from './host-runtime.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import { SlotPool } from './userns.ts';

const pools: SlotPool[] = [];
afterAll(() => Promise.all(pools.map((pool) => pool.close())));

it('no slot is handed out again before its connections are forgotten, and the longest free comes first', async () => {
  const forgotten: number[][] = [];
  let now = 0;
  const pool = new SlotPool({
    last: 3,
    idBase: (slot) => (4000 + slot) * 65_536,
    first: 0,
    spares: 0,
    forget: (slots) => forgotten.push([...slots]),
    now: () => now,
  });
  pools.push(pool);
  const taken = [await pool.take(), await pool.take()].map((slot) => slot?.slot);
  expect(taken).toEqual([1, 2]);
  pool.release(1);
  now += 1000;
  pool.release(2);
  expect(pool.resting()).toBe(2);
  // One that nobody had comes before those that rest.
  expect((await pool.take())?.slot).toBe(3);
  expect(forgotten).toEqual([]);
  // All others rest: the one that has for longest.
  expect((await pool.take())?.slot).toBe(1);
  expect(forgotten).toEqual([[1, 2]]);
  // What came after that is forgotten, too.
  expect((await pool.take())?.slot).toBe(2);
  expect(forgotten).toEqual([[1, 2], [2]]);
  expect(await pool.take()).toBeNull();
  pool.release(3);
  expect(pool.resting()).toBe(1);
  now += 60_000;
  expect(pool.resting()).toBe(0);
  expect((await pool.take())?.slot).toBe(3);
  expect(forgotten.at(-1)).toEqual([3]);
});

it('a slot whose connections cannot be forgotten is not handed out', async () => {
  let broken = true;
  const forget = (): void => {
    if (broken) throw new Error('no such table');
  };
  const idBase = (slot: number): number => (4010 + slot) * 65_536;
  const pool = new SlotPool({ last: 1, idBase, first: 0, spares: 0, forget, now: () => 0 });
  pools.push(pool);
  expect((await pool.take())?.slot).toBe(1);
  pool.release(1);
  await expect(pool.take()).rejects.toThrow('no such table');
  broken = false;
  expect((await pool.take())?.slot).toBe(1);
});

it('the next agent finds no connection of what is gone, and those of what runs', async () => {
  const registry = await startRegistry();
  const options = testOptions([registry.host]);
  const image = await registry.push('test/base', [baseLayer]);
  const runtime = createRuntime(options);
  await runtime.reconcile();
  await runtime.ensureImage(image);
  const server = containerSpec(image, ['httpd', '-f', '-p', '80', '-h', '/etc']);
  const { address } = await runtime.start(server);
  await until('it answers', () =>
    fetch(`http://${address}/group`).then(
      ({ ok }) => ok,
      () => false,
    ),
  );
  const isKnown = (): boolean =>
    readFileSync('/proc/net/nf_conntrack', 'utf8').includes(`dst=${address} `);
  expect(isKnown()).toBe(true);
  // What is asked of the kernel for others leaves it alone.
  forgetConnections(new Set(['10.254.254.254']));
  expect(isKnown()).toBe(true);
  await runtime.destroy();
  // The kernel knows it still: whoever had this address now would be answered in its place.
  expect(isKnown()).toBe(true);
  const next = createRuntime(options);
  await next.reconcile();
  expect(isKnown()).toBe(false);
  await next.destroy();
  expect(await traces(options)).toEqual([]);
  removeState(options);
  await registry.close();
});
