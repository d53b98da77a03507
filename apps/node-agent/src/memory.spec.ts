import { expect, test } from 'vitest';
import {
  backoffDelay,
  defaultRestartPolicy,
  freshMemory,
  onCrash,
  onNewGeneration,
  onReady,
  onStartFailed,
} from './memory.ts';
import { describeVanished } from './exits.ts';
import { RestartPacer } from './pacer.ts';

const exit = describeVanished(null, new Date(0));

test('the delay doubles from a second to a minute', () => {
  const delays = [1, 2, 3, 6, 7, 1000].map((n) => backoffDelay(n, defaultRestartPolicy, 0));
  expect(delays).toEqual([1000, 2000, 4000, 32_000, 60_000, 60_000]);
});

test('what fails together does not come back together', () => {
  const delays = [0, 0.5, 1].map((chance) => backoffDelay(7, defaultRestartPolicy, chance));
  expect(delays).toEqual([60_000, 54_000, 48_000]);
});

test('five crashes in a row are a loop, in which it is tried more and more rarely', () => {
  let crashed = freshMemory;
  const seen: [boolean, number | null][] = [];
  for (let i = 0; i < 10; i += 1) {
    crashed = onCrash(onReady(crashed, 0), exit, 0, defaultRestartPolicy, 0);
    seen.push([crashed.looping, crashed.retryAt]);
  }
  expect(seen.slice(3, 5)).toEqual([
    [false, 8_000],
    [true, 16_000],
  ]);
  expect(seen.at(-1)).toEqual([true, 300_000]);
  const well = onCrash(onReady(crashed, 0), exit, 60_000, defaultRestartPolicy, 0);
  expect(well).toMatchObject({ looping: false, crashes: 1, retryAt: 61_000 });
  expect(onNewGeneration(crashed, 2)).toMatchObject({ looping: false, crashes: 0 });
});

test('a start that fails is neither a crash nor the end of a row of them', () => {
  let crashed = freshMemory;
  const crash = () => {
    crashed = onCrash(crashed, exit, 0, defaultRestartPolicy, 0);
    return crashed.looping;
  };
  for (let i = 0; i < 4; i += 1) crash();
  crashed = onStartFailed(crashed, { exit, hopeless: false }, 0, defaultRestartPolicy, 0);
  expect(crashed).toMatchObject({ looping: false, crashes: 4 });
  expect(crash()).toBe(true);
});

test('a crash after a minute of readiness is a first crash again', () => {
  const crashed = onCrash({ ...freshMemory, failures: 6 }, exit, 0, defaultRestartPolicy, 0);
  expect(crashed).toMatchObject({ failures: 7, retryAt: 60_000, restarts: 1 });
  const short = onCrash(onReady(crashed, 0), exit, 59_999, defaultRestartPolicy, 0);
  expect(short.failures).toBe(8);
  const long = onCrash(onReady(crashed, 0), exit, 60_000, defaultRestartPolicy, 0);
  expect(long).toMatchObject({ failures: 1, retryAt: 61_000, restarts: 2 });
});

test('being ready clears the last exit, a new generation the back-off', () => {
  const crashed = onCrash(freshMemory, exit, 0, defaultRestartPolicy, 0);
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
