import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { visit } from './support/client.ts';
import { platform, type Platform } from './support/platform.ts';
import { TenantFixture } from './support/tenant.ts';
import { until } from './support/until.ts';

const bulkhead = join(dirname(import.meta.dirname), 'apps/cli/bin/bulkhead.js');

// The two faces that people use: the stock subscription client, and the command line.
describe('clients', () => {
  let p: Platform;
  let tenant: TenantFixture;
  let image: string;
  let home: string;

  beforeAll(async () => {
    p = await platform();
    tenant = await TenantFixture.create(p.apiUrl);
    image = await p.push(tenant, 'hello', 'hello:1');
    home = await mkdtemp(join(tmpdir(), 'bulkhead-e2e-home-'));
  });
  afterAll(async () => {
    await p.release();
    await rm(home, { recursive: true, force: true });
  });

  const environment = () => ({ ...process.env, XDG_CONFIG_HOME: home, NO_COLOR: '1' });

  function cli(args: string[], input = ''): Promise<{ code: number; out: string; err: string }> {
    return new Promise((resolve) => {
      const child = execFile(
        process.execPath,
        [bulkhead, ...args],
        { env: environment() },
        (error, out, err) => resolve({ code: error === null ? 0 : Number(error.code), out, err }),
      );
      child.stdin!.end(input);
    });
  }

  test('a deployment is followed to its end, and its logs as they come, over graphql-ws', async () => {
    await tenant.createApp('watched');
    const socket = tenant.api.socket();
    const id = await tenant.deploy('watched', image, [
      { name: 'web', port: 8080, healthCheck: { kind: 'HTTP', path: '/healthz' } },
    ]);

    const states: string[] = [];
    for await (const { data } of socket.iterate({
      query: `subscription ($id: ID!) { deploymentProgress(id: $id) { status } }`,
      variables: { id },
    })) {
      states.push((data as { deploymentProgress: { status: string } }).deploymentProgress.status);
    }
    expect(states.at(-1)).toBe('SUCCEEDED');

    const logs = socket.iterate({
      query: `subscription ($tenant: String!) { logs(tenant: $tenant, app: "watched") { text } }`,
      variables: { tenant: tenant.slug },
    });
    await visit(p.edgePort, tenant.host('watched'), '/a-path-to-look-for');
    for await (const { data } of logs) {
      if ((data as { logs: { text: string } }).logs.text.includes('/a-path-to-look-for')) break;
    }
    await socket.dispose();
  });

  test('the command line signs in, deploys, shows, scales and follows', async () => {
    const server = p.apiUrl.replace('/graphql', '');
    const login = await cli(
      ['login', server, '--email', tenant.email, '--password-stdin'],
      `${tenant.password}\n`,
    );
    expect(login).toMatchObject({ code: 0 });

    expect((await cli(['apps', 'create', 'typed'])).code).toBe(0);
    const deploy = await cli(['deploy', '--app', 'typed', '--image', image]);
    expect(deploy).toMatchObject({ code: 0 });
    expect(deploy.out + deploy.err).toContain(tenant.host('typed'));

    expect((await cli(['scale', 'web=2', '--app', 'typed'])).code).toBe(0);
    const ps = await cli(['ps', '--app', 'typed', '--json']);
    const instances = JSON.parse(ps.out) as { state: string }[];
    expect(instances.filter(({ state }) => state === 'READY')).toHaveLength(2);

    const follower = spawn(process.execPath, [bulkhead, 'logs', '-f', '--app', 'typed'], {
      env: environment(),
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let followed = '';
    follower.stdout.on('data', (chunk: Buffer) => (followed += chunk.toString()));
    await until('the request is in the log', async () => {
      await visit(p.edgePort, tenant.host('typed'), '/seen-by-the-follower');
      return followed.includes('/seen-by-the-follower');
    });
    follower.kill('SIGINT');
  });

  test('a canary by the command line: it waits, is promoted, and one that ends goes back by itself', async () => {
    const canary = ['deploy', '--app', 'typed', '--image', image, '--strategy', 'canary'];
    const waits = await cli([...canary, '--steps', '50%']);
    expect(waits).toMatchObject({
      code: 0,
      out: expect.stringContaining(
        'typed v2 waits at step 1 of 1. Go on: bulkhead promote --app typed',
      ) as unknown,
    });
    const on = await cli(['promote', '--app', 'typed']);
    expect(on).toMatchObject({
      code: 0,
      out: expect.stringContaining('typed v2 is ready') as unknown,
    });

    // Serves well, and ends when it is asked to.
    const mortal =
      "node -e \"require('http').createServer((q, a) => { a.end(); if (q.url === '/end') process.exit(7) }).listen(8080)\"";
    const crash = cli([...canary, '--command', mortal, '--wait']);
    const failed = await until('it has ended', async () => {
      await visit(p.edgePort, tenant.host('typed'), '/end').catch(() => null);
      return Promise.race([crash, null]);
    });
    expect(failed.code).toBe(1);
    expect(failed.err).toContain('typed stays on v2');
    expect(failed.err).toContain('web crashed');
  });

  test('the command line says why a deploy failed, and its exit code tells it apart', async () => {
    expect((await cli(['apps', 'create', 'broken'])).code).toBe(0);
    const crashed = await cli([
      ...['deploy', '--app', 'broken', '--image', image],
      ...['--command', 'node -e "console.log(\'the last words\'); process.exit(7)"'],
    ]);
    expect(crashed.code).toBe(1);
    expect(crashed.out + crashed.err).toContain('the last words');

    expect((await cli(['apps', 'info', 'no-such-app'])).code).toBe(5);
    expect((await cli(['apps', 'create', 'broken'])).code).toBe(6);
    expect((await cli(['scale', 'web=500', '--app', 'broken'])).code).toBe(7);
    expect((await cli(['nodes', 'list'])).code).toBe(4);
  });
});
