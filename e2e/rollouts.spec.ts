import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { load, visit } from './support/client.ts';
import { platform, type Platform } from './support/platform.ts';
import { TenantFixture } from './support/tenant.ts';
import { until } from './support/until.ts';

// One app under one load from the first test to the last; a request that fails fails the last.
describe('every way from one release to the next, under load', () => {
  let p: Platform;
  let tenant: TenantFixture;
  let image: string;
  let traffic: ReturnType<typeof load>;
  const bodies: string[] = [];
  const app = 'roll';

  beforeAll(async () => {
    p = await platform();
    tenant = await TenantFixture.create(p.apiUrl);
    image = await p.push(tenant, 'hello', 'hello:1');
    await tenant.createApp(app);
    await tenant.succeeded(await tenant.deploy(app, image, [web(4)]));
    await until('the app answers', async () => (await answer()).release === 'v1');
    const seen = (body: string) => void bodies.push(body);
    traffic = load(p.edgePort, tenant.host(app), '/info', { seen });
  });
  afterAll(async () => {
    await traffic.stop();
    await p.release();
  });

  const answer = async () =>
    JSON.parse((await visit(p.edgePort, tenant.host(app), '/info')).body) as {
      instance: string;
      release: string;
      greeting: string;
    };
  const deploy = async (strategy: object): Promise<string> => {
    const { deploy } = await tenant.api.ask(
      'mutation ($input: DeployInput!) { deploy(input: $input) { id } }',
      { input: { tenant: tenant.slug, app, image, strategy } },
    );
    return deploy.id;
  };
  const restart = async (name: string, strategy: object): Promise<string> => {
    const { restart } = await tenant.api.ask(
      'mutation ($input: AppInput!, $strategy: StrategyInput) { restart(input: $input, strategy: $strategy) { id } }',
      { input: { tenant: tenant.slug, app: name }, strategy },
    );
    return restart.id;
  };
  const word = (field: 'promote' | 'abort', more: object = {}) =>
    tenant.api.ask(
      `mutation ($input: ${field === 'promote' ? 'Promote' : 'Abort'}Input!) { ${field}(input: $input) { id } }`,
      { input: { tenant: tenant.slug, app, ...more } },
    );
  const atGate = (id: string, step: number) =>
    until(`it stands at gate ${step}`, async () => {
      const { deployment } = await tenant.api.ask(
        'query ($id: ID!) { deployment(id: $id) { status failure { message } pause { step } } }',
        { id },
      );
      if (deployment.failure) throw new Error(deployment.failure.message);
      return deployment.pause?.step === step;
    });
  /** The part of the load that each release answers from now on, in percent. */
  const parts = async () => {
    // Requests that were under way when we began to look were sent by the table of before.
    const from = bodies.length + 8;
    const answers = await until('enough answers', () => {
      const fresh = bodies.slice(from);
      return fresh.length >= 400 ? fresh : null;
    });
    const counts: Record<string, number> = {};
    for (const body of answers) {
      const { release } = JSON.parse(body) as { release: string };
      counts[release] = (counts[release] ?? 0) + 100 / answers.length;
    }
    return Object.fromEntries(Object.entries(counts).map(([r, part]) => [r, Math.round(part)]));
  };
  const releases = async () =>
    [...new Set((await tenant.serving(app)).map((each) => each.release))].sort();
  const only = (release: number) =>
    until(`only v${release} is there`, async () => (await releases()).join() === String(release));

  test('a canary gets its part of the requests, and all of them when it is promoted', async () => {
    const id = await deploy({ kind: 'CANARY', steps: [{ share: '25%' }, { share: '50%' }] });
    await atGate(id, 1);
    const first = await parts();
    expect(Math.abs((first['v2'] ?? 0) - 25)).toBeLessThanOrEqual(2);
    // Twice: as a client does that got no answer.
    await word('promote', { deployment: id, step: 1 });
    await word('promote', { deployment: id, step: 1 });
    await atGate(id, 2);
    expect(Math.abs(((await parts())['v2'] ?? 0) - 50)).toBeLessThanOrEqual(2);
    await word('promote', { deployment: id, step: 2 });
    // Whoever takes over finds in the database how far it is.
    await p.kill('api');
    await until('it has succeeded', async () => {
      await tenant.succeeded(id);
      return true;
    });
    expect(await parts()).toEqual({ v2: 100 });
  });

  test('an aborted canary leaves nothing behind', async () => {
    const id = await deploy({ kind: 'CANARY', steps: [{ share: '50%' }] });
    await atGate(id, 1);
    await word('abort', { deployment: id });
    expect((await tenant.finished(id)).failure).toMatchObject({
      code: 'ABORTED',
      message: `aborted by ${tenant.email}`,
    });
    await only(2);
    expect(await tenant.serving(app)).toHaveLength(4);
  });

  test('blue-green: no request before the change-over, all after it, and back at once', async () => {
    const id = await deploy({ kind: 'BLUE_GREEN', manual: true, keepOldSeconds: 600 });
    await atGate(id, 1);
    expect(await parts()).toEqual({ v2: 100 });
    await word('promote', { deployment: id, step: 1 });
    await atGate(id, 2);
    expect(await parts()).toEqual({ v4: 100 });
    const there = (await tenant.serving(app)).map((each) => each.id);
    await word('abort', { deployment: id });
    await until('v2 answers again', async () => (await answer()).release === 'v2');
    await only(2);
    // What answers now had been there all the time.
    const now = (await tenant.serving(app)).map((each) => each.id);
    expect(now.filter((each) => !there.includes(each))).toEqual([]);
  });

  test('blue-green by itself, for a change of config', async () => {
    const { setConfig } = await tenant.api.ask(
      'mutation ($input: SetConfigInput!) { setConfig(input: $input) { deployment { id } } }',
      {
        input: {
          ...{ tenant: tenant.slug, app, vars: [{ name: 'GREETING', value: 'two' }] },
          strategy: { kind: 'BLUE_GREEN', manual: false, keepOldSeconds: 1 },
        },
      },
    );
    await tenant.succeeded(setConfig.deployment.id);
    expect((await answer()).greeting).toBe('two');
  });

  test('scale up and down, restart with fewer, rollback', async () => {
    await tenant.succeeded(await tenant.scale(app, 'web', 6));
    await tenant.succeeded(await tenant.scale(app, 'web', 2));
    await tenant.succeeded(
      await restart(app, { kind: 'ROLLING', maxSurge: '0', maxUnavailable: '1' }),
    );
    await tenant.succeeded(await tenant.rollback(app, 1));
    expect((await answer()).greeting).not.toBe('two');
  });

  test('and not one request failed', async () => {
    const { requests, failures } = await traffic.stop();
    expect(failures).toEqual([]);
    expect(requests).toBeGreaterThan(1000);
  });

  test('a WebSocket stays with its instance while that is drained; new ones go to the new', async () => {
    await tenant.createApp('chat');
    const process = { name: 'web', port: 8080, memoryMiB: 96, command: ['node', '-e', chat] };
    await tenant.succeeded(await tenant.deploy('chat', image, [process]));
    let held = await until('it answers', () => open(p.edgePort, tenant.host('chat')));
    for (const strategy of [
      { kind: 'ROLLING' },
      { kind: 'CANARY', steps: [{ share: '50%', pauseSeconds: 0 }] },
      { kind: 'BLUE_GREEN', keepOldSeconds: 0 },
    ]) {
      const old = await held.ask();
      const id = await restart('chat', strategy);
      const next = await until('a new connection finds another instance', async () => {
        const other = await open(p.edgePort, tenant.host('chat'));
        if ((await other.ask()) !== old) return other;
        other.close();
        return null;
      });
      expect(await held.ask()).toBe(old);
      // Its drain is over as soon as the last connection is.
      held.close();
      await tenant.succeeded(id);
      await until('the old one is gone', async () =>
        (await tenant.instances('chat')).every((each) => each.id !== old),
      );
      held = next;
    }
    held.close();
  });
});

function web(count: number) {
  const healthCheck = { kind: 'HTTP', path: '/healthz', intervalSeconds: 0.5 };
  return { name: 'web', count, port: 8080, memoryMiB: 96, healthCheck };
}

/** Answers each message with the instance's name. */
const chat = `
const { createHash } = require('node:crypto');
const name = Buffer.from(process.env.BULKHEAD_INSTANCE);
require('node:http').createServer((_, response) => response.end()).on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accept = createHash('sha1').update(key).digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' + accept + '\\r\\n\\r\\n');
  socket.on('error', () => {});
  socket.on('data', (frame) => {
    if ((frame[0] & 15) === 8) socket.end(Buffer.from([0x88, 0]));
    else socket.write(Buffer.concat([Buffer.from([0x81, name.length]), name]));
  });
}).listen(process.env.PORT);
process.on('SIGTERM', () => process.exit(0));
`;

/** A WebSocket through the edge. */
function open(port: number, host: string): Promise<{ ask(): Promise<string>; close(): void }> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { host } });
    socket.on('error', reject);
    socket.on('open', () =>
      resolve({
        close: () => socket.close(),
        ask: () =>
          new Promise((answered, lost) => {
            socket.once('message', (data: Buffer) => answered(data.toString()));
            socket.once('close', (code) => lost(new Error(`closed with ${code}`)));
            socket.send('who are you?');
          }),
      }),
    );
  });
}
