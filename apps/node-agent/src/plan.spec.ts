import type { InstanceSpec } from '@bulkhead/protocol';
import type { ContainerStatus } from '@bulkhead/runtime';
import fc from 'fast-check';
import { describe as group, expect, test } from 'vitest';
import { goodHealth, unknownHealth, type Health } from './health.ts';
import * as memory from './memory.ts';
import { freshMemory, type InstanceMemory } from './memory.ts';
import { describe, planStep, type InstanceView, type Step } from './plan.ts';
import { gone, running } from './spec-fixtures.ts';

const now = 1_000_000;
const failedHealth: Health = {
  ...unknownHealth,
  phase: 'failed',
  failures: 3,
  message: 'GET / answered 500',
};
const task = { terminal: false, stdin: false };
const exit = {
  reason: 'exited' as const,
  exitCode: 1,
  signal: null,
  message: 'exited with code 1',
  lastLines: ['boom'],
  at: '2026-01-01T00:00:00.000Z',
};

function container(state: ContainerStatus['state']): ContainerStatus {
  const stopped = {
    ...{ exitCode: 1, signal: null, oomKilled: false, diskFull: false, rebooted: false },
    at: new Date(now),
  };
  return {
    id: 'iaaaaaaaaaaaa',
    tenantId: 't',
    state,
    pid: state === 'running' || state === 'paused' ? 7 : null,
    address: '10.201.0.2',
    startedAt: new Date(now - 5000),
    exit: state === 'stopped' ? stopped : null,
  };
}

function view(over: Partial<Omit<InstanceView, 'memory'>> & { memory?: Partial<InstanceMemory> }) {
  const desired = over.desired ?? running();
  return {
    actual: null,
    health: unknownHealth,
    fingerprint: '2:f',
    limits: 'l',
    ...over,
    desired,
    memory: { ...freshMemory, limits: 'l', generation: desired.generation, ...over.memory },
  };
}

group('the next step', () => {
  const cases: [string, Parameters<typeof view>[0], Step][] = [
    ['nothing there: start', {}, { do: 'start' }],
    [
      'created only: start',
      { actual: container('created'), memory: { made: '2:f' } },
      { do: 'start' },
    ],
    ['a new generation is taken first', { memory: { generation: 0 } }, { do: 'take-generation' }],
    [
      'runs as desired',
      { actual: container('running'), memory: { made: '2:f' } },
      { do: 'settled' },
    ],
    ['runs, memory lost: adopt', { actual: container('running') }, { do: 'adopt' }],
    [
      'runs as something else: stop',
      { actual: container('running'), memory: { made: '2:other' } },
      { do: 'stop', why: 'replaced', graceSeconds: 10 },
    ],
    [
      'runs with other limits: update',
      { actual: container('running'), memory: { made: '2:f', limits: 'm' } },
      { do: 'update' },
    ],
    [
      'runs as something else and with other limits: stop',
      { actual: container('running'), memory: { made: '2:other', limits: 'm' } },
      { do: 'stop', why: 'replaced', graceSeconds: 10 },
    ],
    [
      'was made by an agent that reckoned fingerprints otherwise: adopt',
      { actual: container('running'), memory: { made: 'f' } },
      { do: 'adopt' },
    ],
    [
      'config that cannot be opened ends nothing',
      { actual: container('running'), memory: { made: '2:other' }, fingerprint: null },
      { do: 'settled' },
    ],
    [
      'ill: stop',
      { actual: container('running'), memory: { made: '2:f' }, health: failedHealth },
      { do: 'stop', why: 'health', graceSeconds: 10 },
    ],
    [
      'an agent died while stopping: stop again',
      { actual: container('running'), memory: { made: '2:f', stopping: 'health' } },
      { do: 'stop', why: 'health', graceSeconds: 10 },
    ],
    [
      'ready for the first time: note it',
      { actual: container('running'), memory: { made: '2:f' }, health: goodHealth },
      { do: 'note-ready' },
    ],
    [
      'ended: note it',
      { actual: container('stopped'), memory: { made: '2:f' } },
      { do: 'note-end' },
    ],
    ['vanished: note it', { memory: { made: '2:f', started: true } }, { do: 'note-end' }],
    ['an agent died before it had started it: start', { memory: { made: '2:f' } }, { do: 'start' }],
    [
      'backing off: wait',
      { actual: container('stopped'), memory: { retryAt: now + 1 } },
      { do: 'wait', until: now + 1 },
    ],
    [
      'backing off by a clock that was set back since: start',
      { actual: container('stopped'), memory: { retryAt: now + 3_600_000 } },
      { do: 'start' },
    ],
    [
      'backed off: start',
      { actual: container('stopped'), memory: { retryAt: now } },
      { do: 'start' },
    ],
    [
      'runs and is to be held still: pause, whatever else is due',
      {
        desired: running({ paused: true }),
        actual: container('running'),
        memory: { made: '2:other', limits: 'm' },
        health: failedHealth,
      },
      { do: 'pause' },
    ],
    [
      'to be held still, but an agent died while ending it: stop',
      {
        desired: running({ paused: true }),
        actual: container('running'),
        memory: { made: '2:f', stopping: 'replaced' },
      },
      { do: 'stop', why: 'replaced', graceSeconds: 10 },
    ],
    [
      'held still',
      {
        desired: running({ paused: true }),
        actual: container('paused'),
        memory: { made: '2:f', limits: 'm' },
        health: failedHealth,
      },
      { do: 'settled' },
    ],
    [
      'held still and not any more: resume',
      { actual: container('paused'), memory: { made: '2:other' } },
      { do: 'resume' },
    ],
    [
      'held still, memory lost: adopt',
      { desired: running({ paused: true }), actual: container('paused') },
      { do: 'adopt' },
    ],
    [
      'ended while it was to be held still: note it',
      {
        desired: running({ paused: true }),
        actual: container('stopped'),
        memory: { made: '2:f' },
      },
      { do: 'note-end' },
    ],
    [
      'nothing there to be held still: nothing',
      { desired: running({ paused: true }) },
      { do: 'settled' },
    ],
    [
      'unwanted and held still: stop',
      { desired: gone(), actual: container('paused') },
      { do: 'stop', why: 'gone', graceSeconds: 10 },
    ],
    [
      'unwanted and running: stop',
      { desired: gone(), actual: container('running') },
      { do: 'stop', why: 'gone', graceSeconds: 10 },
    ],
    [
      'unwanted and stopped: remove',
      { desired: gone(), actual: container('stopped') },
      { do: 'remove' },
    ],
    ['unwanted and unseen: remove all the same', { desired: gone() }, { do: 'remove' }],
    ['removed: done', { desired: gone(), memory: { removed: true } }, { do: 'settled' }],
  ];
  test.each(cases)('%s', (_, given, step) => {
    expect(planStep(view(given), now)).toEqual(step);
  });
});

group('the report', () => {
  const cases: [string, Parameters<typeof view>[0], string, string | null][] = [
    ['not started yet', {}, 'starting', null],
    ['running', { actual: container('running') }, 'running', null],
    ['ready', { actual: container('running'), health: goodHealth }, 'ready', null],
    [
      'about to be restarted',
      { actual: container('running'), health: failedHealth },
      'unready',
      'GET / answered 500',
    ],
    ['crashed', { memory: { exit } }, 'backoff', 'exited with code 1'],
    ['cannot start', { memory: { exit, hopeless: true } }, 'failed', 'exited with code 1'],
    [
      'in a crash loop',
      { memory: { exit, looping: true, crashes: 7 } },
      'crashloop',
      'ended 7 times in a row: exited with code 1',
    ],
    [
      'cannot start any more',
      { memory: { exit, looping: true, hopeless: true } },
      'failed',
      'exited with code 1',
    ],
    ['held still', { actual: container('paused'), health: goodHealth }, 'paused', null],
    [
      'held still without a process',
      { desired: running({ paused: true }), memory: { exit } },
      'paused',
      'its process is started when it is resumed',
    ],
    [
      'a task that runs',
      { desired: running({ task }), actual: container('running'), health: goodHealth },
      'running',
      null,
    ],
    [
      'a task that has run',
      {
        desired: running({ task }),
        actual: container('stopped'),
        memory: { finished: true, exit },
      },
      'ended',
      'exited with code 1',
    ],
    ['going', { desired: gone(), actual: container('running') }, 'stopping', null],
    ['gone', { desired: gone(), memory: { removed: true } }, 'gone', null],
  ];
  test.each(cases)('%s', (_, given, state, message) => {
    expect(describe(view(given), null)).toMatchObject({ state, message });
  });

  test('has an address only while a process with a port runs', () => {
    const address = (given: Parameters<typeof view>[0]) => describe(view(given), null).address;
    expect(address({ actual: container('running') })).toEqual({ host: '10.201.0.2', port: 8080 });
    expect(address({ actual: container('stopped') })).toBeNull();
    expect(address({ actual: container('running'), desired: running({ port: null }) })).toBeNull();
  });
});

group('a one-off task', () => {
  const once = running({ task });
  const attended = running({ task: { terminal: true, stdin: true } });
  const made = { made: '2:f', limits: 'l', started: true };
  const cases: [string, Parameters<typeof view>[0], Step][] = [
    ['is started', { desired: once }, { do: 'start' }],
    [
      'that ended is noted',
      { desired: once, actual: container('stopped'), memory: made },
      { do: 'note-end' },
    ],
    [
      'that was noted is never started again',
      { desired: once, actual: container('stopped'), memory: { finished: true, exit } },
      { do: 'settled' },
    ],
    [
      'is not replaced when something of it changes',
      {
        ...{ desired: once, actual: container('running'), fingerprint: '2:f', limits: 'l' },
        memory: { ...made, made: '2:other' },
      },
      { do: 'adopt' },
    ],
    [
      'with a terminal waits for somebody',
      {
        ...{ desired: attended, actual: container('running'), health: goodHealth },
        memory: { ...made, madeAt: now, readySince: now },
      },
      { do: 'settled', until: now + 300_000 },
    ],
    [
      'that nobody attached to is given up',
      {
        ...{ desired: attended, actual: container('running'), health: goodHealth },
        memory: { ...made, madeAt: now - 300_000, readySince: now },
      },
      { do: 'give-up' },
    ],
    [
      'whose command has ended is stopped',
      {
        ...{ desired: attended, actual: container('running') },
        memory: { ...made, finished: true, exit },
      },
      { do: 'stop', why: 'finished', graceSeconds: 10 },
    ],
  ];
  test.each(cases)('%s', (_, given, step) => {
    expect(planStep(view(given), now)).toEqual(step);
  });
});

group('whatever the agent finds', () => {
  const anyMemory: fc.Arbitrary<InstanceMemory> = fc.record({
    generation: fc.constantFrom(0, 1, 2),
    made: fc.constantFrom(null, '2:f', '2:other', 'f'),
    limits: fc.constantFrom(null, 'l', 'm'),
    started: fc.boolean(),
    madeAt: fc.constant(0),
    stopping: fc.constantFrom(
      null,
      'gone' as const,
      'replaced' as const,
      'health' as const,
      'finished' as const,
    ),
    failures: fc.nat(20),
    crashes: fc.nat(20),
    looping: fc.boolean(),
    restarts: fc.nat(20),
    retryAt: fc.option(fc.integer({ min: now - 10_000, max: now + 10_000 })),
    hopeless: fc.boolean(),
    exit: fc.constantFrom(null, exit),
    finished: fc.boolean(),
    attachedAt: fc.constantFrom(null, now - 1000),
    readySince: fc.constantFrom(null, now - 1000),
    removed: fc.boolean(),
  });
  const anyView: fc.Arbitrary<InstanceView> = fc.record({
    desired: fc.constantFrom<InstanceSpec>(
      running(),
      gone(),
      running({ generation: 2 }),
      running({ paused: true }),
      running({ task: { terminal: false, stdin: false } }),
      running({ task: { terminal: true, stdin: true } }),
    ),
    actual: fc
      .constantFrom(null, 'created', 'running', 'paused', 'stopped')
      .map((s) => (s === null ? null : container(s))),
    memory: anyMemory,
    health: fc.constantFrom(unknownHealth, goodHealth, failedHealth),
    fingerprint: fc.constantFrom('2:f', null),
    limits: fc.constantFrom('l'),
  });

  test('only what is wanted gone is removed, and what is wanted gone is never started', () => {
    fc.assert(
      fc.property(anyView, (found) => {
        const step = planStep(found, now);
        if (step.do === 'remove') expect(found.desired.desired).toBe('gone');
        if (step.do === 'start') expect(found.desired.desired).toBe('running');
        if (step.do === 'wait') expect(step.until).toBeGreaterThan(now);
      }),
    );
  });

  test('a few steps lead to rest, and at rest the plan is empty', () => {
    fc.assert(
      fc.property(anyView, (found) => {
        let world = { view: found, now };
        let ended = false;
        for (let steps = 0; steps < 12; steps += 1) {
          const step = planStep(world.view, world.now);
          if (step.do === 'settled') {
            const { desired, actual } = world.view;
            if (desired.desired === 'gone') expect(actual).toBeNull();
            else if (desired.task !== null && world.view.memory.finished)
              expect(actual?.state ?? 'stopped').toMatch(/stopped|created/);
            else if (desired.paused) expect(actual?.state).not.toBe('running');
            else expect(actual?.state).toBe('running');
            return;
          }
          // A task that has ended, however, is never started again.
          if (step.do === 'note-end' || world.view.memory.finished) ended = true;
          const { desired } = world.view;
          if (step.do === 'start' && desired.desired === 'running' && desired.task !== null)
            expect(ended).toBe(false);
          world = perform(world, step);
        }
        throw new Error('no rest');
      }),
    );
  });
});

/** What a host on which everything succeeds makes of a step. */
function perform(world: { view: InstanceView; now: number }, step: Step) {
  const { view: before } = world;
  const after = (over: Partial<InstanceView>, later = world.now) => ({
    view: { ...before, ...over },
    now: later,
  });
  const policy = memory.defaultRestartPolicy;
  const made = { fingerprint: before.fingerprint ?? 'unknown', limits: before.limits };
  switch (step.do) {
    case 'settled':
      return world;
    case 'wait':
      return after({}, step.until);
    case 'take-generation':
      return after({ memory: memory.onNewGeneration(before.memory, before.desired.generation) });
    case 'adopt':
      return after({
        memory: memory.onStarted(memory.onStarting(before.memory, made, world.now)),
      });
    case 'update':
      return after({ memory: memory.onLimited(before.memory, before.limits ?? '') });
    case 'pause':
      return after({ actual: container('paused') });
    case 'resume':
      return after({ actual: container('running'), memory: memory.onResuming(before.memory) });
    case 'note-ready':
      return after({ memory: memory.onReady(before.memory, world.now) });
    case 'give-up':
      return after({ memory: memory.onFinished(before.memory, exit) });
    case 'note-end':
      if (before.desired.desired === 'running' && before.desired.task !== null)
        return after({ memory: memory.onCleared(memory.onFinished(before.memory, exit)) });
      return after({
        memory:
          before.memory.stopping === 'replaced'
            ? memory.onReplaced(before.memory)
            : memory.onCrash(before.memory, exit, world.now, policy, 0),
      });
    case 'start':
      return after({
        actual: container('running'),
        health: unknownHealth,
        memory: memory.onStarting(before.memory, made, world.now),
      });
    case 'stop':
      return after({
        actual: container('stopped'),
        memory: memory.onStopping(before.memory, step.why),
      });
    case 'remove':
      return after({ actual: null, memory: memory.onRemoved(before.memory) });
  }
}
