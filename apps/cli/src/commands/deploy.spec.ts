import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Workbench, type Person } from '../testing/harness.ts';
import { World } from '../testing/world.ts';

let workbench: Workbench;
let world: World;
let ann: Person;
const at = ['--app', 'hello'];
const deploy = (image: string, ...more: string[]) => [
  'deploy',
  ...at,
  '--image',
  `registry/${image}`,
  ...more,
];

beforeAll(() => {
  workbench = new Workbench();
});
afterAll(() => workbench.remove());
beforeEach(async () => {
  world = await World.start(workbench);
  ann = await world.signedIn();
  await ann.run(['apps', 'create', 'hello']);
});
afterEach(() => world.server.stop());

function lastInput(): Record<string, unknown> {
  const { body } =
    world.server.requests.findLast((request) => request.body.includes('mutation Deploy')) ??
    expect.fail();
  return (JSON.parse(body) as { variables: { input: Record<string, unknown> } }).variables.input;
}

describe('a deploy', () => {
  it('is followed to its end: progress on stderr, the address on stdout', async () => {
    const { code, stdout, stderr } = await ann.run(deploy('hello:1'));
    expect(code).toBe(0);
    expect(stdout).toBe('✓ hello v1 is ready: http://hello.demo.localhost:8080\n');
    expect(stderr).toMatch(
      /^Deploying hello v1 \(registry\/hello:1\), deployment d\d+\n\d\d:\d\d:\d\d planned\n/,
    );
    expect(stderr).not.toContain('\u001b');
    expect(world.server.socketsOpened).toBe(1);
  });

  it('is one document for scripts, also when it fails', async () => {
    const good = await ann.run(deploy('hello:1', '--json'));
    expect(JSON.parse(good.stdout)).toMatchObject({
      status: 'SUCCEEDED',
      to: { version: 1 },
      app: { url: 'http://hello.demo.localhost:8080' },
    });
    expect(good.stderr).toBe('');
    const bad = await ann.run(deploy('crash:1', '--json'));
    expect(bad.code).toBe(1);
    expect(JSON.parse(bad.stdout)).toMatchObject({
      status: 'FAILED',
      failure: { code: 'CRASHED', exitCode: 3 },
    });
    expect(JSON.parse(bad.stderr)).toMatchObject({
      error: { code: 'CRASHED', message: expect.stringContaining('web crashed') as string },
    });
  });

  it('needs no WebSocket', async () => {
    world.server.sockets = false;
    const { code, stdout } = await ann.run(deploy('hello:1'));
    expect([code, stdout]).toEqual([0, expect.stringContaining('hello v1 is ready')]);
    expect(world.server.socketsOpened).toBe(0);
  });

  it('is picked up again when the connection is lost', async () => {
    let lost = false;
    const { code, stdout, stderr } = await ann.run(deploy('stuck:1'), {
      onOutput: ({ stderr: text }) => {
        if (lost || !text.includes('planned')) return;
        lost = true;
        world.server.dropSockets();
        world.app('hello').deploymentList[0]?.end('SUCCEEDED');
      },
    });
    expect([code, stdout]).toEqual([0, expect.stringContaining('hello v1 is ready')]);
    expect(stderr.match(/planned/g)).toHaveLength(1);
  });

  it('goes on when nobody waits: --detach, --timeout, Ctrl-C', async () => {
    const detached = await ann.run(deploy('hello:1', '--detach'));
    expect([detached.code, detached.stdout]).toEqual([
      0,
      expect.stringMatching(/^bulkhead deployments follow d\d+\n$/),
    ]);
    const late = await ann.run(deploy('stuck:2', '--timeout', '0.3s'));
    expect([late.code, late.stderr]).toEqual([
      9,
      expect.stringMatching(
        /error: not finished after 0.3 s\nIt goes on without us. Follow it: bulkhead deployments follow d\d+\n$/,
      ),
    ]);
    const cut = await ann.run(deploy('stuck:3'), {
      onOutput: ({ stderr }, child) => {
        if (stderr.includes('planned')) child.kill('SIGINT');
      },
    });
    expect([cut.code, cut.stderr]).toEqual([
      130,
      expect.stringMatching(
        /stopped: no longer watching\nIt goes on without us. Follow it: bulkhead deployments follow d\d+\n$/,
      ),
    ]);
    const id = world.app('hello').deploymentList[0]?.id ?? '';
    const followed = await ann.run(['deployments', 'follow', id, '--json'], {
      onOutput: ({ stdout }) => {
        const [latest] = world.app('hello').deploymentList;
        if (stdout !== '' && latest?.status === 'RUNNING') latest.end('SUPERSEDED');
      },
    });
    const records = followed.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { status: string });
    expect(records.map(({ status }) => status)).toEqual(['RUNNING', 'SUPERSEDED']);
    expect([followed.code, followed.stderr]).toEqual([6, expect.stringContaining('SUPERSEDED')]);
  });
});

describe('a deploy in steps', () => {
  const canary = deploy('hello:2', '--strategy', 'canary', '--steps', '10%,50%:5m,2');

  it('ends with what to type when it waits for people; promote goes on, abort goes back', async () => {
    await ann.run(deploy('hello:1'));
    const { code, stdout, stderr } = await ann.run(canary);
    expect(lastInput()['strategy']).toEqual({
      kind: 'CANARY',
      steps: [
        { share: '10%', pauseSeconds: null },
        { share: '50%', pauseSeconds: 300 },
        { share: '2', pauseSeconds: null },
      ],
    });
    expect([code, stdout]).toEqual([
      0,
      '‖ hello v2 waits at step 1 of 3. Go on: bulkhead promote --app hello. Go back: bulkhead abort --app hello\n',
    ]);
    expect(stderr).toContain('step 1 of 3: it waits to be promoted');
    const { stdout: listed } = await ann.run(['deployments', ...at]);
    expect(listed).toContain('waits at 1/3');
    const info = await ann.run(['deployments', 'info', ...at]);
    expect(info.stdout).toContain('Strategy: canary 10%, 50% for 5m, 2\n');
    expect(info.stdout).toContain('Go on: bulkhead promote --app hello');

    const on = await ann.run(['promote', ...at]);
    expect([on.code, on.stdout]).toEqual([0, expect.stringContaining('waits at step 3 of 3')]);
    const back = await ann.run(['deployments', 'abort', ...at]);
    expect([back.code, back.stdout]).toEqual([0, 'Aborted: hello goes back to v1.\n']);
    for (const verb of ['promote', 'abort']) {
      const none = await ann.run([verb, ...at]);
      expect([none.code, none.stderr]).toEqual([6, expect.stringContaining(`nothing to ${verb}`)]);
    }
  });

  it('with --wait is seen to its end, with --no-wait not at all', async () => {
    await ann.run(deploy('hello:1'));
    const waiting = ann.run([...canary, '--wait'], {
      onOutput: () => world.app('hello').deploymentList[0]?.promote(),
    });
    expect((await waiting).stdout).toContain('hello v2 is ready');
    const { stdout } = await ann.run(deploy('hello:3', '--no-wait'));
    expect(stdout).toMatch(/^bulkhead deployments follow d\d+\n$/);
  });

  it('goes as the project file says, and flags change that', async () => {
    const file = join(workbench.directory, 'canary.json');
    const strategy = { kind: 'blue-green', manual: true, keepOldSeconds: 60 };
    await writeFile(file, JSON.stringify({ app: 'hello', image: 'registry/hello:1', strategy }));
    await ann.run(['deploy', '--file', file, '--keep-old', '10m', '--max-surge', '2']);
    expect(lastInput()['strategy']).toEqual({
      kind: 'BLUE_GREEN',
      manual: true,
      keepOldSeconds: 600,
      maxSurge: '2',
    });
    await ann.run(['deploy', '--file', file, '--strategy', 'rolling']);
    expect(lastInput()['strategy']).toEqual({ kind: 'ROLLING' });
    const steps = { kind: 'canary', steps: ['half'] };
    await writeFile(
      file,
      JSON.stringify({ app: 'hello', image: 'registry/hello:1', strategy: steps }),
    );
    const bad = await ann.run(['deploy', '--file', file]);
    expect([bad.code, bad.stderr]).toEqual([2, expect.stringContaining('"half" is no step')]);
    for (const wrong of [
      ['--steps', '10%:x'],
      ['--steps', 'half'],
      ['--max-surge', '101%'],
      ['--strategy', 'green'],
    ]) {
      expect((await ann.run(deploy('hello:1', ...wrong))).code).toBe(2);
    }
  });
});

describe('a deploy that fails', () => {
  it.each([
    [
      'missing',
      'hello v1 failed: image not found: the registry has no such image',
      'Check name and tag',
    ],
    [
      'crash',
      'hello v1 failed: web crashed: web ended 3 times in a row',
      'bulkhead logs --app hello --process web',
    ],
    ['sick', 'hello v1 failed: web is not healthy: GET /healthz answered 500', '--health-path'],
    [
      'huge',
      'hello v1 failed: no node has room for web: needs 9000 MiB, 100 MiB free on the best node',
      'bulkhead scale --app hello web=1',
    ],
    [
      'hungry',
      'hello v1 failed: web ran out of memory: killed at 128 MiB (exit code 137)',
      '--memory 512',
    ],
    [
      'late',
      'hello v1 failed: not ready in time: not ready within 300 s',
      'bulkhead ps --app hello',
    ],
  ])('%s: says why, and what to try', async (image, message, hint) => {
    const { code, stdout, stderr } = await ann.run(deploy(`${image}:1`));
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(`error: ${message}\n`);
    expect(stderr.slice(stderr.indexOf('error:'))).toContain(hint);
  });

  it('shows the last lines without letting them rule the terminal', async () => {
    const { stderr } = await ann.run(deploy('crash:1'));
    expect(stderr).toContain(
      'The last lines that i000000000009 wrote:\n  | starting\n  | boom: no DATABASE_URL\n',
    );
    expect(stderr).not.toContain('\u001b');
  });

  it('says which release stays', async () => {
    await ann.run(deploy('hello:1'));
    expect((await ann.run(deploy('crash:2'))).stderr).toContain('hello stays on v1.');
  });

  it('is refused at once over quota, for an app that is not there, and without an image', async () => {
    const greedy = await ann.run(deploy('greedy:1'));
    expect([greedy.code, greedy.stderr]).toEqual([
      7,
      expect.stringContaining('bulkhead quota --tenant demo'),
    ]);
    const missing = await ann.run([
      'deploy',
      '--app',
      'nope',
      '--image',
      'registry/hello:1',
      '--memory',
      '64',
    ]);
    expect([missing.code, missing.stderr]).toEqual([
      5,
      expect.stringContaining('bulkhead apps create nope'),
    ]);
    expect((await ann.run(['deploy', ...at])).code).toBe(2);
    expect((await ann.run(deploy('hello:1', '--process', 'web'))).stderr).toContain(
      '--process alone changes nothing',
    );
    expect((await ann.run(deploy('hello:1', '--port', '99999'))).code).toBe(2);
  });
});

describe('what a deploy asks for', () => {
  it('is nothing but the image by default', async () => {
    await ann.run(deploy('hello:1'));
    expect(lastInput()).toEqual({
      tenant: 'demo',
      app: 'hello',
      image: 'registry/hello:1',
      processes: null,
      description: null,
      strategy: null,
    });
  });

  it('is a change to one process with options', async () => {
    await ann.run(deploy('hello:1', '--port', '3000'));
    await ann.run(
      deploy('hello:2', '-p', 'worker', '--command', 'node worker.js', '-m', 'a worker'),
    );
    expect(lastInput()).toMatchObject({
      description: 'a worker',
      processes: [{ name: 'web' }, { name: 'worker', command: ['node', 'worker.js'] }],
    });
  });

  it('is what the project file says', async () => {
    const file = join(ann.home, 'production.json');
    await writeFile(
      file,
      JSON.stringify({
        app: 'hello',
        tenant: 'demo',
        image: 'registry/hello:7',
        processes: { web: { port: 3000, count: 2 } },
      }),
    );
    const { code, stderr } = await ann.run(['deploy', '--file', file]);
    expect([code, stderr]).toEqual([0, expect.stringContaining('registry/hello:7')]);
    expect(lastInput()).toMatchObject({
      image: 'registry/hello:7',
      processes: [{ name: 'web', port: 3000, count: 2 }],
    });
    expect((await ann.run(['deploy', '--file', 'nowhere.json'])).stderr).toContain('no such file');
  });

  it('can be for a new app', async () => {
    const { code } = await ann.run([
      'deploy',
      '--app',
      'fresh',
      '--image',
      'registry/hello:1',
      '--create',
    ]);
    expect([code, world.app('fresh').name]).toEqual([0, 'fresh']);
  });
});
