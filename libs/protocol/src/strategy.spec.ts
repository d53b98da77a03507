import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  extraOf,
  newCountOf,
  rolling,
  rolloutStrategy,
  stagesOf,
  surgeOf,
  trafficOf,
  unavailableOf,
} from './strategy.ts';

const pace = (maxSurge: string, maxUnavailable: string) => ({
  ...{ maxSurge, maxUnavailable, progressSeconds: 300 },
});

describe('a pace', () => {
  // As `kubectl explain deployment.spec.strategy.rollingUpdate` has it: surge up, unavailable down.
  it.each([
    ['25%', '0', 1, 1, 0],
    ['25%', '0', 4, 1, 0],
    ['25%', '25%', 5, 2, 1],
    ['25%', '25%', 3, 1, 0],
    ['2', '1', 10, 2, 1],
    ['100%', '0', 3, 3, 0],
    ['0', '50%', 3, 0, 1],
    // Neither would allow anything: one may be missing.
    ['0', '0', 3, 0, 1],
    ['0', '25%', 3, 0, 1],
    // Never more than there are.
    ['9', '9', 2, 2, 2],
    ['1', '1', 0, 0, 0],
  ])('surge %s, unavailable %s of %i', (maxSurge, maxUnavailable, wanted, surge, unavailable) => {
    const of = pace(maxSurge, maxUnavailable);
    expect([surgeOf(of, wanted), unavailableOf(of, wanted)]).toEqual([surge, unavailable]);
  });

  it('always lets something move', () => {
    const amount = fc.oneof(
      fc.nat(50).map(String),
      fc.nat(100).map((n) => `${n}%`),
    );
    fc.assert(
      fc.property(amount, amount, fc.integer({ min: 1, max: 40 }), (more, fewer, wanted) => {
        const of = pace(more, fewer);
        expect(surgeOf(of, wanted) + unavailableOf(of, wanted)).toBeGreaterThan(0);
      }),
    );
  });
});

describe('a step', () => {
  it.each([
    ['10%', 1, 1, 0.1],
    ['10%', 4, 1, 0.1],
    ['50%', 5, 3, 0.5],
    ['100%', 4, 4, 1],
    ['2', 4, 2, 0.5],
    ['9', 4, 4, 1],
    ['10%', 0, 0, 0.1],
  ])('%s of %i: %i new ones with %d of the requests', (share, wanted, count, part) => {
    expect([newCountOf({ share }, wanted), trafficOf({ share }, wanted)]).toEqual([count, part]);
  });

  it.each(['0', '0%', '101%', '-1', '1.5', '', '10 %', '99999'])('is not %j', (share) => {
    const canary = { ...rolling, kind: 'canary', steps: [{ share, pauseSeconds: null }] };
    expect(rolloutStrategy.safeParse(canary).success).toBe(false);
  });
});

describe('what a tenant pays beside what is wanted', () => {
  const canary = { ...rolling, kind: 'canary' as const, steps: [] };
  const blueGreen = { ...rolling, kind: 'blue-green' as const, manual: true, keepOldSeconds: 60 };
  it.each([
    ['a usual surge: nothing', rolling, 0],
    ['a larger surge: the rest', { ...rolling, maxSurge: '100%' }, 6],
    ['a canary: its surge, since it may wait', canary, 2],
    ['blue-green: the second set', blueGreen, 8],
  ])('%s', (_, strategy, extra) => {
    expect(extraOf(strategy, 8)).toBe(extra);
  });
});

it('blue-green changes over at its first gate and lets the old go at its second', () => {
  const blueGreen = { ...rolling, kind: 'blue-green' as const, manual: false, keepOldSeconds: 60 };
  expect(stagesOf(blueGreen).map(({ serves, gate }) => [serves, gate])).toEqual([
    ['old', { kind: 'time', seconds: 0 }],
    ['new', { kind: 'time', seconds: 60 }],
  ]);
});
