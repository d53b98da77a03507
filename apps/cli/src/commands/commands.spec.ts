import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { TrafficMinute } from '../graphql/types.ts';
import { Workbench, type Person } from '../testing/harness.ts';
import { password, World } from '../testing/world.ts';

// The bundle as a program of its own against a GraphQL server with the API's schema.

let workbench: Workbench;
let world: World;
let ann: Person;

beforeAll(() => {
  workbench = new Workbench();
});
afterAll(() => workbench.remove());
beforeEach(async () => {
  world = await World.start(workbench);
  ann = await world.signedIn();
});
afterEach(() => world.server.stop());

/** The exit code and the first line of stderr. */
async function refusal(person: Person, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await person.run(args);
  expect(stdout).toBe('');
  return `${String(code)} ${stderr.split('\n')[0] ?? ''}`;
}

describe('signing in', () => {
  it('keeps the token in a file for its owner alone, and out of every output', async () => {
    const stored = JSON.parse(await readFile(ann.configFile, 'utf8')) as {
      current: string;
      contexts: Record<string, { token: string; tenant: string }>;
    };
    const context = stored.contexts[stored.current];
    expect(context).toMatchObject({
      server: world.server.url,
      tenant: 'demo',
      email: 'ann@example.com',
    });
    expect((await stat(ann.configFile)).mode & 0o777).toBe(0o600);
    const outputs = await Promise.all(
      [['whoami'], ['whoami', '--json'], ['context', 'list', '--json'], ['logout', '--json']].map(
        (args) => ann.run(args),
      ),
    );
    for (const { stdout, stderr } of outputs) expect(stdout + stderr).not.toContain(context?.token);
  });

  it('never shows a token that does not fit into a header', async () => {
    const { code, stdout, stderr } = await ann.run(['whoami'], {
      env: { BULKHEAD_SERVER: world.server.url, BULKHEAD_TOKEN: 'bh_secret\nbh_more' },
    });
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain('the token is none');
    expect(stderr).not.toContain('bh_');
  });

  it('says who you are', async () => {
    const { stdout } = await ann.run(['whoami']);
    expect(stdout).toMatch(/^User: +ann <ann@example.com>$/m);
    expect(stdout).toMatch(/^Roles: +demo: owner$/m);
    expect(await ann.json(['whoami'])).toMatchObject({
      email: 'ann@example.com',
      via: 'SESSION',
      tenant: 'demo',
    });
  });

  it('refuses a wrong password, and never asks without a terminal', async () => {
    const nobody = workbench.person();
    const wrong = await nobody.run(
      ['login', world.server.url, '--email', 'ann@example.com', '--password-stdin'],
      { stdin: 'wrong' },
    );
    expect(wrong.code).toBe(3);
    expect(wrong.stderr).toMatch(/wrong email or password\n.*bulkhead signup/);
    const ask = await nobody.run(['login', world.server.url, '--email', 'ann@example.com']);
    expect(ask.code).toBe(2);
    expect(ask.stderr).toContain('--password-stdin');
  });

  it('makes accounts', async () => {
    const eve = workbench.person({ BULKHEAD_SERVER: world.server.url });
    const short = await eve.run(['signup', '--email', 'eve@example.com', '--password-stdin'], {
      stdin: 'short',
    });
    expect([short.code, short.stderr]).toEqual([
      8,
      expect.stringContaining('at least 10 characters'),
    ]);
    const made = await eve.run(['signup', '--email', 'eve@example.com', '--password-stdin'], {
      stdin: password,
    });
    expect(made.stderr).toContain('bulkhead tenants create');
    expect(await refusal(eve, ['apps'])).toBe('2 error: no tenant chosen');
    await eve.run(['tenants', 'create', 'acme']);
    expect(await eve.json(['apps'])).toEqual([]);
    expect(await refusal(eve, ['tenants', 'create', 'demo'])).toBe(
      '6 error: the name demo is taken',
    );
  });

  it('works with an API token: from stdin, and from the environment alone', async () => {
    const { stdout: secret, stderr } = await ann.run(['tokens', 'create', 'ci', '--expires', '90']);
    expect(secret).toMatch(/^bh_\S+\n$/);
    expect(stderr).toContain('not shown again');
    const ci = workbench.person();
    await ci.run(['login', world.server.url, '--token-stdin', '--context', 'ci'], {
      stdin: secret,
    });
    expect(await ci.json(['whoami'])).toMatchObject({ via: 'TOKEN', context: 'ci' });
    const env = {
      BULKHEAD_SERVER: world.server.url,
      BULKHEAD_TOKEN: secret.trim(),
      BULKHEAD_TENANT: 'demo',
    };
    const bare = workbench.person(env);
    expect(await bare.json(['apps', 'list'])).toEqual([]);
    await expect(stat(bare.configFile)).rejects.toThrow(/ENOENT/);
    const [token] = await ann.json<{ name: string; secret?: string }[]>(['tokens']);
    expect(token).toMatchObject({ name: 'ci' });
    expect(token).not.toHaveProperty('secret');
    expect((await ann.run(['tokens', 'revoke', 'ci'])).code).toBe(0);
    expect((await bare.run(['whoami'])).code).toBe(3);
    expect(await refusal(ann, ['tokens', 'revoke', 'ci'])).toBe(
      '5 error: demo has no API token "ci"',
    );
  });

  it('tells a person who is not signed in, or no longer, what to run', async () => {
    const nobody = workbench.person({ BULKHEAD_SERVER: world.server.url });
    const before = await nobody.run(['apps']);
    expect(before.code).toBe(3);
    expect(before.stderr).toBe(
      `error: not signed in to ${world.server.url}\nRun \`bulkhead login ${world.server.url}\`, or set BULKHEAD_TOKEN.\n`,
    );
    world.server.platform.sessions.clear();
    const after = await ann.run(['apps']);
    expect(after.code).toBe(3);
    expect(after.stderr).toMatch(/session has ended[^]*bulkhead login http/);
  });

  it('ends with logout', async () => {
    await ann.run(['logout', '--everywhere']);
    expect(world.server.platform.sessions.size).toBe(0);
    expect((await ann.run(['whoami'])).code).toBe(3);
  });
});

describe('contexts', () => {
  it('are listed, switched and forgotten', async () => {
    const other = await World.start(workbench);
    try {
      await ann.run(
        [
          'login',
          other.server.url,
          '--context',
          'other',
          '--email',
          'vic@example.com',
          '--password-stdin',
        ],
        { stdin: password },
      );
      const list = await ann.json<{ name: string; current: boolean }[]>(['context']);
      expect(list.map(({ name, current }) => [name, current])).toEqual([
        [new URL(world.server.url).host, false],
        ['other', true],
      ]);
      expect(await ann.json(['whoami'])).toMatchObject({ email: 'vic@example.com' });
      expect(await ann.json(['whoami', '--server', world.server.url])).toMatchObject({
        email: 'ann@example.com',
      });
      await ann.run(['context', 'use', new URL(world.server.url).host]);
      expect(await ann.json(['whoami'])).toMatchObject({ email: 'ann@example.com' });
      await ann.run(['context', 'rm', 'other']);
      expect(await refusal(ann, ['context', 'use', 'other'])).toBe(
        '5 error: there is no context "other"',
      );
    } finally {
      await other.server.stop();
    }
  });

  it('never send a token to another server', async () => {
    const other = await World.start(workbench);
    try {
      expect(await refusal(ann, ['whoami', '--server', other.server.url])).toBe(
        `3 error: not signed in to ${other.server.url}`,
      );
      expect(other.server.requests).toEqual([]);
    } finally {
      await other.server.stop();
    }
  });

  it('are closed again when others could read them', async () => {
    await chmod(ann.configFile, 0o644);
    const { code, stderr } = await ann.run(['context']);
    expect([code, stderr]).toEqual([
      0,
      expect.stringMatching(/^warning: .*could be read by others/),
    ]);
    expect((await stat(ann.configFile)).mode & 0o777).toBe(0o600);
  });

  it('are not for plain http to other machines', async () => {
    expect(await refusal(ann, ['login', 'http://192.0.2.1:4000'])).toMatch(
      /^2 error: plain http to 192\.0\.2\.1:4000/,
    );
  });
});

describe('apps', () => {
  it('are made, listed, shown and destroyed', async () => {
    const { stdout, stderr } = await ann.run(['apps', 'create', 'hello']);
    expect(stdout).toBe('Made hello: http://hello.demo.localhost:8080\n');
    expect(stderr).toContain('bulkhead deploy --app hello');
    expect(await refusal(ann, ['apps', 'create', 'hello'])).toBe(
      '6 error: the name hello is taken',
    );
    expect(await refusal(ann, ['apps', 'create', 'Hello'])).toBe(
      '8 error: "Hello" is no name for an app',
    );
    const { stdout: list } = await ann.run(['apps']);
    expect(list).toMatch(/^APP +STATE +RELEASE +READY +DEPLOYED +ADDRESS\nhello +new +- /);
    await ann.run(['deploy', '--app', 'hello', '--image', 'registry/hello:1']);
    expect((await ann.run(['apps', 'info', 'hello'])).stdout).toMatch(
      /PROCESS +READY[^]*web +1\/1/,
    );
    expect(await ann.json(['apps', 'info', 'hello'])).toMatchObject({
      name: 'hello',
      currentRelease: { version: 1 },
    });
    expect((await ann.run(['open', 'hello'])).stdout).toBe('http://hello.demo.localhost:8080\n');
    expect(await refusal(ann, ['apps', 'destroy', 'hello'])).toMatch(
      /^2 error: there is no terminal/,
    );
    const destroyed = await ann.run(['apps', 'destroy', 'hello', '--yes']);
    expect([destroyed.code, destroyed.stdout]).toEqual([0, 'Destroyed hello.\n']);
    expect(await refusal(ann, ['apps', 'info', 'hello'])).toBe('5 error: app hello not found');
  });

  it('are counted against the quota', async () => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) await ann.run(['apps', 'create', name]);
    expect(await refusal(ann, ['apps', 'create', 'f'])).toBe('7 error: apps: 5 of 5 used');
  });

  it('cannot be changed by a viewer', async () => {
    const vic = await world.signedIn('vic@example.com');
    const { code, stderr } = await vic.run(['apps', 'create', 'hello']);
    expect([code, stderr]).toEqual([4, expect.stringMatching(/viewer may not[^]*bulkhead whoami/)]);
  });

  it('are chosen by option, environment or project file', async () => {
    await ann.run(['apps', 'create', 'hello']);
    const read = async (args: string[], options = {}) =>
      (await ann.json<{ name: string }>(['apps', 'info', ...args], options)).name;
    expect(await read(['-a', 'hello'])).toBe('hello');
    expect(await read([], { env: { BULKHEAD_APP: 'hello' } })).toBe('hello');
    await writeFile(join(ann.home, 'bulkhead.json'), '{"app":"hello","tenant":"demo"}');
    expect(await read([])).toBe('hello');
    await writeFile(join(ann.home, 'bulkhead.json'), '{"apps":"hello"}');
    expect(await refusal(ann, ['apps', 'info'])).toMatch(
      /^2 error: .*bulkhead\.json: Unrecognized key/,
    );
  });
});

describe('configuration', () => {
  beforeEach(() => ann.run(['apps', 'create', 'hello']));
  const at = ['--app', 'hello'];

  it('is saved before the first deploy, and rolled out after', async () => {
    const saved = await ann.run(['config', 'set', 'A=1', 'B=x=y', ...at]);
    expect(saved.stdout).toBe('Saved. It takes effect with the first deploy.\n');
    await ann.run(['deploy', ...at, '--image', 'registry/hello:1']);
    const rolled = await ann.run(['config', 'unset', 'A', ...at]);
    expect(rolled.stdout).toContain('hello v2 is ready');
    expect(await ann.json(['config', ...at])).toEqual([{ name: 'B', value: 'x=y' }]);
    const again = await ann.run(['config', 'unset', 'A', ...at]);
    expect(again.stdout).toBe('Nothing changed: it was so before.\n');
  });

  it('takes secrets from stdin and from a file', async () => {
    await ann.run(['config', 'set', 'KEY=-', ...at], { stdin: 'line 1\nline 2\n' });
    expect((await ann.run(['config', 'get', 'KEY', ...at])).stdout).toBe('line 1\nline 2\n');
    await writeFile(join(ann.home, '.env'), '# comment\nFROM_FILE="a b"\n');
    await ann.run(['config', 'set', '--env-file', '.env', ...at]);
    expect((await ann.run(['config', 'list', '--names', ...at])).stdout).toBe('FROM_FILE\nKEY\n');
    expect((await ann.run(['config', ...at])).stdout).toMatch(/^FROM_FILE +a b$/m);
    expect(await refusal(ann, ['config', 'get', 'NOPE', ...at])).toBe('5 error: hello has no NOPE');
    expect(await refusal(ann, ['config', 'set', 'A=-', 'B=-', ...at])).toMatch(
      /^2 error: only one value can come from stdin/,
    );
    expect(await refusal(ann, ['config', 'set', 'nothing', ...at])).toBe(
      '2 error: "nothing" is not NAME=value',
    );
    expect(await refusal(ann, ['config', 'set', ...at])).toBe('2 error: nothing to set');
  });
});

describe('releases and what runs', () => {
  beforeEach(async () => {
    await ann.run(['apps', 'create', 'hello']);
    await ann.run(['deploy', '-a', 'hello', '--image', 'registry/hello:1', '-m', 'first']);
    await ann.run(['deploy', '-a', 'hello', '--image', 'registry/hello:2', '--memory', '256']);
  });

  it('are listed newest first, shown, and gone back to', async () => {
    const list = await ann.json<{ version: number; description: string }[]>([
      'releases',
      '-a',
      'hello',
    ]);
    expect(list.map(({ version, description }) => [version, description])).toEqual([
      [2, 'Deploy registry/hello:2'],
      [1, 'first'],
    ]);
    expect((await ann.run(['releases', '-a', 'hello'])).stdout).toMatch(/^\* +v2 /m);
    expect((await ann.run(['releases', 'info', 'v2', '-a', 'hello'])).stdout).toMatch(
      /^Release: +v2 \(current\)$/m,
    );
    expect(await ann.json(['releases', 'info', '1', '-a', 'hello'])).toMatchObject({
      version: 1,
      image: 'registry/hello:1',
    });
    expect(await refusal(ann, ['releases', 'info', 'v9', '-a', 'hello'])).toBe(
      '5 error: hello has no release v9',
    );
    expect((await ann.run(['rollback', '-a', 'hello'])).stdout).toContain('hello v3 is ready');
    expect((await ann.run(['rollback', 'v9', '-a', 'hello'])).stderr).toMatch(
      /not found[^]*bulkhead releases --app hello/,
    );
  });

  it('are paused and resumed, all or one', async () => {
    const paused = await ann.run(['pause', 'hello']);
    expect([paused.code, paused.stdout]).toEqual([0, 'Paused hello, 1 instance.\n']);
    expect(paused.stderr).toContain('bulkhead resume --app hello');
    expect((await ann.run(['ps', 'hello'])).stdout).toMatch(/web +i\d+ +v2 +paused/);
    expect((await ann.run(['resume', 'hello'])).stdout).toBe('Resumed hello, 1 instance.\n');
    const [one] = await ann.json<{ id: string }[]>(['ps', '-a', 'hello']);
    const only = ['--app', 'hello', '--instance', one?.id ?? ''];
    expect(await ann.json(['pause', ...only])).toMatchObject([{ paused: true, state: 'PAUSED' }]);
    expect((await ann.run(['resume', ...only, '--detach'])).stdout).toBe(
      `Resuming ${one?.id ?? ''}.\n`,
    );
    expect(await refusal(ann, ['pause', '-a', 'hello', '--instance', 'inotthere'])).toBe(
      '5 error: instance inotthere not found',
    );
    const vic = await world.signedIn('vic@example.com');
    expect((await vic.run(['pause', 'hello'])).code).toBe(4);
  });

  it('show what an instance in a crash loop wrote last', async () => {
    const app = world.app('hello');
    const [instance] = app.instanceList;
    if (!instance) throw new Error('no instance');
    const before = { ...instance };
    Object.assign(instance, {
      state: 'CRASHLOOP',
      message: 'ended 6 times in a row: exited with code 1',
      lastExit: {
        ...{ reason: 'EXITED', exitCode: 1, signal: null, message: 'exited with code 1' },
        ...{ lastLines: ['\u001b[2Jno DATABASE_URL'], at: new Date().toISOString() },
      },
    });
    expect((await ann.run(['ps', 'hello'])).stdout).toMatch(
      / crashloop .*ended 6 times in a row: exited with code 1/,
    );
    expect((await ann.run(['status', 'hello'])).stdout).toMatch(
      /web i\d+ (?:now|\d+s ago): exited with code 1\n {2}\| no DATABASE_URL\n$/,
    );
    Object.assign(instance, before);
  });

  it('are scaled, restarted, stopped and started', async () => {
    expect((await ann.run(['scale', 'web=3', '-a', 'hello'])).stdout).toContain(
      'hello v2 runs web=3: http://hello.demo',
    );
    expect(await ann.json(['ps', '-a', 'hello'])).toHaveLength(3);
    expect((await ann.run(['ps', 'hello'])).stdout).toMatch(
      /^PROCESS +INSTANCE +RELEASE +STATE[^]*web +i\d+ +v2 +ready/,
    );
    expect(await refusal(ann, ['scale', 'nope=3', '-a', 'hello'])).toBe(
      '8 error: hello has no process nope',
    );
    expect((await ann.run(['restart', 'hello'])).code).toBe(0);
    const resized = await ann.run(['resize', '--memory', '256', '-a', 'hello']);
    expect([resized.code, resized.stdout]).toEqual([
      0,
      expect.stringContaining('hello v2 is ready'),
    ]);
    expect(await ann.json(['apps', 'info', 'hello'])).toMatchObject({
      processes: [{ memoryMiB: 256 }],
    });
    expect(await refusal(ann, ['resize', 'web', '-a', 'hello'])).toBe('2 error: no size given');
    const [one, ...rest] = await ann.json<{ id: string }[]>(['ps', '-a', 'hello']);
    const id = one?.id ?? '';
    expect((await ann.run(['restart', 'hello', '--instance', id])).stdout).toBe(
      `Replaced ${id}.\n`,
    );
    const [other] = rest.map((row) => row.id);
    expect((await ann.run(['instances', 'delete', other ?? '', '-a', 'hello'])).stdout).toBe(
      `Deleted ${other ?? ''}.\n`,
    );
    expect((await ann.run(['instances', '-a', 'hello'])).stdout).not.toContain(other);
    expect(await refusal(ann, ['instances', 'delete', id, '-a', 'hello'])).toBe(
      `5 error: instance ${id} not found`,
    );
    expect((await ann.run(['stop', 'hello'])).stdout).toContain('hello is stopped.');
    expect((await ann.run(['scale', 'web=3', '-a', 'hello'])).stdout).toBe(
      '✓ hello is stopped: `bulkhead start --app hello` will run web=3.\n',
    );
    expect((await ann.run(['start', 'hello'])).stdout).toContain('hello v2 is ready');
    expect((await ann.run(['status', 'hello'])).stdout).toMatch(/^State: +running$[^]*web +i\d+/m);
    expect(await ann.json(['status', 'hello'])).toMatchObject({
      name: 'hello',
      instances: [{}, {}, {}],
    });
    const kinds = await ann.json<{ kind: string }[]>(['deployments', '-a', 'hello']);
    expect(kinds.map(({ kind }) => kind)).toEqual([
      'START',
      'SCALE',
      'STOP',
      'RESIZE',
      'RESTART',
      'SCALE',
      'DEPLOY',
      'DEPLOY',
    ]);
    expect((await ann.run(['deployments', 'info', '-a', 'hello'])).stdout).toMatch(
      /Status: succeeded/,
    );
    expect((await ann.run(['images'])).stdout).toMatch(/registry\/hello:2 .* hello v2/);
    expect(await ann.json(['audit', '-n', '1'])).toMatchObject([
      { action: 'app.start', actor: 'ann@example.com' },
    ]);
  });

  it('are pages that are read to the end', async () => {
    const app = world.app('hello');
    for (let i = 0; i < 250; i += 1)
      app.tenant.audit(world.server.platform.users[0] ?? expect.fail(), 'x', String(i));
    expect((await ann.json<unknown[]>(['audit', '-n', '1000'])).length).toBeGreaterThan(250);
    expect(await ann.json(['audit', '-n', '120'])).toHaveLength(120);
    const { stdout } = await ann.run(['audit', '-n', '1']);
    expect(stdout).toContain('DETAIL');
    expect(stdout).toContain('version=3 note=ab');
  });
});

describe('traffic', () => {
  const minute = (at: string, part: Partial<TrafficMinute> = {}): TrafficMinute => ({
    minute: at,
    ...{ status2xx: 60, status3xx: 0, status4xx: 0, status5xx: 0, failed: 0 },
    ...{ bytesIn: 1024, bytesOut: 2_000_000, meanMs: 5 },
    ...{ p50Ms: 4.2, p95Ms: 19, p99Ms: null },
    ...part,
  });

  it('is shown by the minute, and as it is with --json', async () => {
    await ann.run(['apps', 'create', 'hello']);
    const { minutes } = world.app('hello');
    const refused = await ann.run(['traffic', '-a', 'hello', '--since', '3d']);
    expect(refused.stderr).toContain('two days are kept');
    expect((await ann.run(['traffic', '-a', 'hello'])).stderr).toContain('No requests for hello');
    const now = new Date();
    now.setSeconds(0, 0);
    minutes.push(minute(now.toISOString(), { status5xx: 3, failed: 2 }));
    const { stdout } = await ann.run(['traffic', '-a', 'hello']);
    expect(stdout).toMatch(
      /REQUESTS +PER SECOND +2XX +3XX +4XX +5XX +FAILED +P50 +P95 +P99 +IN +OUT/,
    );
    expect(stdout).toMatch(
      /\d\d:\d\d +63 +1\.1 +60 +- +- +3 +2 +4\.2 ms +19 ms +- +1\.0 KiB +1\.9 MiB/,
    );
    expect(await ann.json(['traffic', '-a', 'hello'])).toEqual(minutes);
    minutes.pop();
  });

  it('is put together when it is long', async () => {
    await ann.run(['apps', 'create', 'hello']);
    const steps: number[] = [];
    const app = world.app('hello');
    const { traffic } = app;
    app.traffic = (args) => (steps.push(args.step), traffic(args));
    for (const since of ['10m', '1h', '5h', '1d', '2d'])
      await ann.run(['traffic', '-a', 'hello', '--since', since]);
    await ann.run(['traffic', '-a', 'hello', '--since', '1d', '--json']);
    expect(steps).toEqual([1, 1, 5, 60, 60, 1]);
  });
});

describe('tenants, members and operators', () => {
  it('are managed', async () => {
    expect((await ann.run(['tenants'])).stdout).toMatch(/^\* +demo +DEMO +owner$/m);
    expect((await ann.run(['tenants', 'info'])).stdout).toMatch(/^Members: +2$/m);
    expect((await ann.run(['members', 'add', 'bob@example.com'])).stdout).toBe(
      'bob@example.com is now developer of demo.\n',
    );
    await ann.run(['members', 'set-role', 'bob@example.com', 'admin']);
    expect((await ann.run(['members'])).stdout).toMatch(/^bob@example.com +bob +admin /m);
    await ann.run(['members', 'remove', 'bob@example.com']);
    expect(await ann.json(['members', 'list'])).toHaveLength(2);
    expect(await refusal(ann, ['members', 'add', 'nobody@example.com'])).toBe(
      '5 error: nobody signed up as nobody@example.com',
    );
    expect(await refusal(ann, ['members', 'set-role', 'bob@example.com', 'king'])).toMatch(
      /^2 error: .*king/,
    );
    expect(await refusal(ann, ['tenants', 'use', 'other'])).toBe('5 error: tenant other not found');
  });

  it('leave the platform to operators', async () => {
    const ops = await world.signedIn('ops@example.com');
    expect((await ops.run(['nodes'])).stdout).toMatch(
      /^node-1 +ready +default +- +1\/1000 +5% +1% +1% /m,
    );
    expect((await ops.run(['nodes', 'info', 'node-1'])).stdout).toMatch(
      /^CPU: +100 of 2000m reserved \(5%\)$[^]*i000000000001/m,
    );
    expect(await ops.json(['nodes', 'info', 'node-1'])).toMatchObject({
      instances: [{ tenant: 'demo' }],
    });
    expect((await ops.run(['nodes', 'info', 'node-1'])).stdout).toMatch(/^Walls: +whole$/m);
    world.server.platform.missingWalls = ['disk-limit', 'io-limit'];
    expect((await ops.run(['nodes', 'info', 'node-1'])).stdout).toMatch(
      /^Walls: +missing: disk-limit, io-limit$/m,
    );
    expect((await ops.run(['nodes'])).stdout).toContain('ready, without disk-limit io-limit');
    world.server.platform.missingWalls = [];
    expect(await refusal(ops, ['nodes', 'info', 'node-9'])).toBe('5 error: node node-9 not found');
    expect((await ops.run(['nodes', 'label', 'node-1', 'zone=a', 'disk=ssd'])).stdout).toBe(
      'node-1: zone=a disk=ssd\n',
    );
    expect((await ops.run(['nodes', 'label', 'node-1', 'disk-'])).stdout).toBe('node-1: zone=a\n');
    expect(await refusal(ops, ['nodes', 'label', 'node-1', 'zone'])).toBe(
      '2 error: "zone" is neither name=value nor name-',
    );
    expect((await ops.run(['nodes', 'cordon', 'node-1'])).stdout).toBe(
      'node-1 gets no new instances.\n',
    );
    expect((await ops.run(['nodes', 'drain', 'node-1', '--dry-run'])).stdout).toMatch(
      /^i000000000001 +demo +hello +web +stays +no node can take it/m,
    );
    const drained = await ops.run(['nodes', 'drain', 'node-1']);
    expect(drained.stderr).toContain('i000000000001 (demo/hello) stays for now: no node');
    expect(drained.stdout).toBe('node-1 is empty and cordoned.\n');
    expect((await ops.run(['nodes'])).stdout).toContain('ready, draining');
    expect((await ops.run(['nodes', 'drain', 'node-1', '--cancel'])).code).toBe(0);
    expect((await ops.run(['nodes', 'uncordon', 'node-1'])).stdout).toBe(
      'node-1 gets instances again.\n',
    );
    expect((await ops.run(['nodes', 'top'])).stdout).toMatch(
      /node-1 +ready +1 \/ 1000 +250 \/ 2000m +100m +4096 \/ 24000 MiB +100 \/ 100000 MiB +0.50/,
    );
    expect((await ops.run(['nodes', 'move', 'node-1', 'gpu'])).stdout).toBe(
      'node-1 is in the pool gpu.\n',
    );
    expect((await ops.run(['pools'])).stdout).toMatch(/^default +1 +4 +everybody$/m);
    const set = ['pools', 'set', 'gpu', '--grant', 'acme', '--grant', 'demo'];
    expect((await ops.run([...set, '--cpu-overcommit', '1.5'])).stdout).toMatch(
      /^gpu +0 +1.5 +acme demo$/m,
    );
    expect(await refusal(ops, ['pools', 'set', 'gpu', '--cpu-overcommit', 'much'])).toContain(
      '"much" is not a factor',
    );
    const made = await ops.run(['node', 'token', 'create', '--label', 'zone=b', '--ttl', '10m']);
    expect(made.stdout).toBe('bhj1.place.bh_secret\n');
    expect(made.stderr).toContain('npm run join');
    expect((await ops.run(['nodes', 'token'])).stdout).toMatch(/good +- +default +zone=b/);
    const [{ id }] = (await ops.json(['nodes', 'token', 'list'])) as [{ id: string }];
    expect((await ops.run(['nodes', 'token', 'revoke', id])).stdout).toBe('Revoked.\n');
    expect(await refusal(ops, ['nodes', 'token', 'revoke', id])).toContain('not found');
    expect(await refusal(ops, ['nodes', 'remove', 'node-1'])).toContain('drain it first');
    expect((await ops.run(['nodes', 'remove', 'node-1', '--force'])).stdout).toContain(
      'is removed',
    );
    expect(await refusal(ann, ['nodes', 'token', 'create'])).toBe(
      '4 error: only operators may see nodes',
    );
    expect(await refusal(ann, ['nodes', 'drain', 'node-1'])).toBe(
      '4 error: only operators may see nodes',
    );
    expect((await ops.run(['admin', 'resync'])).stdout).toBe(
      '2 instances and 1 route written to NATS again, 1 stale key removed.\n',
    );
    expect(await ops.json(['admin', 'resync', '--detach'])).toMatchObject({ stale: 1, left: 0 });
    expect(await refusal(ann, ['admin', 'resync'])).toBe('4 error: only operators may resync');
    expect(await ops.json(['tenants', 'list', '--all'])).toMatchObject([{ slug: 'demo' }]);
    expect((await ops.run(['quota', 'set', 'apps=20', '-t', 'demo'])).stdout).toMatch(
      /^apps +0 +20 /m,
    );
    expect(await refusal(ops, ['quota', 'set', 'apps', '-t', 'demo'])).toBe(
      '2 error: "apps" is not resource=limit',
    );
    expect(await refusal(ann, ['nodes'])).toBe('4 error: only operators may see nodes');
    expect(await refusal(ann, ['quota', 'set', 'apps=99'])).toBe(
      '4 error: only operators may set quotas',
    );
    expect(await ann.json(['quota'])).toContainEqual({
      resource: 'apps',
      used: 0,
      limit: 20,
      unit: '',
    });
  });
});
