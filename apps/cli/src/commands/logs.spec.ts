import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { FakeApp } from '../testing/fake-app.ts';
import { Workbench, type Person } from '../testing/harness.ts';
import { World } from '../testing/world.ts';
import { createStyle } from '../output/style.ts';
import { formatLine } from './logs.ts';

let workbench: Workbench;
let world: World;
let ann: Person;
let app: FakeApp;

beforeAll(() => {
  workbench = new Workbench();
});
afterAll(() => workbench.remove());
beforeEach(async () => {
  world = await World.start(workbench);
  ann = await world.signedIn();
  await ann.run(['apps', 'create', 'hello']);
  app = world.app('hello');
});
afterEach(() => world.server.stop());

describe('logs', () => {
  it('are shown with when and where from, without commands to the terminal', async () => {
    app.write('\u001b[2J\u001b[31mhello\u001b[0m', 'stdout', '2026-01-31T12:00:00.000Z');
    const { stdout } = await ann.run(['logs', 'hello']);
    expect(stdout).toBe('2026-01-31T12:00:00.000Z web/i000000000001 hello\n');
  });

  it('are exact records for scripts', async () => {
    app.write('\u001b[31mred', 'stderr', '2026-01-31T12:00:00.000Z');
    app.write('two', 'stdout', '2026-01-31T12:00:01.000Z');
    const { stdout } = await ann.run(['logs', 'hello', '--json']);
    expect(
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual([
      {
        at: '2026-01-31T12:00:00.000Z',
        instance: 'i000000000001',
        process: 'web',
        stream: 'stderr',
        text: '\u001b[31mred',
      },
      {
        at: '2026-01-31T12:00:01.000Z',
        instance: 'i000000000001',
        process: 'web',
        stream: 'stdout',
        text: 'two',
      },
    ]);
  });

  it('are limited by count, time and process', async () => {
    for (let i = 0; i < 5; i += 1) app.write(`line ${String(i)}`);
    app.write('old', 'stdout', '2020-01-01T00:00:00.000Z');
    expect(
      (await ann.run(['logs', 'hello', '-n', '2', '--since', '1h'])).stdout.match(/line \d/g),
    ).toEqual(['line 3', 'line 4']);
    expect((await ann.run(['logs', 'hello', '--process', 'worker'])).stderr).toBe('No lines.\n');
    expect((await ann.run(['logs', 'hello', '--since', 'soon'])).code).toBe(2);
    expect((await ann.run(['logs', 'hello', '--until', '1h'])).stdout.match(/old|line/g)).toEqual([
      'old',
    ]);
    expect((await ann.run(['logs', 'hello', '--until', '1h', '-f'])).code).toBe(2);
    // As many as the API gives.
    const two = (await ann.run(['logs', 'hello', '-n', '2'])).stdout;
    expect(two.trim().split('\n')).toHaveLength(2);
    expect((await ann.run(['logs', 'hello', '--tail', '2'])).stdout).toBe(two);
    expect((await ann.run(['logs', 'hello', '-n', '1001'])).code).toBe(2);
  });

  it('are all of them where that is asked for, in the order of their time', async () => {
    world.server.platform.logPageLines = 4;
    const start = Date.now() - 600_000;
    const at = (i: number) => new Date(start + i * 100).toISOString();
    // Of two instances, one of which is always a little behind.
    for (let i = 0; i < 50; i += 1) {
      app.write(`one ${String(2 * i)}`, 'stdout', at(2 * i));
      if (i >= 5) app.write(`two ${String(2 * i - 9)}`, 'stdout', at(2 * i - 9), 'i000000000002');
    }
    const numbers = Array.from({ length: 91 }, (_, i) => String(i));
    for (const how of [
      ['-n', 'all'],
      ['--since', '1h'],
    ]) {
      const { stdout } = await ann.run(['logs', 'hello', '--bare', ...how]);
      const lines = stdout.trim().split('\n');
      expect(lines).toHaveLength(95);
      expect(lines.slice(0, 91).map((line) => line.split(' ')[1])).toEqual(numbers);
    }
    expect((await ann.run(['logs', 'hello'])).stdout.trim().split('\n')).toHaveLength(95);
    expect((await ann.run(['logs', 'hello', '-n', 'some'])).stderr).toContain('nor "all"');
  });

  it('of one instance are found by the beginning of its id, also when it is gone', async () => {
    app.write('mine', 'stdout', undefined, 'i00000000abc1');
    app.write('other', 'stdout', undefined, 'i00000000abd1');
    app.knowInstances('i00000000abc1', 'i00000000abd1');
    const of = (id: string) => ann.run(['logs', 'hello', '--bare', '--instance', id]);
    expect((await of('i00000000abc')).stdout).toBe('mine\n');
    expect(await of('i00000000ab')).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/2 instances[^]*i00000000abc1, i00000000abd1/) as string,
    });
    expect((await of('ix')).code).toBe(5);
    expect((await of('')).code).toBe(5);
  });

  it('follow, over a lost connection, each line once and in order', async () => {
    app.write('one');
    app.write('twin', 'stdout', '2026-01-31T12:00:00.000Z');
    app.write('twin', 'stdout', '2026-01-31T12:00:00.000Z');
    let stage = 0;
    const { code, stdout } = await ann.run(['logs', 'hello', '-f'], {
      onOutput: ({ stdout: text }, child) => {
        if (stage === 0 && text.split('twin').length === 3) {
          stage = 1;
          app.write('two');
        } else if (stage === 1 && text.includes('two')) {
          stage = 2;
          world.server.dropSockets();
          // Late, but not lost: it is older than what was read.
          app.write('three', 'stdout', new Date(Date.now() - 2000).toISOString());
        } else if (stage === 2 && text.includes('three')) {
          stage = 3;
          child.kill('SIGINT');
        }
      },
    });
    expect(stdout.match(/one|twin|two|three/g)).toEqual(['one', 'twin', 'twin', 'two', 'three']);
    expect(code).toBe(130);
  });

  it('follow without WebSockets', async () => {
    world.server.sockets = false;
    app.write('one');
    let more = false;
    const { stdout } = await ann.run(['logs', 'hello', '--follow', '--json'], {
      onOutput: ({ stdout: text }, child) => {
        if (!more && text.includes('one')) {
          more = true;
          app.write('two');
        }
        if (text.includes('two')) child.kill('SIGTERM');
      },
    });
    expect(stdout.match(/one|two/g)).toEqual(['one', 'two']);
  });

  it('end quietly when the reader goes away', async () => {
    for (let i = 0; i < 1000; i += 1) app.write(`line ${String(i)} ${'x'.repeat(200)}`);
    const pipe = spawn(
      'bash',
      [
        '-c',
        'set -o pipefail; "$0" "$1" logs hello -n 1000 | head -1',
        process.execPath,
        workbench.bundle,
      ],
      {
        env: ann.environment(),
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    let stdout = '';
    let stderr = '';
    pipe.stdout.on('data', (chunk) => (stdout += String(chunk)));
    pipe.stderr.on('data', (chunk) => (stderr += String(chunk)));
    const [code] = (await once(pipe, 'close')) as [number];
    expect([code, stderr, stdout.split('\n').length]).toEqual([0, '', 2]);
  });
});

it('a line has a colour of its own per instance on a terminal, and keeps its own colours', () => {
  const line = {
    at: '2026-01-31T12:00:00.000Z',
    cursor: '1',
    instance: 'i1',
    process: 'web',
    stream: 'stdout',
    text: '\u001b[31mred\u001b[2J',
  };
  expect(formatLine(line, createStyle(true), 'clock')).toMatch(
    /\u001b\[\d+mweb\/i1\u001b\[39m \u001b\[31mred\u001b\[0m$/,
  );
  expect(formatLine(line, createStyle(false), 'whole')).toBe('2026-01-31T12:00:00.000Z web/i1 red');
  expect(formatLine(line, createStyle(false), 'none')).toBe('red');
});
