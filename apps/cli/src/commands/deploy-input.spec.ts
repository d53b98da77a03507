import { describe, expect, it } from 'vitest';
import type { Process } from '../graphql/types.ts';
import { processInputs, splitCommand } from './deploy-input.ts';
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
  healthCheck: null,
});

describe('the processes of a deploy', () => {
  it('are as before when nothing is said', () => {
    expect(processInputs(undefined, {}, null)).toBeNull();
    expect(processInputs(undefined, {}, [running('web')])).toBeNull();
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

  it('are those of the project file, changed by options', () => {
    const file = {
      web: { port: 3000, health: { path: '/healthz', intervalSeconds: 1 } },
      worker: { command: 'node worker.js', port: null, health: { kind: 'tcp' as const } },
    };
    expect(processInputs(file, { port: 4000 }, [running('web')])).toEqual([
      {
        name: 'web',
        port: 4000,
        healthCheck: { kind: 'HTTP', path: '/healthz', intervalSeconds: 1 },
      },
      { name: 'worker', command: ['node', 'worker.js'], port: null, healthCheck: { kind: 'TCP' } },
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
