import { expect, test } from 'vitest';
import {
  appWith,
  deploymentOf,
  instanceOf,
  kinds,
  plan,
  serving,
  web,
} from '../testing/rollout-fixtures.ts';
import { releaseOf } from '../testing/rollout-world.ts';

const resized = { ...releaseOf(2, [web]), family: 'r1' };
const deployment = deploymentOf({ kind: 'resize', fromReleaseId: 'r1', toReleaseId: 'r2' });
const edges = { known: true, applied: [5] };

test('what differs in sizes alone is changed where it is, and not replaced', () => {
  const app = appWith({
    ...{ release: resized, deployment, formation: { web: 2 }, routes: serving(5, 'a', 'b') },
    instances: [instanceOf('a'), instanceOf('b')],
  });
  const steps = plan(app).filter((step) => step.do !== 'tell');
  expect(steps).toMatchObject([
    { do: 'resize', instance: 'a', deployment: 'd1' },
    { do: 'resize', instance: 'b', deployment: 'd1' },
  ]);
});

test('it is done when every node has said that it took it on', () => {
  const made = { releaseId: 'r2', family: 'r1', version: 2, deploymentId: 'd1', resized: true };
  const with_ = (settled: boolean) =>
    kinds(
      plan(
        appWith({
          ...{ release: resized, deployment, edges, routes: serving(5, 'a') },
          instances: [instanceOf('a', { ...made, settled })],
        }),
      ),
    );
  expect(with_(false)).toEqual([]);
  expect(with_(true)).toEqual(['succeed']);
});

test.each([
  ['has no room for it', { outgrown: true }],
  ['is drained', { leavesNode: true }],
  ['belongs to another restart', { epoch: -1 }],
  ['is of another family', { family: 'r0' }],
])('one that %s is replaced, the new one first', (_why, over) => {
  const old = instanceOf('a', over);
  const app = appWith({ release: resized, deployment, instances: [old], routes: serving(5, 'a') });
  expect(kinds(plan(app))).toEqual(['create']);
  const fresh = instanceOf('b', { releaseId: 'r2', family: 'r1', version: 2 });
  expect(kinds(plan({ ...app, instances: [old, fresh] }))).toEqual(['drain', 'route']);
});

test('a resize on top of another, and back after one that failed, are in place too', () => {
  const third = { ...releaseOf(3, [web]), family: 'r1' };
  const app = appWith({ release: third, instances: [instanceOf('a')], routes: serving(5, 'a') });
  expect(plan(app)).toMatchObject([{ do: 'resize', instance: 'a', deployment: null }]);
  const ahead = instanceOf('a', { releaseId: 'r2', family: 'r1', version: 2 });
  const back = appWith({ instances: [ahead], routes: serving(5, 'a') });
  expect(plan(back)).toMatchObject([{ do: 'resize', instance: 'a' }]);
});

test('while counts change too, only what stays is changed', () => {
  const app = appWith({
    ...{ release: resized, deployment, formation: { web: 1 }, routes: serving(5, 'a', 'b') },
    instances: [instanceOf('a'), instanceOf('b', { createdAt: 1 })],
  });
  expect(kinds(plan(app))).toEqual(['drain', 'route', 'resize']);
});
