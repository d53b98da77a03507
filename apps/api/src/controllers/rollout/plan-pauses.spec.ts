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
import type { InstanceSnapshot } from './app-snapshot.ts';
import { drainCapMs } from './plan-rollout.ts';
import type { RouteStep } from './plan-route.ts';

test('what is paused leaves the route, and is held only when the edges say so', () => {
  const a = instanceOf('a', { paused: true });
  const app = appWith({ instances: [a], routes: serving(5, 'a') });
  const steps = plan(app);
  expect(steps).toMatchObject([
    { do: 'route', state: 'paused', backends: [] },
    { do: 'hold', instance: 'a' },
  ]);
  const [route, hold] = steps as [RouteStep, { revision: number }];
  expect(hold.revision).toBe(route.revision);

  const { revision } = route;
  const { host, state } = route;
  const routes = [{ host, state, revision, backends: [], deleted: false }];
  const held = { ...a, drainRevision: revision, drainStartedAt: app.now };
  const edges = (applied: number) => ({ known: true, applied: [applied] });
  expect(plan({ ...app, instances: [held], routes, edges: edges(5) })).toEqual([]);
  const late = { now: app.now + 1_000, instances: [held], routes };
  expect(kinds(plan({ ...app, ...late, edges: edges(5) }))).toEqual(['ask-edges']);
  expect(kinds(plan({ ...app, ...late, edges: edges(revision) }))).toEqual(['freeze']);
  const never = { ...late, now: app.now + drainCapMs, edges: edges(5) };
  expect(kinds(plan({ ...app, ...never }))).toContain('freeze');
  const frozen = { ...held, frozen: true, state: 'paused' as const };
  expect(plan({ ...app, instances: [frozen], routes, edges: edges(revision) })).toEqual([]);
});

test('what serves nobody is held at once', () => {
  const worker = instanceOf('w', { process: 'worker', host: null, port: null, paused: true });
  const starting = instanceOf('a', { state: 'starting', readyAt: null, paused: true });
  const app = appWith({ instances: [worker, starting], routes: serving(5), formation: { web: 1 } });
  const held = plan(app).filter((step) => step.do === 'freeze');
  expect(held.map((step) => step.instance)).toContain('a');
});

test('resumed before it was held it is in the route again; after that when it is ready', () => {
  const leaving = instanceOf('a', { drainRevision: 6, drainStartedAt: 999_000 });
  const app = appWith({ instances: [leaving], routes: serving(6) });
  expect(plan(app)).toMatchObject([
    { do: 'route', state: 'serving', backends: [{ instance: 'a' }] },
    { do: 'thaw', instance: 'a' },
  ]);
  const frozen = { ...leaving, frozen: true, state: 'paused' as const };
  const steps = plan({ ...app, instances: [frozen] });
  expect(steps).toMatchObject([{ do: 'route', state: 'starting', backends: [] }, { do: 'thaw' }]);
});

test('the rest of a paused app serves, and a crash of all of it is a crash', () => {
  const frozen = instanceOf('a', { paused: true, frozen: true, state: 'paused' });
  const app = appWith({ formation: { web: 2 }, routes: serving(5) });
  const stateWith = (other: Partial<InstanceSnapshot>) =>
    plan({ ...app, instances: [frozen, instanceOf('b', other)] }).find(
      (step) => step.do === 'route',
    );
  expect(stateWith({})).toMatchObject({ state: 'serving', backends: [{ instance: 'b' }] });
  expect(stateWith({ state: 'crashloop' })).toMatchObject({ state: 'crashed' });
  expect(stateWith({ state: 'running' })).toMatchObject({ state: 'starting' });
});

test('a scale beside a paused instance succeeds, and a deploy replaces it by one that runs', () => {
  const frozen = instanceOf('a', { paused: true, frozen: true, state: 'paused' });
  const deployment = deploymentOf({ kind: 'scale', fromReleaseId: 'r1' });
  const edges = { known: true, applied: [5] };
  const scaled = appWith({
    ...{ deployment, edges, formation: { web: 2 }, routes: serving(5, 'b') },
    instances: [frozen, instanceOf('b', { deploymentId: 'd1' })],
  });
  expect(kinds(plan(scaled))).toContain('succeed');
  const next = appWith({
    ...{ deployment: deploymentOf({ fromReleaseId: 'r1', toReleaseId: 'r2' }) },
    ...{ release: releaseOf(2, [web]), instances: [frozen], routes: serving(5) },
  });
  expect(plan(next)).toContainEqual(expect.objectContaining({ do: 'create', process: 'web' }));
  const ready = instanceOf('b', { releaseId: 'r2', version: 2 });
  expect(plan({ ...next, instances: [frozen, ready] })).toContainEqual(
    expect.objectContaining({ do: 'drain', instance: 'a' }),
  );
});

test('what failed to replace a paused app goes, and the app stays paused', () => {
  const frozen = instanceOf('a', { paused: true, frozen: true, state: 'paused' });
  const failed = instanceOf('b', { releaseId: 'r2', version: 2, state: 'crashloop' });
  const app = appWith({ instances: [frozen, failed], routes: serving(5) });
  expect(plan(app)).toContainEqual(expect.objectContaining({ instance: 'b', do: 'drain' }));
});

test('one that somebody deleted leaves the route and is replaced at once', () => {
  const app = appWith({ instances: [instanceOf('a')], routes: serving(5, 'a') });
  const deleted = instanceOf('a', { desired: 'draining' });
  const steps = plan({ ...app, instances: [deleted] });
  expect(kinds(steps)).toEqual(['drain', 'create', 'route']);
  expect(steps[0]).toMatchObject({ instance: 'a', why: 'it was ordered away' });
  const placed = { ...deleted, readyAt: null, state: 'starting' as const };
  expect(kinds(plan({ ...app, instances: [placed] }))).toContain('remove');
  const unplaced = { ...placed, nodeId: null, state: 'pending' as const };
  expect(kinds(plan({ ...app, instances: [unplaced] }))).toContain('forget');
});
