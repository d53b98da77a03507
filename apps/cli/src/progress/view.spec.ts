import { describe, expect, it } from 'vitest';
import type { Deployment, DeploymentFailure, Instance } from '../graphql/types.ts';
import { createStyle } from '../output/style.ts';
import { width } from '../output/text.ts';
import { judge } from './verdict.ts';
import { adviseAtGate, changes, draw, stateOf, type Canvas } from './view.ts';

const plain = createStyle(false);
const at = '2026-01-31T12:00:00.000Z';

function instance(change: Partial<Instance> = {}): Instance {
  return {
    id: 'i00000000000a',
    process: 'web',
    oneOff: false,
    release: 2,
    state: 'PULLING',
    desired: 'RUNNING',
    paused: false,
    message: null,
    restarts: 0,
    node: null,
    createdAt: at,
    readyAt: null,
    goneAt: null,
    lastExit: null,
    ...change,
  };
}

function deployment(change: Partial<Deployment> = {}): Deployment {
  return {
    id: 'd1',
    kind: 'DEPLOY',
    status: 'RUNNING',
    createdAt: at,
    finishedAt: null,
    deadlineAt: '2026-01-31T12:05:00.000Z',
    step: 0,
    steps: 0,
    pause: null,
    strategy: {
      kind: 'ROLLING',
      maxSurge: '25%',
      maxUnavailable: '0',
      progressSeconds: 300,
      steps: [],
      manual: null,
      keepOldSeconds: null,
    },
    createdBy: null,
    from: { version: 1 },
    to: { version: 2, image: 'registry/demo/hello:2', digest: 'sha256:ab' },
    app: {
      name: 'hello',
      url: 'http://hello.demo.localhost:8080',
      state: 'ACTIVE',
      processes: [{ name: 'web', count: 2, ready: 1 }],
    },
    failure: null,
    events: [{ id: 'e1', at, message: 'planned' }],
    instances: [instance()],
    ...change,
  };
}

const canvas = (change: Partial<Canvas> = {}): Canvas => ({
  columns: 80,
  rows: 24,
  now: new Date('2026-01-31T12:00:04Z'),
  style: plain,
  frame: 0,
  trouble: null,
  ...change,
});

describe('the picture', () => {
  it('shows what is released, the steps, and each instance', () => {
    const old = instance({ id: 'i00000000000b', release: 1, state: 'READY', desired: 'DRAINING' });
    const lines = draw(deployment({ instances: [old, instance()] }), canvas());
    expect(lines.map((line) => line.replace(/\d\d:\d\d:\d\d/, 'HH:MM:SS'))).toEqual([
      '⠋ Deploying hello v2  4.0s',
      '  registry/demo/hello:2',
      '  HH:MM:SS  planned',
      '  web   1/2 ready',
      '    ○ i00000000000a  v2   pulling',
      '    · i00000000000b  v1   draining',
    ]);
  });

  it('fits any terminal: never wider, never so high that it scrolls', () => {
    const instances = Array.from({ length: 50 }, (_, i) =>
      instance({ id: `i${String(i).padStart(12, '0')}`, message: 'm'.repeat(200) }),
    );
    const events = Array.from({ length: 100 }, (_, i) => ({
      id: String(i),
      at,
      message: 'e'.repeat(200),
    }));
    for (const [columns, rows] of [
      [40, 10],
      [80, 24],
      [200, 60],
    ] as const) {
      const lines = draw(
        deployment({ instances, events, pause: { step: 1, since: at, until: at } }),
        canvas({ columns, rows, trouble: 't'.repeat(300) }),
      );
      expect(lines.length).toBeLessThan(rows);
      expect(Math.max(...lines.map(width))).toBeLessThanOrEqual(columns);
    }
  });

  it('says what it waits for at a gate, and what to type', () => {
    const until = '2026-01-31T12:05:00.000Z';
    const waits = deployment({ steps: 2, pause: { step: 1, since: at, until: null } });
    const pauses = deployment({ steps: 2, pause: { step: 2, since: at, until } });
    expect(draw(waits, canvas()).at(-1)).toContain('step 1 waits to be promoted: bulkhead promote');
    expect(draw(pauses, canvas()).at(-1)).toMatch(
      /step 2 goes on at \d\d:05:00; now: bulkhead promote/,
    );
    expect(adviseAtGate(waits, ' --app hello')).toBe(
      'hello v2 waits at step 1 of 2. Go on: bulkhead promote --app hello. Go back: bulkhead abort --app hello',
    );
  });

  it('shows why an instance does not come up', () => {
    const state = { state: 'BACKOFF', restarts: 2, message: 'exited with code 3' } as const;
    expect(draw(deployment({ instances: [instance(state)] }), canvas()).at(-1)).toBe(
      '    ✗ i00000000000a  v2   backoff   2 restarts, exited with code 3',
    );
    expect(stateOf({ state: 'READY', desired: 'GONE', paused: true })).toBe('stopping');
    expect(stateOf({ state: 'GONE', desired: 'GONE', paused: false })).toBe('gone');
    expect(stateOf({ state: 'READY', desired: 'RUNNING', paused: true })).toBe('pausing');
    expect(stateOf({ state: 'PAUSED', desired: 'RUNNING', paused: true })).toBe('paused');
  });
});

describe('a line per change', () => {
  it('tells each thing once', () => {
    const first = deployment();
    const failed = deployment({
      events: [...first.events, { id: 'e2', at, message: 'instance i00000000000a ended' }],
      instances: [
        instance({ state: 'BACKOFF', message: 'exited with code 3' }),
        instance({ id: 'i00000000000c', state: 'FAILED', message: 'no such command' }),
      ],
    });
    expect(changes(null, first)).toEqual([
      'Deploying hello v2 (registry/demo/hello:2), deployment d1',
      expect.stringMatching(/planned$/),
    ]);
    expect(changes(first, first)).toEqual([]);
    expect(changes(first, failed)).toEqual([
      expect.stringMatching(/i00000000000a ended$/),
      '  web i00000000000c v2 failed: no such command',
    ]);
  });
});

describe('the verdict', () => {
  const failure = (change: Partial<DeploymentFailure>): DeploymentFailure => ({
    code: 'CRASHED',
    message: 'exited with code 3',
    process: 'web',
    instance: 'i00000000000a',
    exitCode: 3,
    lastLines: ['boom'],
    ...change,
  });
  const fail = (change: Partial<DeploymentFailure>) =>
    judge(deployment({ status: 'FAILED', failure: failure(change) }), ' --app hello', plain);

  it('is the address when it is ready', () => {
    const { lines, error } = judge(deployment({ status: 'SUCCEEDED' }), '', plain);
    expect(lines).toEqual(['✓ hello v2 is ready: http://hello.demo.localhost:8080']);
    expect(error).toBeNull();
  });

  it('has no address without web', () => {
    const app = { ...deployment().app, processes: [{ name: 'worker', count: 1, ready: 1 }] };
    expect(judge(deployment({ status: 'SUCCEEDED', app }), '', plain).lines).toEqual([
      '✓ hello v2 is ready.',
    ]);
    expect(judge(deployment({ status: 'SUCCEEDED', kind: 'STOP' }), '', plain).lines).toEqual([
      '✓ hello is stopped.',
    ]);
    expect(judge(deployment({ status: 'SUCCEEDED', kind: 'SCALE', app }), '', plain).lines).toEqual(
      ['✓ hello v2 runs worker=1.'],
    );
  });

  it('claims nothing to run when the app is stopped', () => {
    const app = { ...deployment().app, state: 'STOPPED' } as const;
    expect(
      judge(deployment({ status: 'SUCCEEDED', kind: 'SCALE', app }), ' --app hello', plain).lines,
    ).toEqual(['✓ hello is stopped: `bulkhead start --app hello` will run web=2.']);
  });

  it('shows the last lines and what stays', () => {
    const { lines, error } = fail({});
    expect(lines).toEqual([
      'The last lines that i00000000000a wrote:',
      '  | boom',
      '',
      'hello stays on v1.',
    ]);
    expect(error).toMatchObject({
      exitCode: 1,
      code: 'CRASHED',
      message: 'hello v2 failed: web crashed: exited with code 3',
    });
  });

  it.each([
    ['IMAGE_NOT_FOUND', /image not found/, /Check name and tag/],
    ['IMAGE_UNAUTHORISED', /may not be pulled/, /public/],
    ['IMAGE_WRONG_PLATFORM', /another platform/, /--platform/],
    ['IMAGE_CORRUPT', /damaged/, /Push the image again/],
    ['IMAGE_NO_SPACE', /no room/, /smaller/],
    ['REGISTRY_UNREACHABLE', /does not answer/, /Try again/],
    ['IMAGE_PULL_FAILED', /could not be pulled/, /Try again/],
    ['CRASHED', /web crashed/, /bulkhead logs --app hello --process web/],
    ['OUT_OF_MEMORY', /ran out of memory/, /--memory 512/],
    ['DISK_FULL', /web filled its disk/, /--disk 1024/],
    ['HEALTH_CHECK_FAILED', /web is not healthy/, /\$PORT/],
    ['START_FAILED', /could not be started/, /--command/],
    ['NO_ROOM', /no node has room/, /scale --app hello web=1/],
    ['DEADLINE_EXCEEDED', /not ready in time/, /bulkhead ps --app hello/],
    ['SOMETHING_NEW', /failed: exited with code 3/, /bulkhead logs/],
  ])('%s says what is wrong and what to try', (code, message, hint) => {
    const { error } = fail({ code });
    expect(error?.message).toMatch(message);
    expect(error?.hint).toMatch(hint);
  });

  it('adds an exit code that the platform did not tell', () => {
    expect(fail({ message: 'killed', exitCode: 137 }).error?.message).toMatch(
      /killed \(exit code 137\)$/,
    );
  });

  it('is a conflict when something newer took over', () => {
    expect(judge(deployment({ status: 'SUPERSEDED' }), '', plain).error).toMatchObject({
      exitCode: 6,
      code: 'SUPERSEDED',
    });
  });
});
