import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TenantTx } from '../db/transactions.ts';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeImage,
  makeTenant,
  placeInstance,
  type TestDatabase,
} from '../testing.ts';

// That another tenant's apps are neither seen nor changed is proven in foreign.spec.ts.
let db: TestDatabase;
let owner: Caller;
beforeAll(async () => {
  db = await createTestDatabase();
  owner = await makeTenant(db.tenancy, 'acme');
});
afterAll(() => db.drop());

const act = <T>(work: (tx: TenantTx) => Promise<T>) =>
  db.tenancy.run(owner, { tenant: 'acme', permission: 'tenant.read' }, work);

describe('apps', () => {
  test('have one name each in a tenant; the same name in another is another app', async () => {
    const app = await act((tx) => tx.apps.create({ name: 'taken' }));
    expect(app).toMatchObject({ name: 'taken', state: 'active', currentReleaseId: null });
    await expect(act((tx) => tx.apps.create({ name: 'taken' }))).rejects.toMatchObject({
      code: 'CONFLICT',
      message: 'acme has an app "taken" already; choose another name',
    });
    const other = await makeTenant(db.tenancy, 'beta');
    const twin = await db.tenancy.run(other, { tenant: 'beta', permission: 'app.create' }, (tx) =>
      tx.apps.create({ name: 'taken' }),
    );
    expect(twin.id).not.toBe(app.id);
  });

  test.each(['', 'Shop', 'a_b', '-a', 'a-', 'a.b', 'x'.repeat(41)])(
    'INVALID name: "%s"',
    async (name) => {
      await expect(act((tx) => tx.apps.create({ name }))).rejects.toMatchObject({
        code: 'INVALID',
        details: { field: 'name' },
      });
    },
  );

  test('are listed by name, page by page, while others come and go', async () => {
    const tenantOwner = await makeTenant(db.tenancy, 'pages');
    const inPages = <T>(work: (tx: TenantTx) => Promise<T>) =>
      db.tenancy.run(tenantOwner, { tenant: 'pages', permission: 'app.create' }, work);
    for (const name of ['d', 'b', 'a', 'c']) await inPages((tx) => tx.apps.create({ name }));
    const first = await inPages((tx) => tx.apps.list({ first: 2 }));
    expect(first.nodes.map(({ name }) => name)).toEqual(['a', 'b']);
    await inPages((tx) => tx.apps.create({ name: 'aa' }));
    const second = await inPages((tx) => tx.apps.list({ after: first.pageInfo.endCursor }));
    expect(second.nodes.map(({ name }) => name)).toEqual(['c', 'd']);
    expect(second).toMatchObject({ totalCount: 5, pageInfo: { hasNextPage: false } });
    // A cursor of another list.
    await expect(
      inPages((tx) => tx.members.list({ after: first.pageInfo.endCursor })),
    ).rejects.toMatchObject({ code: 'INVALID' });
  });

  test('tell their health and how many of each process are ready', async () => {
    const [fresh, app] = await act(async (tx) => {
      const created = await tx.apps.create({ name: 'fresh' });
      const { id } = await tx.apps.create({ name: 'busy' });
      const processes = [{ name: 'web', count: 2 }, { name: 'worker' }];
      const deployment = await tx.deployments.deploy({
        app: 'busy',
        image: makeImage(),
        processes,
      });
      return [created.id, { id, deployment: deployment.id }];
    });
    const statuses = () => act((tx) => tx.apps.statuses([fresh, app.id, 'no id']));
    expect((await statuses()).get(fresh)).toEqual({ health: 'new', processes: [] });
    expect((await statuses()).get(app.id)?.health).toBe('deploying');
    await db.tenancy.platform(async (tx) => {
      await tx.deployments.succeed(app.deployment);
      await placeInstance(tx, { appId: app.id });
      await placeInstance(tx, { appId: app.id, state: 'backoff' });
      await placeInstance(tx, { appId: app.id, process: 'worker' });
      await placeInstance(tx, { appId: app.id, state: 'gone' });
    });
    expect((await statuses()).get(app.id)).toMatchObject({
      health: 'degraded',
      processes: [
        {
          name: 'web',
          count: 2,
          ready: 1,
          port: 8080,
          memoryMiB: 128,
          healthCheck: { kind: 'tcp' },
        },
        { name: 'worker', count: 1, ready: 1, port: null, healthCheck: null },
      ],
    });
    expect((await statuses()).size).toBe(2);
  });
});

describe('what an app has', () => {
  test('instances, oldest first; those that are gone only when asked for', async () => {
    const app = await act(async (tx) => {
      const created = await tx.apps.create({ name: 'instances' });
      await tx.deployments.deploy({ app: 'instances', image: makeImage() });
      return created;
    });
    const ids = await db.tenancy.platform(async (tx) => {
      const made: string[] = [];
      for (const state of ['gone', 'ready', 'pending'] as const) {
        made.push(await placeInstance(tx, { appId: app.id, state }));
      }
      return made;
    });
    const list = (includeGone: boolean, after: string | null = null) =>
      act((tx) => tx.instances.list(app.id, { first: 2, includeGone, after }));
    const living = await list(false);
    expect(living.nodes.map(({ id }) => id).sort()).toEqual(ids.slice(1).sort());
    expect(living.totalCount).toBe(2);
    const one = await list(true);
    const two = await list(true, one.pageInfo.endCursor);
    expect([...one.nodes, ...two.nodes].map(({ id }) => id).sort()).toEqual([...ids].sort());
    expect((await act((tx) => tx.instances.live(app.id))).map(({ release }) => release)).toEqual([
      1, 1,
    ]);
    expect(await act((tx) => tx.instances.get(app.id, ids[1] ?? ''))).toMatchObject({
      state: 'ready',
      node: null,
    });
  });

  test('images, each once, by the release that used it first', async () => {
    const tenantOwner = await makeTenant(db.tenancy, 'pictures');
    const images = await db.tenancy.run(
      tenantOwner,
      { tenant: 'pictures', permission: 'app.deploy' },
      async (tx) => {
        await tx.apps.create({ name: 'a' });
        const second = makeImage({ reference: 'hello:2', digest: `sha256:${'b'.repeat(64)}` });
        await tx.deployments.deploy({ app: 'a', image: makeImage() });
        await tx.config.set({ app: 'a', vars: [{ name: 'X', value: '1' }] });
        await tx.deployments.deploy({ app: 'a', image: second });
        return tx.releases.images({});
      },
    );
    expect(images.totalCount).toBe(2);
    expect(images.nodes.map(({ reference, app, release }) => [reference, app, release])).toEqual([
      ['hello:2', 'a', 3],
      ['hello:1', 'a', 1],
    ]);
  });

  test('deployments, newest first, and the latest of many apps', async () => {
    const { apps, made } = await act(async (tx) => {
      const app = await tx.apps.create({ name: 'moves' });
      const still = await tx.apps.create({ name: 'still' });
      const deployments = [];
      for (let i = 0; i < 3; i++) {
        deployments.push(await tx.deployments.deploy({ app: 'moves', image: makeImage() }));
      }
      return { apps: [app.id, still.id], made: deployments.map(({ id }) => id) };
    });
    const [app = ''] = apps;
    const one = await act((tx) => tx.deployments.list(app, { first: 2 }));
    const two = await act((tx) => tx.deployments.list(app, { after: one.pageInfo.endCursor }));
    // All made in one transaction, hence at one time: the order is that of the ids.
    expect([...one.nodes, ...two.nodes].map(({ id }) => id)).toEqual([...made].sort().reverse());
    const latest = await act((tx) => tx.deployments.latest(apps));
    expect([...latest.keys()]).toEqual([app]);
    expect(latest.get(app)?.id).toBe(one.nodes[0]?.id);
  });
});
