import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TenantTx } from '../db/transactions.ts';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeImage,
  makeMember,
  makeTenant,
  removeInstance,
  type TestDatabase,
} from '../testing.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

const act = <T>(caller: Caller, tenant: string, work: (tx: TenantTx) => Promise<T>) =>
  db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, work);

async function shop(slug: string): Promise<{ owner: Caller; appId: string }> {
  const owner = await makeTenant(db.tenancy, slug);
  const appId = await act(owner, slug, async (tx) => {
    const { id } = await tx.apps.create({ name: 'shop' });
    const processes = [
      { name: 'web', memoryMiB: 64 },
      { name: 'worker', memoryMiB: 96, port: null, healthCheck: null },
    ];
    await tx.deployments.deploy({ app: 'shop', image: makeImage(), processes });
    return id;
  });
  return { owner, appId };
}
const used = async (owner: Caller, slug: string) =>
  Object.fromEntries(
    (await act(owner, slug, (tx) => tx.quota.usage())).map((row) => [row.resource, row.used]),
  );

test('costs what its process costs, beside the formation, until it is proven gone', async () => {
  const { owner, appId } = await shop('costs');
  const before = await used(owner, 'costs');
  const task = await act(owner, 'costs', (tx) =>
    tx.tasks.run({ app: 'shop', command: ['rake', 'db:migrate'], process: 'worker' }),
  );
  expect(task).toMatchObject({ process: 'run', oneOff: true, state: 'pending', release: 1 });
  const during = await used(owner, 'costs');
  expect(during['instances']).toBe((before['instances'] ?? 0) + 1);
  expect(during['memoryMiB']).toBe((before['memoryMiB'] ?? 0) + 96);

  await db.tenancy.platform((tx) => tx.quota.settle(appId));
  expect(await used(owner, 'costs')).toEqual(during);
  await act(owner, 'costs', (tx) => tx.tasks.stop({ app: 'shop', instance: task.id }));
  await db.tenancy.platform((tx) => tx.quota.settle(appId));
  expect(await used(owner, 'costs')).toEqual(during);
  await db.tenancy.platform(async (tx) => {
    await removeInstance(tx, task.id);
    await tx.quota.settle(appId);
  });
  expect(await used(owner, 'costs')).toEqual(before);
});

test('is counted in no process, not in health and not among the instances of a deployment', async () => {
  const { owner, appId } = await shop('apart');
  await act(owner, 'apart', (tx) => tx.tasks.run({ app: 'shop', command: ['true'] }));
  await act(owner, 'apart', async (tx) => {
    const status = (await tx.apps.statuses([appId])).get(appId);
    expect(status?.processes.map(({ name }) => name)).toEqual(['web', 'worker']);
    expect(await tx.instances.live(appId)).toEqual([]);
    expect((await tx.instances.list(appId, {})).totalCount).toBe(1);
  });
});

test('over quota it is refused and nothing is left of it', async () => {
  const { owner, appId } = await shop('full');
  await expect(
    act(owner, 'full', (tx) =>
      tx.tasks.run({ app: 'shop', command: ['big'], memoryMiB: 1_000_000 }),
    ),
  ).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED', details: { resource: 'memoryMiB' } });
  expect((await act(owner, 'full', (tx) => tx.instances.list(appId, {}))).totalCount).toBe(0);
});

test.each([
  [{ command: [] }, 'INVALID'],
  [{ command: [''] }, 'INVALID'],
  [{ command: ['a\0b'] }, 'INVALID'],
  [{ command: ['true'], process: 'nope' }, 'INVALID'],
  [{ command: ['true'], release: 9 }, 'NOT_FOUND'],
  [{ command: ['true'], memoryMiB: 1 }, 'INVALID'],
  [{ command: ['true'], timeoutSeconds: 0 }, 'INVALID'],
])('%j is %s', async (request, code) => {
  const slug = `r${Math.random().toString(36).slice(2, 10)}`;
  const { owner } = await shop(slug);
  await expect(
    act(owner, slug, (tx) => tx.tasks.run({ app: 'shop', ...request })),
  ).rejects.toMatchObject({ code });
});

test('needs an app that runs, and a developer', async () => {
  const { owner } = await shop('needs');
  const viewer = await makeMember(db.tenancy, owner, 'needs', 'viewer');
  await expect(
    act(viewer, 'needs', (tx) => tx.tasks.run({ app: 'shop', command: ['id'] })),
  ).rejects.toMatchObject({ code: 'FORBIDDEN' });
  await act(owner, 'needs', (tx) => tx.apps.create({ name: 'empty' }));
  await act(owner, 'needs', (tx) => tx.deployments.stop('shop'));
  for (const app of ['empty', 'shop']) {
    await expect(
      act(owner, 'needs', (tx) => tx.tasks.run({ app, command: ['id'] })),
    ).rejects.toMatchObject({ code: 'CONFLICT' });
  }
});

test('is audited by its program and the number of its arguments, never by them', async () => {
  const { owner } = await shop('audited');
  const { id } = await act(owner, 'audited', (tx) =>
    tx.tasks.run({ app: 'shop', command: ['/usr/bin/psql', 'postgres://u:hunter2@db/x'] }),
  );
  const row = await db.tenancy.platform((tx) =>
    tx.prisma.auditEntry.findFirst({ where: { action: 'task.run', target: `shop/${id}` } }),
  );
  expect(row?.detail).toEqual({ program: 'psql', arguments: 1, process: 'web', release: 1 });
});

test('destroying the app gives back what its tasks held', async () => {
  const { owner, appId } = await shop('gone');
  const { id } = await act(owner, 'gone', (tx) =>
    tx.tasks.run({ app: 'shop', command: ['sleep', '9'] }),
  );
  await act(owner, 'gone', (tx) => tx.apps.destroy('shop'));
  await expect(db.tenancy.platform((tx) => tx.apps.finishDestroy(appId))).rejects.toMatchObject({
    code: 'CONFLICT',
  });
  await db.tenancy.platform(async (tx) => {
    await removeInstance(tx, id);
    await tx.apps.finishDestroy(appId);
  });
  expect(await used(owner, 'gone')).toMatchObject({ instances: 0, memoryMiB: 0, apps: 0 });
});

test('stopping twice, or what is an instance of a process, does no harm', async () => {
  const { owner, appId } = await shop('twice');
  const { id } = await act(owner, 'twice', (tx) =>
    tx.tasks.run({ app: 'shop', command: ['sleep', '9'] }),
  );
  const stop = (instance: string) =>
    act(owner, 'twice', (tx) => tx.tasks.stop({ app: 'shop', instance }));
  expect(await stop(id)).toMatchObject({ desired: 'gone' });
  expect(await stop(id)).toMatchObject({ desired: 'gone' });
  const web = await db.tenancy.platform(async (tx) => {
    const app = await tx.prisma.app.findUniqueOrThrow({ where: { id: appId } });
    const { placeInstance } = await import('../testing/instances.ts');
    return placeInstance(tx, { appId: app.id });
  });
  await expect(stop(web)).rejects.toMatchObject({ code: 'NOT_FOUND' });
});
