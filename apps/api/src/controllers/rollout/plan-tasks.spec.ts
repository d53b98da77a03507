import { describe, expect, test } from 'vitest';
import { emptyWorld } from '../testing/rollout-world.ts';
import type { AppSnapshot, TaskSnapshot } from './app-snapshot.ts';
import { planRollout } from './plan-rollout.ts';

const task: TaskSnapshot = {
  id: 'itask',
  nodeId: 'n0',
  desired: 'running',
  state: 'running',
  stateAt: 990_000,
  deadlineAt: 2_000_000,
};
const plan = (app: Partial<AppSnapshot>, change: Partial<TaskSnapshot> = {}) =>
  planRollout({ ...emptyWorld(), ...app, tasks: [{ ...task, ...change }] }, () => 'inew').map(
    (step) => step.do,
  );

describe('a one-off task', () => {
  test.each<[string, Partial<AppSnapshot>, Partial<TaskSnapshot>, string[]]>([
    ['runs on', {}, {}, []],
    ['waits for a node', {}, { nodeId: null, state: 'pending' }, []],
    ['that has ended is removed', {}, { state: 'ended' }, ['remove']],
    ['that has just ended stays a little', { now: 999_999 }, { state: 'ended' }, []],
    ['that cannot start is removed', {}, { state: 'failed' }, ['remove']],
    ['is removed past its deadline', { now: 2_000_000 }, {}, ['remove']],
    ['that waits past its deadline is forgotten', { now: 2e6 }, { nodeId: null }, ['forget']],
    ['ends with its app', { state: 'stopped' }, {}, ['remove']],
    ['without a node ends with its app', { state: 'deleting' }, { nodeId: null }, ['forget']],
    [
      'that was stopped without a node is forgotten',
      {},
      { desired: 'gone', nodeId: null },
      ['forget'],
    ],
    ['on its way out holds up the end of its app', { state: 'deleting' }, { desired: 'gone' }, []],
  ])('%s', (_name, app, change, steps) => {
    expect(plan(app, change)).toEqual(steps);
  });

  test('that is gone does not', () => {
    expect(planRollout({ ...emptyWorld(), state: 'deleting' }, () => 'i').map((s) => s.do)).toEqual(
      ['finish'],
    );
  });
});
