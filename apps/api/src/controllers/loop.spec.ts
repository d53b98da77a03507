import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { KeyedQueue, Loop } from './loop.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('a loop runs at the start, when woken and at its interval', async () => {
  const work = vi.fn(async () => 'done' as const);
  const loop = new Loop({ work, everyMs: 1000, onError: () => undefined });
  loop.start();
  await vi.advanceTimersByTimeAsync(0);
  expect(work).toHaveBeenCalledTimes(1);
  loop.wake();
  await vi.advanceTimersByTimeAsync(0);
  expect(work).toHaveBeenCalledTimes(2);
  await vi.advanceTimersByTimeAsync(1000);
  expect(work).toHaveBeenCalledTimes(3);
  await loop.stop();
  await vi.advanceTimersByTimeAsync(5000);
  expect(work).toHaveBeenCalledTimes(3);
});

test('a wake-up during work means one more look after it', async () => {
  const gates: (() => void)[] = [];
  const work = vi.fn(() => new Promise<'done'>((resolve) => gates.push(() => resolve('done'))));
  const loop = new Loop({ work, everyMs: 1000, onError: () => undefined });
  loop.start();
  loop.wake();
  loop.wake();
  expect(work).toHaveBeenCalledTimes(1);
  gates.shift()?.();
  await vi.advanceTimersByTimeAsync(0);
  expect(work).toHaveBeenCalledTimes(2);
  gates.shift()?.();
  await vi.advanceTimersByTimeAsync(0);
  expect(work).toHaveBeenCalledTimes(2);
  await loop.stop();
});

test('after an error a loop pauses, whoever wakes it, and then goes on', async () => {
  let broken = true;
  const work = vi.fn(async () => {
    if (broken) throw new Error('no database');
    return 'done' as const;
  });
  const onError = vi.fn();
  const loop = new Loop({ work, everyMs: 60_000, onError });
  loop.start();
  await vi.advanceTimersByTimeAsync(0);
  for (let index = 0; index < 10; index++) loop.wake();
  await vi.advanceTimersByTimeAsync(10);
  expect(work).toHaveBeenCalledTimes(1);
  broken = false;
  await vi.advanceTimersByTimeAsync(1000);
  expect(work).toHaveBeenCalledTimes(2);
  expect(onError).toHaveBeenCalledTimes(1);
  await loop.stop();
});

test('a queue never works on one key twice at once, and one failing key stops no other', async () => {
  const active = new Set<string>();
  const done: string[] = [];
  const onError = vi.fn();
  const queue = new KeyedQueue({
    concurrency: 2,
    onError,
    work: async (key) => {
      expect(active.has(key)).toBe(false);
      expect(active.size).toBeLessThan(2);
      active.add(key);
      await new Promise((resolve) => setTimeout(resolve, 5));
      active.delete(key);
      if (key === 'bad') throw new Error('bad');
      done.push(key);
      return 'done';
    },
  });
  for (const key of ['bad', 'a', 'b', 'a']) queue.add(key);
  await vi.advanceTimersByTimeAsync(5);
  queue.add('a');
  await vi.advanceTimersByTimeAsync(100);
  expect(done.sort()).toEqual(['a', 'a', 'a', 'b']);
  expect(onError).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(1000);
  expect(onError).toHaveBeenCalledTimes(2);
  await queue.stop();
});
