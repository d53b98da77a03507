import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { controlPlaneFaults } from './fleet/control-plane.ts';
import { Fleet, fleetOptions } from './support/fleet.ts';
import { controlAddress } from './support/hosts.ts';
import { until } from './support/until.ts';

// Silence is believed after 30 s, so each scenario that needs a host to be lost takes that long.
describe('three hosts, two replicas of the API, two edges', () => {
  const fleet = new Fleet();
  const { hosts, second, third } = fleet;

  beforeAll(() => fleet.start());
  afterAll(() => fleet.stop());

  /** Ends the load; none of its requests may have failed, through whichever edge. */
  async function expectNoFailure(traffic: ReturnType<Fleet['traffic']>): Promise<void> {
    for (const { failures, requests } of await traffic.stop()) {
      expect(failures).toEqual([]);
      expect(requests).toBeGreaterThan(20);
    }
  }

  test('join by tokens, each good once', async () => {
    await Promise.all(hosts.map((host) => host.make()));
    const first = await fleet.token();
    await Promise.all([
      second.join(first, '--name', second.name),
      third.join(await fleet.token(), '--name', third.name),
    ]);
    for (const { name } of hosts) await fleet.stateOf(name, 'READY');
    const networks = (await fleet.nodes()).map(({ network }) => network);
    expect(new Set(networks).size).toBe(3);
    expect(networks).not.toContain(null);
    await expect(third.join(first)).rejects.toThrow('is a node already');
  });

  test('let nobody in without a certificate, and nowhere but where nodes belong', async () => {
    const { nats, registry, api, join } = {
      ...{ nats: fleetOptions.portBase + 3, registry: fleetOptions.portBase + 2 },
      ...{ api: fleetOptions.portBase, join: fleetOptions.portBase + 8 },
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
    await fleet.deploy('spread', 3);
    const perNode = (await fleet.nodes()).map(({ instances }) => instances.nodes.length);
    expect(perNode).toEqual([1, 1, 1]);
    const traffic = fleet.traffic('spread');
    await delay(1_000);
    await expectNoFailure(traffic);
    await fleet.sound();

    const route = ['route', 'add', (await fleet.node(second.name)).network, 'via', second.address];
    await third.run('ip', ...route);
    const [address] = /10\.\d+\.\d+\.\d+(?= dev bh2-)/.exec(await second.run('ip', 'route')) ?? [];
    const reach = ['curl', '-s', '-m', '2', `http://${address}:8080/healthz`] as const;
    await expect(third.run(...reach)).rejects.toThrow();
    await third.run('ip', 'route', 'del', ...route.slice(2));
  });

  test('a drain and a restart lose no request', async () => {
    await fleet.deploy('single', 1);
    const traffic = fleet.traffic('single');
    for (const host of hosts) {
      await fleet.change('drainNode', host.name);
      await until(`${host.name} is empty`, async () =>
        (await fleet.node(host.name)).instances.nodes.length === 0 ? true : null,
      );
      await fleet.change('uncordonNode', host.name);
    }
    await fleet.tenant.succeeded(await fleet.tenant.restart('single'));
    await expectNoFailure(traffic);
    await fleet.tenant.succeeded(await fleet.tenant.restart('spread'));
    await fleet.sound();
  });

  test('small apps are packed on one host, though there is room on three', async () => {
    const apps = ['small-1', 'small-2', 'small-3', 'small-4'];
    await Promise.all(apps.map((app) => fleet.deploy(app, 1)));
    const holding = (await fleet.nodes()).filter(({ instances }) =>
      instances.nodes.some(({ app }) => apps.includes(app)),
    );
    expect(holding.map(({ name }) => name)).toHaveLength(1);
    await fleet.sound();
    await Promise.all(apps.map((app) => fleet.destroy(app)));
    await fleet.sound();
  });

  test('a bad release on several hosts is rolled back by itself', async () => {
    const before = await fleet.tenant.serving('spread');
    const traffic = fleet.traffic('spread');
    const command = ['node', '-e', 'console.log("bad day"); process.exit(3)'];
    const verdict = await fleet.tenant.finished(await fleet.release('spread', { command }));
    expect(verdict).toMatchObject({
      status: 'FAILED',
      failure: { code: 'CRASHED', exitCode: 3, lastLines: expect.arrayContaining(['bad day']) },
    });
    await fleet.sound();
    await expectNoFailure(traffic);
    const names = (instances: typeof before) => instances.map(({ id }) => id).sort();
    expect(names(await fleet.tenant.serving('spread'))).toEqual(names(before));
  });

  controlPlaneFaults(fleet);

  test('a host that is cut off is replaced, and drops what is no longer its own when it is back', async () => {
    await until(
      'it has something',
      async () => (await fleet.node(second.name)).instances.nodes.length > 0,
    );
    const before = second.running();
    await second.plug(false);
    await fleet.stateOf(second.name, 'LOST', 90_000);
    const believed = Date.now();
    await until('all serve elsewhere', async () => {
      const others = (await fleet.nodes()).filter(({ name }) => name !== second.name);
      const ready = await Promise.all(['spread', 'single'].map((app) => fleet.tenant.serving(app)));
      return (
        others.flatMap(({ instances }) => instances.nodes).length >= 4 &&
        ready.flat().every(({ state }) => state === 'READY') &&
        ready.flat().length === 4
      );
    });
    console.log(`serving elsewhere ${Date.now() - believed} ms after the host was believed lost`);
    const traffic = fleet.traffic('spread');
    // They live on there, and nobody knows.
    expect(second.running()).toEqual(before);
    await second.plug(true);
    await fleet.stateOf(second.name, 'READY');
    // Until it has heard of it, what runs there is what it is still said to hold.
    await until('it has dropped them', () => !second.running().some((id) => before.includes(id)));
    await fleet.sound();
    await expectNoFailure(traffic);
  });

  test('when all others fall silent at once, nothing is moved, nor when they come back one by one', async () => {
    await fleet.tenant.succeeded(await fleet.tenant.restart('spread'));
    // What was replaced is gone.
    await fleet.sound();
    const places = async () => (await fleet.nodes()).map(({ instances }) => instances);
    const before = await places();
    for (const host of hosts) await host.plug(false);
    for (const { name } of hosts) await fleet.stateOf(name, 'SUSPECT');
    // As long again as a host that falls silent alone is given.
    await delay(30_000);
    expect((await fleet.nodes()).map(({ state }) => state)).not.toContain('LOST');
    expect(await places()).toEqual(before);
    await second.plug(true);
    await fleet.stateOf(second.name, 'READY');
    // Long enough for the one that is still silent to be judged some times.
    await delay(5_000);
    await third.plug(true);
    await fleet.stateOf(third.name, 'READY');
    await fleet.sound();
    expect(await places()).toEqual(before);
  });

  test('a host that loses power comes back with what it should run', async () => {
    const wanted = (await fleet.node(third.name)).instances.nodes.map(({ id }) => id).sort();
    await third.powerOff();
    expect(third.running()).toEqual([]);
    await third.plug(true);
    await third.join();
    await fleet.sound();
    expect((await fleet.node(third.name)).instances.nodes.map(({ id }) => id).sort()).toEqual(
      wanted,
    );
  });

  test('a node that is removed is shut out at once, and its instances run elsewhere', async () => {
    const remove = (force: boolean) =>
      fleet.ask(
        'mutation ($node: String!, $force: Boolean) { removeNode(input: { node: $node, force: $force }) }',
        {
          node: third.name,
          force,
        },
      );
    await until(
      'it has something',
      async () => (await fleet.node(third.name)).instances.nodes.length > 0,
    );
    await expect(remove(false)).rejects.toMatchObject({ code: 'CONFLICT' });
    await remove(true);
    expect((await fleet.nodes()).map(({ name }) => name)).not.toContain(third.name);
    await until('the spread app is whole', async () => {
      const serving = await fleet.tenant.serving('spread');
      return serving.length === 3 && serving.every(({ state }) => state === 'READY');
    });
    await until('its connection is cut', async () => {
      const health = JSON.parse(
        await third.run('curl', '-s', `http://127.0.0.1:${fleetOptions.portBase + 5}/healthz`),
      ) as { nats: string };
      return health.nats === 'away';
    });
    await fleet.sound();
  });
});
