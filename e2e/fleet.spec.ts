import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPlatform, stopPlatform } from '../deploy/platform.ts';
import { load, visit } from './support/client.ts';
import { Host, controlAddress, makeBridge, removeBridge } from './support/hosts.ts';
import { e2eOptions, Platform } from './support/platform.ts';
import { TenantFixture } from './support/tenant.ts';
import { until } from './support/until.ts';

const options = {
  ...e2eOptions,
  stateDir: '/tmp/bulkhead-e2e-fleet',
  portBase: 16_200,
  apiReplicas: 2,
  edges: 2,
  listen: controlAddress,
  node: {
    ...{ cgroup: 'bhe2ef', nftTable: 'bhe2ef', vethPrefix: 'bhf', network: '10.204.0.0/16' },
    ...{ idBase: 3_221_225_472, diskPoolMiB: 4096 },
  },
};

interface NodeView {
  id: string;
  name: string;
  state: string;
  network: string;
  instances: { nodes: { id: string; app: string }[] };
}

// Silence is believed after 30 s, so each scenario that needs a host to be lost takes that long.
describe('three hosts', () => {
  const write = () => undefined;
  const hosts = [new Host(2, options.portBase), new Host(3, options.portBase)] as const;
  const [second, third] = hosts;
  let p: Platform;
  let tenant: TenantFixture;
  let image: string;

  beforeAll(async () => {
    await stopPlatform({ root: options.root, stateDir: options.stateDir, purge: true, write });
    for (const host of hosts) await host.destroy();
    await makeBridge();
    await startPlatform({ ...options, write });
    p = await Platform.connect(options);
    tenant = await TenantFixture.create(p.apiUrl);
    image = await p.push(tenant, 'hello', 'hello:1');
  });
  afterAll(async () => {
    await p?.release();
    for (const host of hosts) await host.destroy();
    await stopPlatform({ root: options.root, stateDir: options.stateDir, purge: true, write });
    await removeBridge();
  });

  const ask = (query: string, variables = {}) => p.operator.ask(query, variables);
  const nodes = async (): Promise<NodeView[]> =>
    (
      await ask(`{ nodes(first: 10) { nodes { id name state network
        instances(first: 100) { nodes { id app } } } } }`)
    ).nodes.nodes;
  const node = async (name: string) => (await nodes()).find((each) => each.name === name)!;
  const stateOf = (name: string, state: string, timeoutMs?: number) =>
    until(`${name} is ${state}`, async () => (await node(name)).state === state, timeoutMs);
  const token = async (): Promise<string> =>
    (await ask('mutation { createJoinToken(input: { ttlMinutes: 5 }) { secret } }')).createJoinToken
      .secret;
  const change = (mutation: string, name: string) =>
    ask(`mutation ($node: String!) { ${mutation}(input: { node: $node }) { id } }`, { node: name });
  const deploy = async (app: string, count: number) => {
    await tenant.createApp(app);
    const healthCheck = { kind: 'HTTP', path: '/healthz', intervalSeconds: 1 };
    await tenant.succeeded(
      await tenant.deploy(app, image, [
        { name: 'web', port: 8080, memoryMiB: 64, count, healthCheck },
      ]),
    );
  };
  const answers = async (app: string) => (await visit(p.edgePort, tenant.host(app))).status === 200;

  /** What should run on each further host does, and nothing else; no instance is on two. */
  const holds = () =>
    until('what runs is what should', async () => {
      const wanted = await nodes();
      const all = wanted.flatMap(({ instances }) => instances.nodes.map(({ id }) => id));
      if (new Set(all).size !== all.length) return false;
      return hosts.every((host) => {
        const known = wanted.find(({ name }) => name === host.name);
        const ids = known?.instances.nodes.map(({ id }) => id).sort() ?? [];
        return JSON.stringify(host.running()) === JSON.stringify(ids);
      });
    });
  /** The ledger has what the instances that are not gone take. */
  const accounted = (instances: number) =>
    until('the ledger agrees', async () => (await tenant.quota())['instances'] === instances);

  test('join by tokens, each good once', async () => {
    await Promise.all(hosts.map((host) => host.make()));
    const first = await token();
    await Promise.all([
      second.join(first, '--name', second.name),
      third.join(await token(), '--name', third.name),
    ]);
    for (const { name } of hosts) await stateOf(name, 'READY');
    const networks = (await nodes()).map(({ network }) => network);
    expect(new Set(networks).size).toBe(3);
    expect(networks).not.toContain(null);
    await expect(third.join(first)).rejects.toThrow('is a node already');
  });

  test('let nobody in without a certificate, and nowhere but where nodes belong', async () => {
    const { nats, registry, api, join } = {
      ...{ nats: options.portBase + 3, registry: options.portBase + 2 },
      ...{ api: options.portBase, join: options.portBase + 8 },
    };
    const curl = (...args: string[]) =>
      third
        .run('curl', '-sk', '-m', '3', '-o', '/dev/null', '-w', '%{http_code}', ...args)
        .catch(() => 'refused');
    const url = (port: number, path: string) => `https://${controlAddress}:${port}${path}`;
    for (const port of [nats, registry, api]) expect(await curl(url(port, '/v2/'))).toBe('refused');
    expect(await curl(url(join, '/graphql'))).toBe('403');
    expect(await curl('-X', 'POST', '-d', '{}', url(join, '/fleet/join'))).toMatch(/^4/);
    const tls = '/tmp/bulkhead-e2e-host-3/node/tls';
    const mine = ['--cert', `${tls}/cert.pem`, '--key', `${tls}/key.pem`];
    expect(await curl(...mine, url(registry, '/v2/'))).toBe('401');
    expect(await curl(...mine, '-X', 'POST', url(registry, '/v2/a/b/blobs/uploads/'))).toBe('403');
    expect(await curl(...mine, url(api, '/graphql'))).toBe('403');
  });

  test('an app is spread over them and answers from each; only the edge comes in', async () => {
    await deploy('spread', 3);
    const perNode = (await nodes()).map(({ instances }) => instances.nodes.length);
    expect(perNode).toEqual([1, 1, 1]);
    const traffic = load(p.edgePort, tenant.host('spread'));
    await delay(1_000);
    expect((await traffic.stop()).failures).toEqual([]);
    await holds();

    const route = ['route', 'add', (await node(second.name)).network, 'via', second.address];
    await third.run('ip', ...route);
    const [address] = /10\.\d+\.\d+\.\d+(?= dev bh2-)/.exec(await second.run('ip', 'route')) ?? [];
    const reach = ['curl', '-s', '-m', '2', `http://${address}:8080/healthz`] as const;
    await expect(third.run(...reach)).rejects.toThrow();
    await third.run('ip', 'route', 'del', ...route.slice(2));
  });

  test('a drain and a restart lose no request', async () => {
    await deploy('single', 1);
    const traffic = load(p.edgePort, tenant.host('single'));
    for (const host of hosts) {
      await change('drainNode', host.name);
      await until(`${host.name} is empty`, async () =>
        (await node(host.name)).instances.nodes.length === 0 ? true : null,
      );
      await change('uncordonNode', host.name);
    }
    await tenant.succeeded(await tenant.restart('single'));
    const { failures, requests } = await traffic.stop();
    expect(failures).toEqual([]);
    expect(requests).toBeGreaterThan(50);
    await tenant.succeeded(await tenant.restart('spread'));
    await holds();
    await accounted(4);
  });

  test('a host that is cut off is replaced, and drops what is no longer its own when it is back', async () => {
    await until(
      'it has something',
      async () => (await node(second.name)).instances.nodes.length > 0,
    );
    const before = second.running();
    await second.plug(false);
    await stateOf(second.name, 'LOST', 90_000);
    const believed = Date.now();
    await until('all serve elsewhere', async () => {
      const others = (await nodes()).filter(({ name }) => name !== second.name);
      const ready = await Promise.all(['spread', 'single'].map((app) => tenant.serving(app)));
      return (
        others.flatMap(({ instances }) => instances.nodes).length >= 4 &&
        ready.flat().every(({ state }) => state === 'READY') &&
        ready.flat().length === 4
      );
    });
    console.log(`serving elsewhere ${Date.now() - believed} ms after the host was believed lost`);
    const traffic = load(p.edgePort, tenant.host('spread'));
    // They live on there, and nobody knows.
    expect(second.running()).toEqual(before);
    await second.plug(true);
    await stateOf(second.name, 'READY');
    // Until it has heard of it, what runs there is what it is still said to hold.
    await until('it has dropped them', () => !second.running().some((id) => before.includes(id)));
    await holds();
    expect((await traffic.stop()).failures).toEqual([]);
    await accounted(4);
  });

  test('when all others fall silent at once, nothing is moved, nor when they come back one by one', async () => {
    await tenant.succeeded(await tenant.restart('spread'));
    // What was replaced is gone.
    await accounted(4);
    await holds();
    const places = async () => (await nodes()).map(({ instances }) => instances);
    const before = await places();
    for (const host of hosts) await host.plug(false);
    for (const { name } of hosts) await stateOf(name, 'SUSPECT');
    // As long again as a host that falls silent alone is given.
    await delay(30_000);
    expect((await nodes()).map(({ state }) => state)).not.toContain('LOST');
    expect(await places()).toEqual(before);
    await second.plug(true);
    await stateOf(second.name, 'READY');
    // Long enough for the one that is still silent to be judged some times.
    await delay(5_000);
    await third.plug(true);
    await stateOf(third.name, 'READY');
    await holds();
    expect(await places()).toEqual(before);
  });

  test('a host that loses power comes back with what it should run', async () => {
    const wanted = (await node(third.name)).instances.nodes.map(({ id }) => id).sort();
    await third.powerOff();
    expect(third.running()).toEqual([]);
    await third.plug(true);
    await third.join();
    await holds();
    expect((await node(third.name)).instances.nodes.map(({ id }) => id).sort()).toEqual(wanted);
    await until('the app answers', () => answers('spread'));
  });

  test('a node that is removed is shut out at once, and its instances run elsewhere', async () => {
    const remove = (force: boolean) =>
      ask(
        'mutation ($node: String!, $force: Boolean) { removeNode(input: { node: $node, force: $force }) }',
        {
          node: third.name,
          force,
        },
      );
    await until(
      'it has something',
      async () => (await node(third.name)).instances.nodes.length > 0,
    );
    await expect(remove(false)).rejects.toMatchObject({ code: 'CONFLICT' });
    await remove(true);
    expect((await nodes()).map(({ name }) => name)).not.toContain(third.name);
    await until('the spread app is whole', async () => {
      const serving = await tenant.serving('spread');
      return serving.length === 3 && serving.every(({ state }) => state === 'READY');
    });
    await until('its connection is cut', async () => {
      const health = JSON.parse(
        await third.run('curl', '-s', `http://127.0.0.1:${options.portBase + 5}/healthz`),
      ) as { nats: string };
      return health.nats === 'away';
    });
    await until('it answers', () => answers('spread'));
    await accounted(4);
  });
});
