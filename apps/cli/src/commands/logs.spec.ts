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
    // As many as the API gives.
    const two = (await ann.run(['logs', 'hello', '-n', '2'])).stdout;
    expect(two.trim().split('\n')).toHaveLength(2);
    expect((await ann.run(['logs', 'hello', '--tail', '2'])).stdout).toBe(two);
    expect((await ann.run(['logs', 'hello', '-n', '1001'])).code).toBe(2);
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
    instance: 'i1',
    process: 'web',
    stream: 'stdout',
    text: '\u001b[31mred\u001b[2J',
  };
  expect(formatLine(line, createStyle(true), true)).toMatch(
    /\u001b\[\d+mweb\/i1\u001b\[39m \u001b\[31mred\u001b\[0m$/,
  );
});
