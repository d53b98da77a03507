import { describe, expect, it } from 'vitest';
import type { Process } from '../graphql/types.ts';
import { processInputs, splitCommand, type ProcessFlags } from './deploy-input.ts';
import { parseFormation } from './run.ts';
import { parseVersion } from './releases.ts';

const running = (name: string): Process => ({
  name,
  count: 2,
  ready: 2,
  command: ['node', `${name}.js`],
  port: 3000,
  cpuMillis: 100,
  memoryMiB: 128,
  diskMiB: 512,
  cpuCapMillis: 1000,
  pids: 256,
  ioBytesPerSecond: 52_428_800,
  ioOperationsPerSecond: 2000,
  networkBytesPerSecond: 25_000_000,
  logBytesPerSecond: 65_536,
  readOnlyRoot: false,
  mostPerNode: 0,
  protocol: 'HTTP1',
  priority: 'NORMAL',
  pool: 'default',
  nodeLabels: [],
  healthCheck: null,
});

describe('the processes of a deploy', () => {
  it('are as before when nothing is said', () => {
    expect(processInputs(undefined, {}, null)).toBeNull();
    expect(processInputs(undefined, {}, [running('web')])).toBeNull();
  });

  it('take limits in the units of their options', () => {
    const flags = {
      ioRate: 20,
      networkRate: 5,
      logRate: 128,
      pids: 64,
      readOnly: true,
      protocol: 'http2' as const,
    };
    expect(processInputs(undefined, { ...flags, cpuCap: 500, ioOperations: 900 }, null)).toEqual([
      {
        ...{ name: 'web', cpuCapMillis: 500, pids: 64, ioBytesPerSecond: 20_971_520 },
        ...{ ioOperationsPerSecond: 900, networkBytesPerSecond: 5_242_880 },
        ...{ logBytesPerSecond: 131_072, readOnlyRoot: true, protocol: 'HTTP2' },
      },
    ]);
  });

  it('ask for labels of nodes, or for none', () => {
    const labels = { nodeLabel: ['zone=a', 'disk=ssd'] };
    expect(processInputs(undefined, labels, null)).toEqual([
      {
        name: 'web',
        nodeLabels: [
          { name: 'zone', value: 'a' },
          { name: 'disk', value: 'ssd' },
        ],
      },
    ]);
    expect(processInputs(undefined, { nodeLabel: false }, null)).toEqual([
      { name: 'web', nodeLabels: [] },
    ]);
    expect(() => processInputs(undefined, { nodeLabel: ['zone'] }, null)).toThrow('not name=value');
    expect(processInputs({ web: { nodeLabels: { zone: 'a' } } }, {}, null)).toEqual([
      { name: 'web', nodeLabels: [{ name: 'zone', value: 'a' }] },
    ]);
  });

  it('keep everything that an option does not name', () => {
    expect(processInputs(undefined, { memory: 512 }, [running('web'), running('worker')])).toEqual([
      { name: 'web', memoryMiB: 512 },
      { name: 'worker' },
    ]);
  });

  it('gain one that is new', () => {
    expect(
      processInputs(undefined, { process: 'worker', command: 'node worker.js' }, [running('web')]),
    ).toEqual([{ name: 'web' }, { name: 'worker', command: ['node', 'worker.js'] }]);
    expect(
      processInputs(
        undefined,
        { port: 80, healthPath: '/healthz', count: 2, cpu: 50, disk: 64 },
        null,
      ),
    ).toEqual([
      {
        name: 'web',
        port: 80,
        count: 2,
        cpuMillis: 50,
        diskMiB: 64,
        healthCheck: { kind: 'HTTP', path: '/healthz' },
      },
    ]);
  });

  it('have the check that is asked for, and keep what the options do not name of one that is', () => {
    const web = (flags: ProcessFlags, check: Process['healthCheck'] = null) =>
      processInputs(undefined, flags, [{ ...running('web'), healthCheck: check }])?.[0]
        ?.healthCheck;
    const http = {
      kind: 'HTTP' as const,
      path: '/up',
      command: null,
      intervalSeconds: 2,
      timeoutSeconds: 2,
      failureThreshold: 3,
      successThreshold: 1,
      startupGraceSeconds: 30,
    };
    const { command: none, ...before } = http;
    expect(none).toBeNull();
    expect(web({ healthGrace: 60, healthFailures: 5 }, http)).toEqual({
      ...before,
      startupGraceSeconds: 60,
      failureThreshold: 5,
    });
    expect(web({ healthPath: '/live', healthSuccesses: 2 }, http)).toEqual({
      ...before,
      path: '/live',
      successThreshold: 2,
    });
    // Times of one kind are not those of another.
    expect(web({ healthCommand: 'pg_isready -q', healthTimeout: 3 }, http)).toEqual({
      kind: 'COMMAND',
      command: ['pg_isready', '-q'],
      timeoutSeconds: 3,
    });
    expect(web({ healthInterval: 5 })).toEqual({ kind: 'TCP', intervalSeconds: 5 });
    expect(web({ memory: 64 }, http)).toBeUndefined();
    expect(() => web({ healthCommand: 'up', healthPath: '/' })).toThrow(/one check/);
  });

  it('are those of the project file, changed by options', () => {
    const file = {
      web: { port: 3000, health: { path: '/healthz', intervalSeconds: 1 } },
      worker: { command: 'node worker.js', port: null, health: { kind: 'tcp' as const } },
      cron: { port: null, health: { command: 'pgrep -f "cron job"' } },
    };
    expect(processInputs(file, { port: 4000 }, [running('web')])).toEqual([
      {
        name: 'web',
        port: 4000,
        healthCheck: { kind: 'HTTP', path: '/healthz', intervalSeconds: 1 },
      },
      { name: 'worker', command: ['node', 'worker.js'], port: null, healthCheck: { kind: 'TCP' } },
      {
        name: 'cron',
        port: null,
        healthCheck: { kind: 'COMMAND', command: ['pgrep', '-f', 'cron job'] },
      },
    ]);
  });
});

describe('words on the command line', () => {
  it.each([
    ['node server.js', ['node', 'server.js']],
    ['sh -c \'echo "hi there"\'', ['sh', '-c', 'echo "hi there"']],
    ['["node", "-e", "a b"]', ['node', '-e', 'a b']],
    ['node -e "say(\\"hi\\")"', ['node', '-e', 'say("hi")']],
    ['echo $HOME', ['echo', '$HOME']],
  ])('%s', (text, words) => {
    expect(splitCommand(text)).toEqual(words);
  });

  it('are refused when they cannot be meant', () => {
    expect(() => splitCommand(' ')).toThrow(/empty/);
    expect(() => splitCommand('echo "hi')).toThrow(/not closed/);
    expect(() => splitCommand('[1]')).toThrow(/JSON array/);
    expect(() => splitCommand('["a"')).toThrow(/JSON array/);
    expect(() => parseFormation(['web'])).toThrow(/process=count/);
    expect(() => parseFormation(['web=-1'])).toThrow(/process=count/);
    expect(() => parseVersion('latest')).toThrow();
    expect(() => parseVersion('v0')).toThrow();
  });

  it('are read as meant', () => {
    expect(parseFormation(['web=3', 'worker=0'])).toEqual([
      { process: 'web', count: 3 },
      { process: 'worker', count: 0 },
    ]);
    expect([parseVersion('v3'), parseVersion('12')]).toEqual([3, 12]);
  });
});
