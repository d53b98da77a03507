import { expect, test } from 'vitest';
import {
  backoffDelay,
  defaultRestartPolicy,
  freshMemory,
  onCrash,
  onNewGeneration,
  onReady,
} from './memory.ts';
import { describeVanished } from './exits.ts';
import { RestartPacer } from './pacer.ts';

const exit = describeVanished(new Date(0));

test('the delay doubles from a second to a minute', () => {
  const delays = [1, 2, 3, 6, 7, 1000].map((n) => backoffDelay(n, defaultRestartPolicy));
  expect(delays).toEqual([1000, 2000, 4000, 32_000, 60_000, 60_000]);
});

test('a crash after a minute of readiness is a first crash again', () => {
  const crashed = onCrash({ ...freshMemory, failures: 6 }, exit, 0, defaultRestartPolicy);
  expect(crashed).toMatchObject({ failures: 7, retryAt: 60_000, restarts: 1 });
  const short = onCrash(onReady(crashed, 0), exit, 59_999, defaultRestartPolicy);
  expect(short.failures).toBe(8);
  const long = onCrash(onReady(crashed, 0), exit, 60_000, defaultRestartPolicy);
  expect(long).toMatchObject({ failures: 1, retryAt: 61_000, restarts: 2 });
});

test('being ready clears the last exit, a new generation the back-off', () => {
  const crashed = onCrash(freshMemory, exit, 0, defaultRestartPolicy);
  expect(onReady(crashed, 1).exit).toBeNull();
  expect(onNewGeneration(crashed, 2)).toMatchObject({
    generation: 2,
    failures: 0,
    retryAt: null,
    restarts: 1,
  });
});

test('restarts after a mass failure follow one another, the first few at once', () => {
  const pacer = new RestartPacer({ perSecond: 10, burst: 3 });
  const slots = Array.from({ length: 6 }, () => pacer.reserve(10_000) - 10_000);
  expect(slots).toEqual([0, 0, 0, 100, 200, 300]);
  expect(pacer.reserve(60_000)).toBe(60_000);
});
