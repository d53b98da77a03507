import { RuntimeError } from '@bulkhead/runtime';
import { expect, test } from 'vitest';
import { FakeRuntime } from './fake-runtime.ts';
import { timedRuntime } from './timed-runtime.ts';

test('each verb is told with its end, and answers and throws what the runtime does', async () => {
  const fake = new FakeRuntime();
  const told: [string, string, boolean][] = [];
  const runtime = timedRuntime(fake, (verb, outcome, seconds) =>
    told.push([verb, outcome, seconds >= 0]),
  );
  const refusal = new RuntimeError('limit-refused', 'It uses more.');
  fake.brokenUpdates.set('a', refusal);
  fake.brokenUpdates.set('b', new Error('the kernel says no'));
  const update = (id: string) => runtime.update(id, {} as never, {} as never);
  await expect(update('a')).rejects.toBe(refusal);
  await expect(update('b')).rejects.toThrow('the kernel says no');
  // Throws at once, where the runtime's own is a promise.
  await expect(runtime.connect('c', 80)).rejects.toThrow('this host is a fake');
  await runtime.stop('a', 0);
  expect(told).toEqual([
    ['update', 'refused', true],
    ['update', 'failed', true],
    ['connect', 'failed', true],
    ['stop', 'done', true],
  ]);

  // What is no verb is the runtime's own, also what keeps its state in private.
  expect(await runtime.list()).toEqual([]);
  expect(runtime.watchLogs?.('a', () => undefined)()).toBe(true);
  expect(told).toHaveLength(4);
});
