import { newCountOf, rolling, type RolloutStrategy } from '@bulkhead/protocol';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  appWith,
  backend,
  deploymentOf,
  instanceOf,
  plan,
  web,
} from '../testing/rollout-fixtures.ts';
import { processOf, releaseOf } from '../testing/rollout-world.ts';
import type { AppSnapshot, InstanceSnapshot } from './app-snapshot.ts';
import type { Step } from './plan-rollout.ts';
import { weightsOf } from './stage.ts';

const canary: RolloutStrategy = {
  ...rolling,
  kind: 'canary',
  steps: [
    { share: '25%', pauseSeconds: null },
    { share: '50%', pauseSeconds: 60 },
  ],
};
const blueGreen: RolloutStrategy = {
  ...{ ...rolling, kind: 'blue-green' },
  ...{ manual: true, keepOldSeconds: 60 },
};

const old = (id: string, over: Partial<InstanceSnapshot> = {}) => instanceOf(id, over);
const fresh = (id: string, over: Partial<InstanceSnapshot> = {}) =>
  instanceOf(id, { releaseId: 'r2', version: 2, deploymentId: 'd1', ...over });
const olds = (count: number) => Array.from({ length: count }, (_, n) => old(`o${n}`));
const freshes = (count: number) => Array.from({ length: count }, (_, n) => fresh(`n${n}`));

/** v2 comes after v1, four wanted. */
function app(
  strategy: RolloutStrategy,
  instances: readonly InstanceSnapshot[],
  over: Partial<AppSnapshot> & { step?: number; reachedAt?: number } = {},
): AppSnapshot {
  const { step = 0, reachedAt = null, ...rest } = over;
  return appWith({
    release: releaseOf(2, [web]),
    from: releaseOf(1, [web]),
    formation: { web: 4 },
    deployment: deploymentOf({
      ...{ strategy, step, reachedAt, fromReleaseId: 'r1', toReleaseId: 'r2' },
    }),
    instances: [...instances],
    routes: [],
    ...rest,
  });
}

/** `create v2`, `drain o1`, `reach`; a route by whom it leads to and with which weight. */
const told = (steps: readonly Step[]): string[] =>
  steps.flatMap((step) => {
    switch (step.do) {
      case 'tell':
        return [];
      case 'create':
        return [`create ${step.release}`];
      case 'route':
        return [`route ${step.backends.map((b) => `${b.instance}:${b.weight ?? 1}`).join(' ')}`];
      case 'advance':
        return [`advance ${step.step}`];
      case 'fail':
        return [`fail ${step.failure.code}`];
      default:
        return ['instance' in step ? `${step.do} ${step.instance}` : step.do];
    }
  });
const routed = (...weights: [string, number?][]): AppSnapshot['routes'] => [
  {
    ...{ host: 'hello.demo.localhost', state: 'serving', revision: 5, deleted: false },
    backends: weights.map(([id, weight]) => ({
      ...backend(id),
      ...(weight !== undefined && { weight }),
    })),
  },
];
const evenly = (...ids: string[]) => routed(...ids.map((id): [string] => [id]));
const quarter = routed(['n0', 256], ['o0', 192], ['o1', 192], ['o2', 192], ['o3', 192]);
const half = routed(['n0', 255], ['n1', 255], ['o0', 170], ['o1', 170], ['o2', 170]);

describe('a canary of a quarter, four wanted, one more allowed', () => {
  test.each<[string, AppSnapshot, string[]]>([
    [
      'begins with one beside all',
      app(canary, olds(4), { routes: evenly('o0', 'o1', 'o2', 'o3') }),
      ['create r2'],
    ],
    [
      'gives it its part once it is ready',
      app(canary, [...olds(4), ...freshes(1)], { routes: evenly('o0', 'o1', 'o2', 'o3') }),
      ['route n0:256 o0:192 o1:192 o2:192 o3:192'],
    ],
    [
      'stands at the gate then',
      app(canary, [...olds(4), ...freshes(1)], { routes: quarter }),
      ['reach'],
    ],
    [
      'waits there for people, past any deadline',
      app(canary, [...olds(4), ...freshes(1)], { routes: quarter, reachedAt: 1, now: 9e9 }),
      [],
    ],
    [
      'promoted it makes room before it makes the second',
      app(canary, [...olds(4), ...freshes(1)], { routes: quarter, step: 1 }),
      ['drain o3', 'route n0:256 o0:256 o1:256 o2:256'],
    ],
    [
      'goes on by itself when its time is over',
      app(canary, [...olds(3), ...freshes(2)], { routes: half, step: 1, reachedAt: 900_000 }),
      ['advance 2'],
    ],
    [
      'but not while a new one is not ready',
      app(canary, [...olds(3), fresh('n0'), fresh('n1', { state: 'unready' })], {
        ...{ step: 1, reachedAt: 900_000 },
        routes: routed(['n0', 256], ['o0', 256], ['o1', 256], ['o2', 256]),
      }),
      [],
    ],
    [
      'past the last gate it is a rolling one',
      app(canary, [...olds(3), ...freshes(2)], { routes: half, step: 2 }),
      ['drain o0', 'route n0:1 n1:1 o1:1 o2:1'],
    ],
  ])('%s', (_, before, expected) => {
    expect(told(plan(before))).toEqual(expected);
  });
});

describe('while a canary is looked at', () => {
  const at = (instances: readonly InstanceSnapshot[], over: Parameters<typeof app>[2] = {}) =>
    told(plan(app(canary, instances, { routes: quarter, reachedAt: 1, ...over })));
  const exit = { reason: 'exited' as const, exitCode: 1, signal: null, message: 'boom' };
  const ended = { lastExit: { ...exit, lastLines: [], at: '2026-01-01T00:00:00Z' }, restarts: 1 };

  test.each<[string, () => string[], string[]]>([
    [
      'a new one that ended is enough, though it is ready again',
      () => at([...olds(4), fresh('n0', ended)]),
      ['fail CRASHED'],
    ],
    [
      'that ended twice, and whose last word did not come',
      () => at([...olds(4), fresh('n0', { restarts: 2 })]),
      ['fail CRASHED'],
    ],
    [
      'that its host was restarted is no fault of it',
      () => {
        const lastExit = { ...ended.lastExit, exitCode: null };
        return at([...olds(4), fresh('n0', { ...ended, lastExit })]);
      },
      [],
    ],
    [
      'one that was there before proves nothing',
      () => at([old('o0', ended), ...olds(4).slice(1), fresh('n0')]),
      [],
    ],
    [
      'a lost old one is made again as it was',
      () =>
        at([...olds(4).slice(1), fresh('n0')], {
          routes: routed(['n0', 256], ['o1', 256], ['o2', 256], ['o3', 256]),
        }),
      ['create r1'],
    ],
    [
      'a lost new one is made again as it was',
      () => at(olds(4), { routes: evenly('o0', 'o1', 'o2', 'o3') }),
      ['create r2'],
    ],
    [
      'a drained node: the copy of an old one comes first',
      () => at([old('o0', { leavesNode: true }), ...olds(4).slice(1), fresh('n0')]),
      ['create r1'],
    ],
    [
      'a drained node: the copy of the new one comes first',
      () => at([...olds(4), fresh('n0', { leavesNode: true })]),
      ['create r2'],
    ],
    [
      'a drained node: then the old one goes',
      () =>
        at([old('o0', { leavesNode: true }), ...olds(4).slice(1), old('o4'), fresh('n0')], {
          routes: routed(
            ['n0', 256],
            ['o0', 154],
            ['o1', 154],
            ['o2', 154],
            ['o3', 154],
            ['o4', 154],
          ),
        }),
      ['drain o0', 'route n0:256 o1:192 o2:192 o3:192 o4:192'],
    ],
    [
      'scaled up both sides grow',
      () => at([...olds(4), fresh('n0')], { formation: { web: 8 } }),
      [
        ...Array<string>(4).fill('create r1'),
        'create r2',
        // One of two that are to share a quarter: it gets half of that.
        'route n0:144 o0:252 o1:252 o2:252 o3:252',
      ],
    ],
  ])('%s', (_, steps, expected) => {
    expect(steps()).toEqual(expected);
  });
});

describe('blue-green', () => {
  const both = [...olds(4), ...freshes(4)];
  const [blue, green] = [evenly('o0', 'o1', 'o2', 'o3'), evenly('n0', 'n1', 'n2', 'n3')];
  test.each<[string, AppSnapshot, string[]]>([
    [
      'makes all new ones beside the old',
      app(blueGreen, olds(4), { routes: blue }),
      Array<string>(4).fill('create r2'),
    ],
    [
      'gives them no request when they are ready, and waits',
      app(blueGreen, both, { routes: blue }),
      ['reach'],
    ],
    [
      'promoted it sends all to them and keeps the old',
      app(blueGreen, both, { routes: blue, step: 1 }),
      ['route n0:1 n1:1 n2:1 n3:1'],
    ],
    [
      'keeps the old for their time',
      app(blueGreen, both, { routes: green, step: 1, reachedAt: 980_000 }),
      [],
    ],
    [
      'then they may go',
      app(blueGreen, both, { routes: green, step: 1, reachedAt: 900_000 }),
      ['advance 2'],
    ],
    [
      'and they go',
      app(blueGreen, both, { routes: green, step: 2 }),
      ['drain o0', 'drain o1', 'drain o2', 'drain o3'],
    ],
    [
      'of the new ones none is ready: the old serve again',
      app(
        blueGreen,
        [...olds(4), ...freshes(4).map((each) => ({ ...each, state: 'unready' as const }))],
        { routes: green, step: 1 },
      ),
      ['route o0:1 o1:1 o2:1 o3:1'],
    ],
    [
      'aborted after the change-over: what was kept serves at once',
      app(blueGreen, both, {
        ...{ routes: green, release: releaseOf(1, [web]) },
        deployment: deploymentOf({
          status: 'failed',
          fromReleaseId: 'r1',
          toReleaseId: 'r2',
          strategy: blueGreen,
        }),
      }),
      ['drain n0', 'drain n1', 'drain n2', 'drain n3', 'route o0:1 o1:1 o2:1 o3:1'],
    ],
    [
      'aborted before it: what never served is not let in',
      app(blueGreen, [old('o0', { state: 'unready' }), ...olds(4).slice(1), ...freshes(4)], {
        ...{ routes: evenly('o1', 'o2', 'o3'), release: releaseOf(1, [web]) },
        deployment: deploymentOf({
          status: 'failed',
          fromReleaseId: 'r1',
          toReleaseId: 'r2',
          strategy: blueGreen,
        }),
      }),
      ['drain n0', 'drain n1', 'drain n2', 'drain n3'],
    ],
  ])('%s', (_, before, expected) => {
    expect(told(plan(before))).toEqual(expected);
  });
});

describe('a deadline of progress', () => {
  const strategy = { ...rolling, progressSeconds: 100 };
  const at = (instances: readonly InstanceSnapshot[], over: object) => {
    const times = { progressAt: 900_000, deadlineAt: 1_000_000 };
    const deployment = deploymentOf({
      ...{ strategy, fromReleaseId: 'r1', toReleaseId: 'r2', ...times, ...over },
    });
    return plan(app(rolling, instances, { deployment, routes: evenly('o0', 'o1', 'o2', 'o3') }));
  };
  const pulling = fresh('n0', { state: 'pulling', readyAt: null });
  const progress = (steps: readonly Step[]) =>
    steps.flatMap((step) => (step.do === 'progress' ? step.progress : []));

  test('begins again with what was never seen before, and only with that', () => {
    const [begun] = progress(at([...olds(4), pulling], { progress: -9, deadlineAt: 2e6 }));
    const [ready = NaN] = progress(
      at([...olds(4), fresh('n0')], { progress: begun, deadlineAt: 2e6 }),
    );
    expect(ready).toBeGreaterThan(begun ?? NaN);
    expect(progress(at([...olds(4), pulling], { progress: ready, deadlineAt: 2e6 }))).toEqual([]);
    expect(progress(at([...olds(3), fresh('n0')], { progress: ready, deadlineAt: 2e6 }))).toEqual([
      ready + 1,
    ]);
  });

  test('fails what does not get on, and not what waits at a gate', () => {
    expect(told(at([...olds(4), pulling], {}))).toEqual(['fail DEADLINE_EXCEEDED']);
    expect(told(at([...olds(4), pulling], { reachedAt: 1 }))).not.toContain(
      'fail DEADLINE_EXCEEDED',
    );
  });
});

describe('a third release while the second is on its way', () => {
  const worker = processOf('worker', null);
  const third = (process: string, over: Partial<AppSnapshot> = {}) => {
    const of = (id: string, release: number) =>
      instanceOf(id, { ...{ process, releaseId: `r${release}`, version: release } });
    const instances = [of('o0', 1), of('n0', 2), of('n1', 2), of('n2', 2)];
    return appWith({
      ...{ release: releaseOf(3, [web, worker]), from: releaseOf(1, [web, worker]) },
      ...{ formation: { [process]: 4 }, instances },
      deployment: deploymentOf({ fromReleaseId: 'r1', toReleaseId: 'r3' }),
      ...over,
    });
  };
  const failed = deploymentOf({ status: 'failed', fromReleaseId: 'r1', toReleaseId: 'r2' });

  test.each<[string, AppSnapshot, string[]]>([
    [
      'what serves of the second stays until there is something better',
      third('web', { routes: evenly('n0', 'n1', 'n2', 'o0') }),
      ['create r3'],
    ],
    ['so do workers, which get no requests', third('worker'), ['create r3']],
    [
      'also when the second failed and the first is to come back',
      third('worker', { release: releaseOf(1, [web, worker]), deployment: failed }),
      ['create r1'],
    ],
  ])('%s', (_, before, expected) => {
    const routes = told(plan(before)).filter((step) => !step.startsWith('route'));
    expect(routes).toEqual(expected);
  });
});

test('what the new release dropped runs until the last gate', () => {
  const worker = processOf('worker', null);
  const job = old('w0', { process: 'worker', port: null });
  const before = app(canary, [...olds(4), ...freshes(1), job], {
    ...{ from: releaseOf(1, [web, worker]), formation: { web: 4, worker: 1 } },
    ...{ routes: quarter, reachedAt: 1 },
  });
  expect(told(plan(before))).toEqual([]);
  // On a node that is drained too.
  const moved = {
    ...before,
    instances: before.instances.map((each) =>
      each.id === 'w0' ? { ...each, leavesNode: true } : each,
    ),
  };
  expect(told(plan(moved))).toEqual(['create r1']);
});

test('weights give each side its part, to a tenth of a percent', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 99 }),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 60 }),
      (percent, wanted, left) => {
        const stage = {
          share: `${percent}%`,
          serves: 'both',
          gate: { kind: 'promotion' },
        } as const;
        const ready = { new: newCountOf(stage, wanted), old: Math.min(left, wanted) };
        const weights = weightsOf(stage, wanted, ready);
        const part =
          (weights.new * ready.new) / (weights.new * ready.new + weights.old * ready.old);
        expect(Math.abs(part - percent / 100)).toBeLessThan(0.001);
        for (const weight of [weights.new, weights.old]) {
          expect(weight).toBeGreaterThanOrEqual(1);
          expect(weight).toBeLessThanOrEqual(256);
        }
      },
    ),
  );
});
