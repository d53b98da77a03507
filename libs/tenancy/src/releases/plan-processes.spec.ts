import { describe, expect, test } from 'vitest';
import { makeImageConfig } from '../testing/fixtures.ts';
import { planProcesses, type ProcessRequest } from './plan-processes.ts';
import { readProcesses } from './stored-processes.ts';

const image = makeImageConfig();
const plan = (
  requested: readonly ProcessRequest[] | null,
  previous: ReturnType<typeof planProcesses>['processes'] = [],
  config = image,
) => planProcesses({ requested, previous, image: config });

describe('the first release', () => {
  test('without a request is one process `web` on 8080, checked by connecting', () => {
    const { processes, counts } = plan(null);
    expect(processes).toMatchObject([
      { name: 'web', port: 8080, command: null, health: { kind: 'tcp' }, graceSeconds: 10 },
    ]);
    expect(counts.size).toBe(0);
  });

  test.each([
    [[3000], 3000],
    [[3000, 9000], 8080],
    [[], 8080],
  ])('takes the only exposed port of %j', (exposedPorts, port) => {
    expect(plan(null, [], makeImageConfig({ exposedPorts })).processes[0]?.port).toBe(port);
  });

  test('a process that is not `web` listens only when told to', () => {
    expect(plan([{ name: 'worker' }]).processes).toMatchObject([{ port: null, health: null }]);
    expect(plan([{ name: 'admin', port: 9000 }]).processes).toMatchObject([
      { port: 9000, health: { kind: 'tcp' } },
    ]);
  });

  test('takes what was asked for, and defaults for the rest', () => {
    const { processes, counts } = plan([
      {
        name: 'web',
        command: ['serve'],
        port: 80,
        count: 3,
        cpuMillis: 2000,
        memoryMiB: 64,
        healthCheck: { kind: 'http', intervalSeconds: 1, path: null },
      },
    ]);
    expect(processes).toMatchObject([
      {
        command: ['serve'],
        port: 80,
        health: { kind: 'http', path: '/', intervalSeconds: 1, timeoutSeconds: 2 },
        // The cap follows what is reserved.
        resources: { cpuMillis: 2000, cpuCapMillis: 2000, memoryMiB: 64, diskMiB: 512 },
      },
    ]);
    expect([...counts]).toEqual([['web', 3]]);
  });
});

describe('the next release', () => {
  const { processes: before } = plan([
    { name: 'web', port: 80, memoryMiB: 64, healthCheck: { kind: 'http', path: '/up' } },
    { name: 'worker', command: ['work'] },
  ]);

  test('without a request runs what ran before', () => {
    expect(plan(null, before).processes).toEqual(before);
  });

  test('changes what was asked for and nothing else', () => {
    const { processes } = plan([{ name: 'web', memoryMiB: 128 }, { name: 'worker' }], before);
    expect(processes).toMatchObject([
      { port: 80, health: { path: '/up' }, resources: { memoryMiB: 128 } },
      { command: ['work'] },
    ]);
  });

  test('keeps limits and the read-only root until told otherwise', () => {
    const limits = {
      pids: 64,
      ioBytesPerSecond: 2_000_000,
      ioOperationsPerSecond: 100,
      networkBytesPerSecond: 1_000_000,
      logBytesPerSecond: 2048,
    };
    const first = plan([
      { name: 'web', ...limits, readOnlyRoot: true, protocol: 'http2' },
    ]).processes;
    const second = plan([{ name: 'web', memoryMiB: 256 }], first).processes;
    expect(second).toMatchObject([{ resources: limits, readOnlyRoot: true }]);
    expect(plan([{ name: 'web', readOnlyRoot: false }], first).processes).toMatchObject([
      { readOnlyRoot: false, protocol: 'http2' },
    ]);
  });

  test('null takes away', () => {
    const { processes } = plan(
      [
        { name: 'web', healthCheck: null },
        { name: 'worker', command: null },
      ],
      before,
    );
    expect(processes).toMatchObject([{ port: 80, health: null }, { command: null }]);
    expect(plan([{ name: 'web', port: null }], before).processes[0]).toMatchObject({
      port: null,
      health: null,
    });
    // Taken away once, it does not come back by itself.
    expect(plan([{ name: 'web' }], processes).processes[0]).toMatchObject({ health: null });
  });

  test('checks by a command without a port, and keeps such a check', () => {
    const healthCheck = {
      kind: 'command' as const,
      command: ['up'],
      path: '/',
      successThreshold: 2,
    };
    const { processes } = plan([{ name: 'worker', healthCheck }]);
    const health = {
      kind: 'command',
      command: ['up'],
      intervalSeconds: 10,
      timeoutSeconds: 5,
      failureThreshold: 3,
      successThreshold: 2,
      startupGraceSeconds: 30,
    };
    expect(processes).toMatchObject([{ name: 'worker', port: null }]);
    expect(processes[0]?.health).toEqual(health);
    expect(plan([{ name: 'worker', memoryMiB: 64 }], processes).processes[0]?.health).toEqual(
      health,
    );
  });

  test('leaves out processes that are not in the list', () => {
    expect(plan([{ name: 'web' }], before).processes.map(({ name }) => name)).toEqual(['web']);
  });
});

test.each<[string, readonly ProcessRequest[]]>([
  ['at least one', []],
  ['twice', [{ name: 'web' }, { name: 'web' }]],
  ['process Web.name', [{ name: 'Web' }]],
  ['count', [{ name: 'web', count: -1 }]],
  ['count', [{ name: 'web', count: 1001 }]],
  ['count', [{ name: 'web', count: 0.5 }]],
  ['port', [{ name: 'web', port: 70_000 }]],
  ['memoryMiB', [{ name: 'web', memoryMiB: 1 }]],
  ['cpuCapMillis', [{ name: 'web', cpuMillis: 500, cpuCapMillis: 100 }]],
  ['ioBytesPerSecond', [{ name: 'web', ioBytesPerSecond: 1000 }]],
  ['ioOperationsPerSecond', [{ name: 'web', ioOperationsPerSecond: 1 }]],
  ['networkBytesPerSecond', [{ name: 'web', networkBytesPerSecond: 2_000_000_000 }]],
  ['logBytesPerSecond', [{ name: 'web', logBytesPerSecond: 10_000_000 }]],
  ['needs a port', [{ name: 'worker', healthCheck: { kind: 'tcp' } }]],
  ['healthCheck.command', [{ name: 'worker', healthCheck: { kind: 'command' } }]],
  ['healthCheck.command', [{ name: 'worker', healthCheck: { kind: 'command', command: [''] } }]],
  [
    'intervalSeconds',
    [{ name: 'web', healthCheck: { kind: 'command', command: ['up'], intervalSeconds: 0.5 } }],
  ],
  ['successThreshold', [{ name: 'web', healthCheck: { kind: 'tcp', successThreshold: 0 } }]],
  ['healthCheck.path', [{ name: 'web', healthCheck: { kind: 'http', path: 'up' } }]],
  ['command', [{ name: 'web', command: [] }]],
  ['command', [{ name: 'web', command: [''] }]],
  ['command', [{ name: 'web', command: ['', 'x'] }]],
  ['healthCheck.path', [{ name: 'web', healthCheck: { kind: 'http', path: '/a\r\nHost: b' } }]],
  ['healthCheck.path', [{ name: 'web', healthCheck: { kind: 'http', path: '/a\0' } }]],
  ['healthCheck.path', [{ name: 'web', healthCheck: { kind: 'http', path: '/\u007f' } }]],
  ['healthCheck.path', [{ name: 'web', healthCheck: { kind: 'http', path: '/a\n' } }]],
])('INVALID, naming the field: %s', (message, requested) => {
  expect(() => plan(requested)).toThrow(
    expect.objectContaining({ code: 'INVALID', message: expect.stringContaining(message) }),
  );
});

test('what was stored before these were refused can still be read and replaced', () => {
  const [web] = plan([{ name: 'web' }]).processes;
  if (!web) throw new Error('no process');
  const stored = readProcesses([{ ...web, command: [''] }]);
  expect(plan([{ name: 'web', command: ['serve'] }], stored).processes).toMatchObject([
    { command: ['serve'] },
  ]);
});

test('only the program of a command may not be empty', () => {
  const command = ['serve', '', 'a\nb'];
  expect(plan([{ name: 'web', command }]).processes).toMatchObject([{ command }]);
});

test('an image without a command needs a process with one', () => {
  const empty = makeImageConfig({ cmd: [] });
  expect(() => plan(null, [], empty)).toThrow('names no command');
  expect(plan([{ name: 'web', command: ['x'] }], [], empty).processes).toHaveLength(1);
});
