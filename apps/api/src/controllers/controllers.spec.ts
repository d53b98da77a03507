import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../testing/eventually.ts';
import { Platform } from './testing/platform.ts';

let platform: Platform;

beforeAll(async () => {
  platform = await Platform.start({ nodes: 2 });
});
afterAll(async () => {
  await platform.stop();
});

const hostOf = (app: string) => `${app}.demo.localhost`;

describe('a deploy', () => {
  test('ends with a ready instance behind the edge, its config opened by its node only', async () => {
    await platform.run('app.create', (tx) => tx.apps.create({ name: 'first' }));
    await platform.run('config.set', (tx) =>
      tx.config.set({ app: 'first', vars: [{ name: 'GREETING', value: 'hello' }] }),
    );
    const ended = await platform.succeeded(await platform.deploy('first'));
    const [instance] = await platform.instances('first');
    expect(instance).toMatchObject({ state: 'ready', desired: 'running', process: 'web' });
    expect(platform.edge.backends(hostOf('first'))).toEqual([instance?.id]);
    const agent = platform.agents.find(({ id }) => id === instance?.nodeId);
    expect(agent?.instances.get(instance?.id ?? '')?.spec).toMatchObject({
      tenant: { slug: 'demo' },
      app: { name: 'first' },
      release: 1,
      port: 8080,
    });
    expect(await agent?.openEnv(instance?.id ?? '')).toEqual({ GREETING: 'hello' });
    const story = ended.events.map(({ message }) => message);
    expect(story).toContain(`instance ${instance?.id} is ready`);
    expect(story.at(-1)).toBe('v1 is live: 1 web ready');
    expect(new Set(story).size).toBe(story.length);
  });

  test("brings the tenant's CPU quota as its ceiling, and another one with what is deployed next", async () => {
    const limitsOf = async (app: string) => {
      const [instance] = await platform.instances(app);
      const agent = platform.agents.find(({ id }) => id === instance?.nodeId);
      return agent?.instances.get(instance?.id ?? '')?.spec.tenant.limits;
    };
    await platform.succeeded(await platform.deploy('ceiling'));
    const first = await limitsOf('ceiling');
    expect(first).toMatchObject({ cpuWeight: 100, cpuCapMillis: 4000 });
    const { id: tenantId } = await platform.sql((prisma) =>
      prisma.tenant.findUniqueOrThrow({ where: { slug: 'demo' } }),
    );
    const key = { tenantId, resource: 'cpuMillis' };
    await platform.sql((prisma) => prisma.quotaLimit.create({ data: { ...key, limit: 6000 } }));
    await platform.succeeded(await platform.deploy('ceiling-later'));
    const later = await limitsOf('ceiling-later');
    expect(later).toMatchObject({ cpuCapMillis: 6000 });
    expect(later?.asOf).toBeGreaterThan(first?.asOf ?? Infinity);
    await platform.sql((prisma) => prisma.quotaLimit.delete({ where: { tenantId_resource: key } }));
  });

  test('replaces what ran before, one at a time, and drops it only when drained', async () => {
    await platform.succeeded(
      await platform.deploy('rolling', 'hello:1', [{ name: 'web', count: 3, port: 8080 }]),
    );
    const before = (await platform.instances('rolling')).map(({ id }) => id);
    expect(before).toHaveLength(3);
    await platform.succeeded(await platform.deploy('rolling', 'hello:2'));
    await eventually(
      'the old ones are gone',
      async () => (await platform.instances('rolling')).length === 3,
    );
    const after = await platform.instances('rolling');
    expect(after.map(({ id }) => id).some((id) => before.includes(id))).toBe(false);
    expect(platform.edge.backends(hostOf('rolling'))).toEqual(after.map(({ id }) => id));
    const old = await platform.sql((prisma) =>
      prisma.instance.findMany({ where: { id: { in: before } } }),
    );
    expect(
      old.every(({ goneAt, drainRevision }) => goneAt !== null && drainRevision !== null),
    ).toBe(true);
  });

  test('tells the edges to ask each instance as its release says', async () => {
    const asked = () =>
      platform.edge.routes.get(hostOf('asked'))?.backends.map(({ http2 = false }) => http2);
    const web = { name: 'web', port: 8080 };
    await platform.succeeded(
      await platform.deploy('asked', 'hello:1', [{ ...web, protocol: 'http2' }]),
    );
    expect(asked()).toEqual([true]);
    await platform.succeeded(await platform.deploy('asked', 'hello:2'));
    expect(asked()).toEqual([true]);
    await platform.succeeded(
      await platform.deploy('asked', 'hello:2', [{ ...web, protocol: 'http1' }]),
    );
    expect(asked()).toEqual([false]);
  });

  test.each([
    ['image-not-found', 'IMAGE_NOT_FOUND'],
    ['crash', 'CRASHED'],
    ['never-listens', 'HEALTH_CHECK_FAILED'],
  ] as const)(
    'that fails (%s) goes back to the release before, which never stopped',
    async (fate, code) => {
      const app = `back-${fate}`;
      await platform.succeeded(await platform.deploy(app, 'hello:1'));
      const before = await platform.instances(app);
      platform.fate(`bad:${fate}`, fate);
      const failed = await platform.ended((await platform.deploy(app, `bad:${fate}`)).id);
      expect(failed).toMatchObject({ status: 'failed', failure: { code, process: 'web' } });
      await eventually(
        'only the old one is left',
        async () => (await platform.instances(app)).length === 1,
      );
      const [left] = await platform.instances(app);
      expect(left).toMatchObject({ id: before[0]?.id, state: 'ready', generation: 1 });
      expect(platform.edge.backends(hostOf(app))).toEqual([before[0]?.id]);
    },
  );

  test('a first one that fails leaves nothing running', async () => {
    platform.fate('bad:first', 'crash');
    const failed = await platform.ended((await platform.deploy('hopeless', 'bad:first')).id);
    expect(failed.failure).toMatchObject({
      code: 'CRASHED',
      exitCode: 3,
      lastLines: ['last words'],
    });
    await eventually(
      'nothing is left',
      async () => (await platform.instances('hopeless')).length === 0,
    );
    await eventually(
      'the route says so',
      () => platform.edge.routes.get(hostOf('hopeless'))?.state === 'crashed',
    );
    // The next attempt is like a first.
    await platform.succeeded(await platform.deploy('hopeless', 'hello:1'));
  });

  test('a later one takes over from one that hangs', async () => {
    await platform.succeeded(await platform.deploy('super', 'hello:1'));
    platform.fate('slow:1', 'hang');
    const slow = await platform.deploy('super', 'slow:1');
    await eventually('it pulls', async () =>
      (await platform.instances('super')).some(({ state }) => state === 'pulling'),
    );
    await platform.succeeded(await platform.deploy('super', 'hello:2'));
    expect((await platform.ended(slow.id)).status).toBe('superseded');
    await eventually('one is left', async () => (await platform.instances('super')).length === 1);
  });

  test('without room says what is missing', async () => {
    await platform.sql((prisma) => prisma.node.updateMany({ data: { cordoned: true } }));
    const app = await platform.deploy('no-room');
    await eventually(
      'it is refused',
      async () =>
        (await platform.instances('no-room'))[0]?.message ===
        'no room: no node can take it: 2 nodes are cordoned; it needs a node that is uncordoned',
    );
    await platform.sql((prisma) => prisma.node.updateMany({ data: { cordoned: false } }));
    await platform.succeeded(app);
  });
});

describe('life', () => {
  test('scale up spreads over nodes, scale down drains; stop, start and restart', async () => {
    await platform.succeeded(await platform.deploy('scaled'));
    const scale = (count: number) =>
      platform.run('app.scale', (tx) =>
        tx.deployments.scale({ app: 'scaled', formation: [{ process: 'web', count }] }),
      );
    await platform.succeeded(await scale(4));
    const nodes = (await platform.instances('scaled')).map(({ nodeId }) => nodeId).sort();
    expect(new Set(nodes).size).toBe(2);
    expect(nodes[1]).not.toBe(nodes[2]);
    expect(platform.edge.backends(hostOf('scaled'))).toHaveLength(4);
    await platform.succeeded(await scale(1));
    await eventually('one is left', async () => (await platform.instances('scaled')).length === 1);
    const [before] = await platform.instances('scaled');
    await platform.succeeded(
      await platform.run('app.restart', (tx) => tx.deployments.restart('scaled')),
    );
    expect(
      (await platform.instances('scaled')).find(({ desired }) => desired === 'running')?.id,
    ).not.toBe(before?.id);
    await platform.succeeded(await platform.run('app.stop', (tx) => tx.deployments.stop('scaled')));
    expect(await platform.instances('scaled')).toEqual([]);
    expect(platform.edge.routes.get(hostOf('scaled'))?.state).toBe('stopped');
    await platform.succeeded(
      await platform.run('app.start', (tx) => tx.deployments.start('scaled')),
    );
    expect(platform.edge.backends(hostOf('scaled'))).toHaveLength(1);
  });

  test('an instance that crashes leaves the route and comes back; one that vanishes is replaced', async () => {
    await platform.succeeded(await platform.deploy('crashy'));
    const [instance] = await platform.instances('crashy');
    const agent = platform.agents.find(({ id }) => id === instance?.nodeId);
    await agent?.crash(instance?.id ?? '');
    await eventually(
      'it is ready again',
      async () => (await platform.instances('crashy'))[0]?.restarts === 1,
    );
    agent?.instances.delete(instance?.id ?? '');
    await agent?.report(instance?.id ?? '', 'gone');
    await eventually('another serves', () => {
      const [backend] = platform.edge.backends(hostOf('crashy'));
      return backend !== undefined && backend !== instance?.id;
    });
  });

  test('destroy leaves nothing, and gives the quota back', async () => {
    const before = { apps: await platform.used('apps'), memory: await platform.used('memoryMiB') };
    await platform.succeeded(
      await platform.deploy('doomed', 'hello:1', [
        { name: 'web', count: 2, port: 8080 },
        { name: 'worker', port: null, count: 1 },
      ]),
    );
    expect(await platform.used('memoryMiB')).toBeGreaterThan(before.memory);
    await platform.run('app.destroy', (tx) => tx.apps.destroy('doomed'));
    await eventually('the app is gone', async () => {
      const left = await platform.sql((prisma) => prisma.app.count({ where: { name: 'doomed' } }));
      return left === 0;
    });
    expect(platform.edge.routes.has(hostOf('doomed'))).toBe(false);
    expect(await platform.used('apps')).toBe(before.apps);
    expect(await platform.used('memoryMiB')).toBe(before.memory);
    for (const agent of platform.agents) {
      expect([...agent.instances.values()].some(({ spec }) => spec.app.name === 'doomed')).toBe(
        false,
      );
    }
    // The name is free again, and edges that knew the old route take the new one.
    await platform.succeeded(await platform.deploy('doomed'));
    expect(platform.edge.backends(hostOf('doomed'))).toHaveLength(1);
  });
});

test('no loop met an error', () => {
  expect(platform.replicas.flatMap(({ errors }) => errors)).toEqual([]);
});
