import { describe, expect, test } from 'vitest';
import {
  appWith,
  backend,
  deploymentOf,
  instanceOf,
  kinds,
  plan,
  serving,
  web,
} from '../testing/rollout-fixtures.ts';
import { releaseOf } from '../testing/rollout-world.ts';
import type { InstanceSnapshot } from './app-snapshot.ts';

describe('planRollout', () => {
  test('makes what is missing, and a route that says so', () => {
    const steps = plan(appWith({ deployment: deploymentOf() }));
    expect(steps).toEqual([
      {
        do: 'create',
        instance: 'new00000',
        process: 'web',
        release: 'r1',
        epoch: 0,
        deployment: 'd1',
        why: '1 web wanted',
      },
      expect.objectContaining({
        do: 'route',
        state: 'starting',
        backends: [],
        revision: 1_000_000,
      }),
    ]);
  });

  test('does nothing when all is as wanted', () => {
    expect(plan(appWith({ instances: [instanceOf('a')], routes: serving(5, 'a') }))).toEqual([]);
  });

  test('makes the new one first; the old one serves until the new one is ready', () => {
    const app = appWith({
      release: releaseOf(2, [web]),
      deployment: deploymentOf({ fromReleaseId: 'r1', toReleaseId: 'r2' }),
      instances: [instanceOf('a')],
      routes: serving(5, 'a'),
    });
    expect(kinds(plan(app))).toEqual(['create']);
    const fresh = instanceOf('b', { releaseId: 'r2', version: 2, deploymentId: 'd1' });
    const starting = {
      ...app,
      instances: [instanceOf('a'), { ...fresh, state: 'starting' as const, readyAt: null }],
    };
    expect(kinds(plan(starting))).toEqual([]);
    const steps = plan({ ...app, instances: [instanceOf('a'), fresh] });
    expect(kinds(steps)).toEqual(['drain', 'route']);
    expect(steps[0]).toMatchObject({ instance: 'a', revision: 1_000_000 });
    expect(steps[1]).toMatchObject({ backends: [backend('b')], revision: 1_000_000 });
  });

  test('routes to an address in the protocol that its instance speaks', () => {
    const app = appWith({ instances: [instanceOf('a', { http2: true })], routes: serving(5, 'a') });
    const steps = plan(app);
    expect(steps).toMatchObject([{ do: 'route', backends: [{ ...backend('a'), http2: true }] }]);
    const [stored] = serving(6, 'a');
    const backends = [{ ...backend('a'), http2: true }];
    expect(plan({ ...app, routes: stored ? [{ ...stored, backends }] : [] })).toEqual([]);
  });

  describe('a draining instance', () => {
    const draining = instanceOf('a', {
      desired: 'draining',
      drainRevision: 7,
      drainStartedAt: 999_500,
    });
    const app = appWith({ instances: [draining, instanceOf('b')], routes: serving(7, 'b') });
    test.each([
      ['waits for the slowest edge', { known: true, applied: [7, 6] }, app.now, []],
      ['waits for an edge that said nothing yet', { known: true, applied: [null] }, app.now, []],
      ['asks again after a second', { known: true, applied: [6] }, app.now + 600, ['ask-edges']],
      ['ends when every edge applied it', { known: true, applied: [7, 9] }, app.now, ['remove']],
      ['ends when no edge is alive', { known: true, applied: [] }, app.now, ['remove']],
      ['waits while edges are unknown', { known: false, applied: [] }, app.now, []],
      ['ends after half a minute', { known: false, applied: [] }, app.now + 30_000, ['remove']],
    ])('%s', (_name, edges, now, expected) => {
      expect(kinds(plan({ ...app, edges, now }))).toEqual(expected);
    });
  });

  test('scales down what is not ready first, then from the node that holds most', () => {
    const instances = [
      instanceOf('a', { nodeId: 'n1' }),
      instanceOf('b', { nodeId: 'n2' }),
      instanceOf('c', { nodeId: 'n1' }),
      instanceOf('d', { nodeId: 'n3', state: 'unready' }),
    ];
    const steps = plan(
      appWith({ instances, formation: { web: 2 }, routes: serving(5, 'a', 'b', 'c') }),
    );
    expect(steps.filter((s) => s.do === 'drain').map((s) => s.instance)).toEqual(['d', 'c']);
  });

  test('an instance that never reached a node is forgotten at once', () => {
    const pending = instanceOf('a', { nodeId: null, state: 'pending', readyAt: null });
    expect(kinds(plan(appWith({ instances: [pending], formation: { web: 0 } })))).toContain(
      'forget',
    );
  });

  test('a lost node: a new copy first, the old one leaves when the new one serves', () => {
    const lost = instanceOf('a', { nodeLost: true });
    const app = appWith({ instances: [lost], routes: serving(5, 'a') });
    expect(kinds(plan(app))).toEqual(['create']);
    const steps = plan({ ...app, instances: [lost, instanceOf('b')] });
    expect(kinds(steps)).toEqual(['drain', 'route']);
    // The node comes back before the new copy is ready: the old one stays.
    const starting = instanceOf('b', { state: 'starting', readyAt: null });
    const back = plan({ ...app, instances: [instanceOf('a'), starting] });
    expect(back).toMatchObject([{ do: 'remove', instance: 'b' }]);
  });

  test('a drained node: the only instance stays until a copy elsewhere serves', () => {
    const leaving = instanceOf('a', { leavesNode: true });
    const app = appWith({ instances: [leaving], routes: serving(5, 'a') });
    expect(kinds(plan(app))).toEqual(['create']);
    const starting = instanceOf('b', { state: 'starting', readyAt: null });
    expect(plan({ ...app, instances: [leaving, starting] })).toEqual([]);
    const steps = plan({ ...app, instances: [leaving, instanceOf('b')] });
    expect(kinds(steps)).toEqual(['drain', 'route']);
    expect(steps[0]).toMatchObject({ instance: 'a', why: 'it moves to another node' });
  });

  test('a drain without room elsewhere fails no deployment', () => {
    const deployment = deploymentOf({ kind: 'scale', fromReleaseId: 'r1' });
    const waiting = instanceOf('b', {
      ...{ nodeId: null, state: 'pending', readyAt: null, deploymentId: 'd1' },
      message: 'no room: 1 node is cordoned',
    });
    const leaving = instanceOf('a', { leavesNode: true });
    const app = appWith({
      ...{ deployment, instances: [leaving, waiting], routes: serving(5, 'a') },
      edges: { known: true, applied: [5] },
    });
    expect(kinds(plan(app))).toContain('succeed');
  });

  test('a process that the new release dropped runs until the rest is ready', () => {
    const worker = instanceOf('w', { process: 'worker', host: null, port: null });
    const app = appWith({
      release: releaseOf(2, [web]),
      deployment: deploymentOf({ fromReleaseId: 'r1', toReleaseId: 'r2' }),
      instances: [instanceOf('a'), worker],
      routes: serving(5, 'a'),
    });
    expect(kinds(plan(app))).toEqual(['create']);
    const ready = instanceOf('b', { releaseId: 'r2', version: 2, deploymentId: 'd1' });
    const steps = plan({ ...app, instances: [...app.instances, ready] });
    expect(steps).toContainEqual({ do: 'remove', instance: 'w', why: 'it is replaced' });
  });

  test('of two that claim one address, the one that was ready later is in the route', () => {
    const instances = [
      instanceOf('a', { host: '10.0.0.9', readyAt: 5 }),
      instanceOf('b', { host: '10.0.0.9', readyAt: 6 }),
    ];
    const steps = plan(appWith({ instances, formation: { web: 2 } }));
    expect(steps).toMatchObject([{ do: 'route', backends: [{ instance: 'b' }] }]);
  });

  test('a host name of another platform domain goes', () => {
    const host = 'hello.demo.old.example';
    const old = serving(5, 'a').map((route) => ({ ...route, host }));
    const routes = [...serving(5, 'a'), ...old];
    const steps = plan(appWith({ instances: [instanceOf('a')], routes }));
    expect(steps).toMatchObject([{ do: 'unroute', host }]);
  });

  test('stop drains all; destroy ends with nothing', () => {
    const stopped = appWith({
      state: 'stopped',
      instances: [instanceOf('a')],
      routes: serving(5, 'a'),
    });
    const steps = plan(stopped);
    expect(kinds(steps)).toEqual(['drain', 'route']);
    expect(steps[1]).toMatchObject({ state: 'stopped', backends: [] });
    const empty = { ...stopped, state: 'deleting' as const, instances: [] };
    const off = empty.routes.map((route) => ({
      ...route,
      state: 'stopped' as const,
      backends: [],
    }));
    expect(kinds(plan({ ...empty, routes: off }))).toEqual(['unroute']);
    expect(plan({ ...empty, routes: off.map((route) => ({ ...route, deleted: true })) })).toEqual(
      [],
    );
    expect(kinds(plan({ ...empty, routes: [] }))).toEqual(['finish']);
  });

  test('whoever deletes again and again does not fill the fleet with what takes its time to end', () => {
    const ending = Array.from({ length: 7 }, (_, n) => instanceOf(`e${n}`, { desired: 'gone' }));
    const planned = (count: number) =>
      kinds(plan(appWith({ instances: ending.slice(0, count), routes: serving(5) })));
    expect(planned(6)).toContain('create');
    expect(planned(7)).not.toContain('create');
  });

  test('copies that vanish again and again are not replaced at once', () => {
    expect(kinds(plan(appWith({ vanished: { web: 3 }, routes: serving(5) })))).not.toContain(
      'create',
    );
  });
});

describe('verdicts', () => {
  const exit = (reason: NonNullable<InstanceSnapshot['lastExit']>['reason']) => ({
    reason,
    exitCode: reason === 'exited' ? 3 : null,
    signal: null,
    message: `because of ${reason}`,
    lastLines: ['last words'],
    at: '2026-01-01T00:00:00Z',
  });
  const fresh = (over: Partial<InstanceSnapshot>) =>
    instanceOf('b', {
      releaseId: 'r2',
      version: 2,
      deploymentId: 'd1',
      readyAt: null,
      createdAt: 990_000,
      ...over,
    });
  const health = {
    kind: 'tcp' as const,
    intervalSeconds: 1,
    timeoutSeconds: 1,
    successThreshold: 1,
    failureThreshold: 3,
    startupGraceSeconds: 4,
  };

  test.each<[string, Partial<InstanceSnapshot>, string | null]>([
    ['image not found', { state: 'failed', lastExit: exit('image-not-found') }, 'IMAGE_NOT_FOUND'],
    [
      'pull refused',
      { state: 'failed', lastExit: exit('image-unauthorised') },
      'IMAGE_UNAUTHORISED',
    ],
    [
      'wrong platform',
      { state: 'failed', lastExit: exit('image-wrong-platform') },
      'IMAGE_WRONG_PLATFORM',
    ],
    ['corrupt', { state: 'backoff', lastExit: exit('image-corrupt') }, 'IMAGE_CORRUPT'],
    ['disk full', { state: 'backoff', lastExit: exit('image-no-space') }, 'IMAGE_NO_SPACE'],
    [
      'registry away',
      { state: 'backoff', lastExit: exit('registry-unreachable') },
      'REGISTRY_UNREACHABLE',
    ],
    ['pull failed', { state: 'backoff', lastExit: exit('image-pull-failed') }, 'IMAGE_PULL_FAILED'],
    ['first crash', { state: 'backoff', restarts: 1, lastExit: exit('exited') }, null],
    ['second crash', { state: 'backoff', restarts: 2, lastExit: exit('exited') }, 'CRASHED'],
    ['crash loop', { state: 'crashloop', restarts: 5, lastExit: exit('exited') }, 'CRASHED'],
    ['crashed, but ready now', { state: 'ready', restarts: 3, lastExit: exit('oom') }, null],
    ['out of memory', { state: 'backoff', lastExit: exit('oom') }, 'OUT_OF_MEMORY'],
    ['disk full', { state: 'backoff', lastExit: exit('disk-full') }, 'DISK_FULL'],
    ['health', { state: 'backoff', lastExit: exit('health') }, 'HEALTH_CHECK_FAILED'],
    ['no such command', { state: 'failed', lastExit: exit('start-failed') }, 'START_FAILED'],
    ['runs within grace', { state: 'running', stateAt: 991_000 }, null],
    ['runs past grace', { state: 'running', stateAt: 989_000 }, 'HEALTH_CHECK_FAILED'],
    ['no room', { state: 'pending', nodeId: null, message: 'needs 512 MiB' }, 'NO_ROOM'],
    [
      'no room, not for long',
      { state: 'pending', nodeId: null, createdAt: 995_000, message: 'needs 512 MiB' },
      null,
    ],
  ])('%s', (_name, over, code) => {
    const app = appWith({
      release: releaseOf(2, [{ ...web, health }]),
      deployment: deploymentOf({ fromReleaseId: 'r1', toReleaseId: 'r2' }),
      instances: [instanceOf('a'), fresh(over)],
      routes: serving(5, 'a'),
    });
    const failure = plan(app).find((step) => step.do === 'fail');
    expect(failure?.failure.code ?? null).toBe(code);
    if (failure) expect(failure.failure).toMatchObject({ process: 'web', instance: 'b' });
  });

  test('a deadline names what it waited for', () => {
    const app = appWith({
      deployment: deploymentOf({ deadlineAt: 1_000_000, progressAt: 700_000 }),
      instances: [instanceOf('a', { state: 'pulling', readyAt: null })],
    });
    expect(plan(app).find((step) => step.do === 'fail')?.failure).toMatchObject({
      code: 'DEADLINE_EXCEEDED',
      message: 'no progress for 300 s: instance a of web is still pulling',
    });
  });

  test('an instance of before that crashes does not fail a scale', () => {
    const app = appWith({
      formation: { web: 2 },
      deployment: deploymentOf({ kind: 'scale', fromReleaseId: 'r1' }),
      instances: [instanceOf('a', { state: 'backoff', restarts: 5, lastExit: exit('exited') })],
      routes: serving(5),
    });
    expect(kinds(plan(app))).not.toContain('fail');
  });

  test('success waits for the edges, but not for ever', () => {
    const app = appWith({
      deployment: deploymentOf(),
      instances: [instanceOf('a')],
      routes: serving(999_000, 'a'),
      edges: { known: true, applied: [5] },
    });
    expect(kinds(plan(app))).toEqual([]);
    expect(kinds(plan({ ...app, edges: { known: true, applied: [999_000] } }))).toEqual([
      'succeed',
    ]);
    expect(kinds(plan({ ...app, now: 1_005_000 }))).toEqual(['succeed']);
  });

  test('a first release that failed is parked: nothing runs, the route says crashed', () => {
    const app = appWith({
      deployment: deploymentOf({ status: 'failed' }),
      instances: [instanceOf('a', { state: 'backoff', readyAt: null })],
      routes: [
        {
          host: 'hello.demo.localhost',
          state: 'starting',
          revision: 3,
          backends: [],
          deleted: false,
        },
      ],
    });
    expect(plan(app)).toMatchObject([{ do: 'remove' }, { do: 'route', state: 'crashed' }]);
  });
});
