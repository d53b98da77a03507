/** Canary and blue-green, with real controllers, PostgreSQL and NATS, and agents that pretend. */
import type { StrategyRequest } from '@bulkhead/tenancy';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../testing/eventually.ts';
import { Platform } from './testing/platform.ts';

let platform: Platform;
beforeAll(async () => {
  platform = await Platform.start({ nodes: 3, edges: 2, replicas: 2 });
  await limit(200);
});
afterAll(() => platform.stop());

/** How many instances the tenant may have. */
const limit = (instances: number) =>
  platform.sql(async (prisma) => {
    const { id: tenantId } = await prisma.tenant.findUniqueOrThrow({ where: { slug: 'demo' } });
    const resource = 'instances';
    await prisma.quotaLimit.upsert({
      where: { tenantId_resource: { tenantId, resource } },
      create: { tenantId, resource, limit: instances },
      update: { limit: instances },
    });
  });
const canary: StrategyRequest = { kind: 'canary', steps: [{ share: '25%' }, { share: '50%' }] };
const blueGreen: StrategyRequest = { kind: 'blue-green', manual: true, keepOldSeconds: 600 };
const web = (count: number) => [
  { name: 'web', count, port: 8080, memoryMiB: 16, cpuMillis: 10, diskMiB: 16 },
];
const hostOf = (app: string) => `${app}.demo.localhost`;
const promote = (app: string, more: { step?: number; full?: boolean } = {}) =>
  platform.run('app.promote', (tx) => tx.gates.promote({ app, ...more }));
const abort = (app: string, deployment?: string) =>
  platform.run('app.abort', (tx) =>
    tx.gates.abort({ app, ...(deployment !== undefined && { deployment }) }),
  );
const deployment = (id: string) => platform.run('app.read', (tx) => tx.deployments.get(id));

/** How many instances that should run there are of each release, and how many of those are ready. */
async function releases(app: string) {
  const rows = await platform.sql((prisma) =>
    prisma.instance.findMany({
      where: { app: { name: app }, goneAt: null, desired: 'running' },
      include: { release: true },
      orderBy: { release: { version: 'asc' } },
    }),
  );
  const counts: Record<string, number> = {};
  for (const { state, release } of rows) {
    const key = state === 'ready' ? `v${release.version}` : `v${release.version} ${state}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

/** The part of the requests that each release gets, in percent. */
async function traffic(app: string) {
  const backends = platform.edge.routes.get(hostOf(app))?.backends ?? [];
  const total = backends.reduce((sum, { weight = 1 }) => sum + weight, 0);
  const rows = await platform.sql((prisma) =>
    prisma.instance.findMany({
      where: { id: { in: backends.map(({ instance }) => instance) } },
      include: { release: true },
    }),
  );
  const parts: Record<string, number> = {};
  for (const { instance, weight = 1 } of backends) {
    const version = rows.find(({ id }) => id === instance)?.release.version ?? 0;
    parts[`v${version}`] = (parts[`v${version}`] ?? 0) + weight / total;
  }
  return Object.fromEntries(Object.entries(parts).map(([v, part]) => [v, Math.round(part * 100)]));
}

const atGate = (id: string, step: number) =>
  eventually(`deployment ${id} stands at gate ${step}`, async () => {
    const view = await deployment(id);
    if (view.status !== 'running') throw new Error(JSON.stringify(view));
    return view.pause?.step === step ? view : null;
  });
const become = (app: string, wanted: Record<string, number>) =>
  eventually(`${app} is ${JSON.stringify(wanted)}`, async () => {
    const now = await releases(app);
    return JSON.stringify(now) === JSON.stringify(wanted) ? now : null;
  });

/** An app with four instances of v1, and v2 at its first gate. */
async function atFirstGate(app: string, strategy: StrategyRequest) {
  await platform.succeeded(await platform.deploy(app, 'hello:1', web(4)));
  const { id } = await platform.deploy(app, 'hello:2', undefined, strategy);
  await atGate(id, 1);
  return id;
}

describe('canary', () => {
  test('goes from gate to gate, each promoted once however often one asks', async () => {
    const before = await platform.used('instances');
    const id = await atFirstGate('steps', canary);
    // A quarter beside all of the old, since the surge has room for it; at the tenant's cost.
    expect(await releases('steps')).toEqual({ v1: 4, v2: 1 });
    expect(await traffic('steps')).toEqual({ v1: 75, v2: 25 });
    expect(await platform.used('instances')).toBe(before + 5);

    await Promise.all([1, 2, 3].map(() => promote('steps', { step: 1 })));
    await atGate(id, 2);
    expect(await releases('steps')).toEqual({ v1: 3, v2: 2 });
    expect(await traffic('steps')).toEqual({ v1: 50, v2: 50 });
    expect((await promote('steps', { step: 1 })).step).toBe(1);

    await promote('steps', { step: 2 });
    const { events } = await platform.ended(id);
    expect(await releases('steps')).toEqual({ v2: 4 });
    expect(events.map(({ message }) => message).filter((m) => m.startsWith('step'))).toEqual([
      'step 1 of 2: v2 has 1 of 4 web, 25 % of the requests; it waits to be promoted',
      'step 2 of 2: v2 has 2 of 4 web, 50 % of the requests; it waits to be promoted',
    ]);
    await eventually('the reservation is given back', async () =>
      (await platform.used('instances')) === before + 4 ? true : null,
    );
    await expect(promote('steps')).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('has succeeded') as unknown,
    });
    // The app has it as its default now; a restart goes without a stop all the same.
    await platform.succeeded(
      await platform.run('app.restart', (tx) => tx.deployments.restart('steps')),
    );
  });

  test('aborted it goes back, and says who wanted it', async () => {
    const id = await atFirstGate('abort', canary);
    await abort('abort');
    expect(await abort('abort', id)).toMatchObject({
      status: 'failed',
      failure: { code: 'ABORTED', message: 'aborted by ada@example.org' },
    });
    await become('abort', { v1: 4 });
    await expect(abort('abort')).rejects.toMatchObject({ code: 'CONFLICT' });
    const { nodes } = await platform.run('audit.read', (tx) => tx.audit.list({ first: 1 }));
    expect(nodes).toMatchObject([{ action: 'app.abort', target: 'abort' }]);
  });

  test('a new instance that ends by itself while it is looked at aborts it', async () => {
    const id = await atFirstGate('crash', canary);
    const fresh = await platform.sql((prisma) =>
      prisma.instance.findFirstOrThrow({
        where: { app: { name: 'crash' }, release: { version: 2 }, goneAt: null },
      }),
    );
    const exit = { reason: 'exited' as const, exitCode: 3, signal: null, message: 'exited with 3' };
    await platform.agents
      .find((each) => each.id === fresh.nodeId)
      ?.report(fresh.id, 'backoff', {
        restarts: 1,
        exit: { ...exit, lastLines: ['last words'], at: new Date().toISOString() },
      });
    expect(await platform.ended(id)).toMatchObject({
      status: 'failed',
      failure: {
        code: 'CRASHED',
        instance: fresh.id,
        message: 'exited with 3',
        lastLines: ['last words'],
      },
    });
    await become('crash', { v1: 4 });
  });

  test('is not promoted before it is there', async () => {
    await platform.succeeded(await platform.deploy('early', 'hello:1', web(2)));
    platform.fate('slow:2', 'hang');
    await platform.deploy('early', 'slow:2', undefined, canary);
    await expect(promote('early')).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('step 1 of 2 is not reached yet') as unknown,
    });
  });
});

describe('what people and nodes do while a canary is looked at', () => {
  test('scale keeps the step', async () => {
    await atFirstGate('scale', canary);
    const { id } = await platform.run('app.scale', (tx) =>
      tx.deployments.scale({ app: 'scale', formation: [{ process: 'web', count: 8 }] }),
    );
    await atGate(id, 1);
    expect(await releases('scale')).toEqual({ v1: 8, v2: 2 });
    expect(await traffic('scale')).toEqual({ v1: 75, v2: 25 });
    await promote('scale', { full: true });
    await platform.succeeded({ id });
    expect(await releases('scale')).toEqual({ v2: 8 });
  });

  test('restart makes both sides anew and keeps the step', async () => {
    await atFirstGate('restart', canary);
    const old = (await platform.instances('restart')).map(({ id }) => id);
    await expect(
      platform.run('app.restart', (tx) => tx.deployments.restart('restart', { kind: 'rolling' })),
    ).rejects.toMatchObject({ code: 'CONFLICT' });
    const { id } = await platform.run('app.restart', (tx) => tx.deployments.restart('restart'));
    await atGate(id, 1);
    await become('restart', { v1: 4, v2: 1 });
    expect((await platform.instances('restart')).filter((each) => old.includes(each.id))).toEqual(
      [],
    );
  });

  test('config makes a new canary of it; rollback goes to what was before', async () => {
    const first = await atFirstGate('config', canary);
    const { deployment: second } = await platform.run('config.set', (tx) =>
      tx.config.set({ app: 'config', vars: [{ name: 'A', value: 'b' }] }),
    );
    await atGate(second?.id ?? '', 1);
    expect((await deployment(first)).status).toBe('superseded');
    await become('config', { v1: 4, v3: 1 });
    await platform.succeeded(
      await platform.run('app.rollback', (tx) => tx.deployments.rollback({ app: 'config' })),
    );
    await become('config', { v4: 4 });
    const { nodes } = await platform.run('app.read', async (tx) =>
      tx.releases.list((await tx.apps.get('config')).id, { first: 1 }),
    );
    expect(nodes).toMatchObject([{ description: 'Roll back to v1', image: 'hello:1' }]);
  });

  test('stop gives it up: started again it is what it was', async () => {
    await atFirstGate('stop', canary);
    await platform.succeeded(await platform.run('app.stop', (tx) => tx.deployments.stop('stop')));
    await platform.succeeded(await platform.run('app.start', (tx) => tx.deployments.start('stop')));
    expect(await releases('stop')).toEqual({ v1: 4 });
  });

  test('a drained node: each side is replaced by its own kind', async () => {
    const id = await atFirstGate('drain', canary);
    const [row] = await platform.sql((prisma) =>
      prisma.node.findMany({
        where: { instances: { some: { app: { name: 'drain' }, release: { version: 2 } } } },
      }),
    );
    await platform.db.tenancy.platform((tx) => tx.nodes.setDraining(row?.name ?? '', true));
    await eventually('nothing of it is on the node', async () => {
      const all = await platform.instances('drain');
      return all.every(({ nodeId }) => nodeId !== row?.id) && all.length === 5 ? true : null;
    });
    await become('drain', { v1: 4, v2: 1 });
    await eventually('each has its part', async () => (await traffic('drain'))['v2'] === 25);
    expect((await deployment(id)).pause?.step).toBe(1);
    await platform.db.tenancy.platform((tx) => tx.nodes.setCordoned(row?.name ?? '', false));
  });
});

describe('blue-green', () => {
  test('no request before the change-over, all after it, and back at once', async () => {
    const id = await atFirstGate('switch', blueGreen);
    expect(await releases('switch')).toEqual({ v1: 4, v2: 4 });
    expect(await traffic('switch')).toEqual({ v1: 100 });
    await promote('switch');
    await atGate(id, 2);
    expect(await traffic('switch')).toEqual({ v2: 100 });
    expect(await releases('switch')).toEqual({ v1: 4, v2: 4 });

    const made = (await platform.instances('switch')).map(({ id }) => id);
    await abort('switch');
    await eventually('requests go to the old ones', async () =>
      (await traffic('switch'))['v1'] === 100 ? true : null,
    );
    await become('switch', { v1: 4 });
    const left = (await platform.instances('switch')).map(({ id }) => id);
    expect(left.filter((each) => !made.includes(each))).toEqual([]);
  });

  test('by itself it changes over and lets the old go after its time', async () => {
    await platform.succeeded(await platform.deploy('auto', 'hello:1', web(2)));
    const { id } = await platform.deploy('auto', 'hello:2', undefined, {
      kind: 'blue-green',
      keepOldSeconds: 1,
    });
    await platform.succeeded({ id });
    expect(await releases('auto')).toEqual({ v2: 2 });
  });

  test('the second set is on the tenant’s account', async () => {
    await platform.succeeded(await platform.deploy('twice', 'hello:1', web(4)));
    await limit((await platform.used('instances')) + 3);
    await expect(platform.deploy('twice', 'hello:2', undefined, blueGreen)).rejects.toMatchObject({
      code: 'QUOTA_EXCEEDED',
      details: { resource: 'instances', wanted: 4 },
    });
    await limit(200);
  });

  test('of a first release there is nothing to keep: it is rolled out', async () => {
    const first = await platform.deploy('first', 'hello:1', web(1), blueGreen);
    expect(first.steps).toBe(0);
  });
});

test('with one instance on each node and none to be missing, every kind of rollout goes through', async () => {
  const processes = web(3).map((each) => ({ ...each, mostPerNode: 1 }));
  await platform.succeeded(await platform.deploy('wide', 'hello:1', processes));
  const backends = () => platform.edge.backends(hostOf('wide')).length;
  const onEach = async () => {
    const rows = await platform.instances('wide');
    expect(new Set(rows.map(({ nodeId }) => nodeId)).size).toBe(3);
    return rows.length === 3;
  };
  await eventually('all serve', () => backends() === 3);
  let least = Infinity;
  const watching = setInterval(() => (least = Math.min(least, backends())), 5);
  const rollouts = [
    () => platform.deploy('wide', 'hello:2'),
    () => platform.run('app.restart', (tx) => tx.deployments.restart('wide')),
    () => platform.deploy('wide', 'hello:3', undefined, { kind: 'blue-green', keepOldSeconds: 1 }),
  ];
  for (const rollout of rollouts) {
    await platform.succeeded(await rollout());
    await eventually('one is on each node', onEach);
  }
  clearInterval(watching);
  expect(least).toBe(3);
});

test('no loop met an error', () => {
  expect(platform.replicas.flatMap(({ errors }) => errors)).toEqual([]);
});
