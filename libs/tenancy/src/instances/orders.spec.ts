import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TenantTx } from '../db/transactions.ts';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeImage,
  makeMember,
  makeNode,
  makeTenant,
  placeInstance,
  type TestDatabase,
} from '../testing.ts';

let db: TestDatabase;
let nodeId: string;
beforeAll(async () => {
  db = await createTestDatabase();
  nodeId = (await makeNode(db.tenancy, 'host')).node.id;
});
afterAll(() => db.drop());

const act = <T>(caller: Caller, tenant: string, work: (tx: TenantTx) => Promise<T>) =>
  db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, work);

/** An app with two ready instances and no deployment under way. */
async function shop(slug: string) {
  const owner = await makeTenant(db.tenancy, slug);
  const deployment = await act(owner, slug, async (tx) => {
    await tx.apps.create({ name: 'shop' });
    const processes = [{ name: 'web', count: 2 }];
    return tx.deployments.deploy({ app: 'shop', image: makeImage(), processes });
  });
  const { appId } = deployment;
  const instances = await db.tenancy.platform(async (tx) => {
    await tx.deployments.succeed(deployment.id);
    const one = await placeInstance(tx, { appId, nodeId });
    return [one, await placeInstance(tx, { appId, nodeId })] as const;
  });
  const as = <T>(work: (tx: TenantTx) => Promise<T>) => act(owner, slug, work);
  const row = (id: string) =>
    db.tenancy.platform((tx) => tx.prisma.instance.findUniqueOrThrow({ where: { id } }));
  const log = async () =>
    (await as((tx) => tx.audit.list({}))).nodes.map(({ action, target }) => `${action} ${target}`);
  const notes = () =>
    db.tenancy.platform((tx) => tx.prisma.outbox.count({ where: { kind: 'app', key: appId } }));
  return { owner, appId, instances, as, row, log, notes };
}

test('a pause marks all, twice is once, and a resume takes it back', async () => {
  const { as, instances, row, log, notes } = await shop('still');
  const before = await notes();
  const used = await as((tx) => tx.quota.usage());
  await as((tx) => tx.orders.pauseApp('shop'));
  await as((tx) => tx.orders.pauseApp('shop'));
  expect(await notes()).toBe(before + 1);
  for (const id of instances) expect(await row(id)).toMatchObject({ paused: true, frozen: false });
  expect(await as((tx) => tx.quota.usage())).toEqual(used);

  await as((tx) => tx.orders.resumeApp('shop'));
  await as((tx) => tx.orders.resumeApp('shop'));
  for (const id of instances) expect(await row(id)).toMatchObject({ paused: false });
  expect(await notes()).toBe(before + 2);
  expect((await log()).slice(0, 2)).toEqual(['app.resume shop', 'app.pause shop']);
});

test('one instance is paused and resumed by itself', async () => {
  const { as, instances, row, log } = await shop('single');
  const [one, other] = instances;
  const paused = await as((tx) => tx.orders.pause({ app: 'shop', instance: one }));
  expect(paused).toMatchObject({ id: one, paused: true, state: 'ready' });
  await as((tx) => tx.orders.pause({ app: 'shop', instance: one }));
  expect(await row(other)).toMatchObject({ paused: false });
  await as((tx) => tx.orders.resume({ app: 'shop', instance: one }));
  await as((tx) => tx.orders.resume({ app: 'shop', instance: one }));
  expect((await log()).slice(0, 2)).toEqual([`app.resume shop/${one}`, `app.pause shop/${one}`]);
});

test('while a deployment runs nothing is paused, and everything can be resumed', async () => {
  const { as, instances, row } = await shop('moving');
  const [one] = instances;
  await as((tx) => tx.orders.pause({ app: 'shop', instance: one }));
  await as((tx) => tx.deployments.restart('shop'));
  const refused = { code: 'CONFLICT', message: expect.stringContaining('deployment') };
  await expect(as((tx) => tx.orders.pauseApp('shop'))).rejects.toMatchObject(refused);
  await expect(
    as((tx) => tx.orders.pause({ app: 'shop', instance: instances[1] })),
  ).rejects.toMatchObject(refused);
  await as((tx) => tx.orders.resumeApp('shop'));
  expect(await row(one)).toMatchObject({ paused: false });
});

test('a stopped app cannot be paused, a paused one can be stopped', async () => {
  const { as } = await shop('stops');
  await as((tx) => tx.orders.pauseApp('shop'));
  await as((tx) => tx.deployments.stop('shop'));
  await expect(as((tx) => tx.orders.pauseApp('shop'))).rejects.toMatchObject({ code: 'CONFLICT' });
});

test('a restarted instance is of an older epoch, once; a deleted one drains', async () => {
  const { as, instances, row, log } = await shop('replaced');
  const [one, other] = instances;
  const used = await as((tx) => tx.quota.usage());
  await as((tx) => tx.orders.restart({ app: 'shop', instance: one }));
  await as((tx) => tx.orders.restart({ app: 'shop', instance: one }));
  expect(await row(one)).toMatchObject({ epoch: -1, desired: 'running' });
  const gone = await as((tx) => tx.orders.remove({ app: 'shop', instance: other }));
  expect(gone.desired).toBe('draining');
  await as((tx) => tx.orders.remove({ app: 'shop', instance: other }));
  // What is on its way out takes no other order.
  await as((tx) => tx.orders.pause({ app: 'shop', instance: other }));
  expect(await row(other)).toMatchObject({ paused: false, drainRevision: null });
  expect((await log()).slice(0, 2)).toEqual([
    `instance.delete shop/${other}`,
    `app.restart shop/${one}`,
  ]);
  expect(await as((tx) => tx.quota.usage())).toEqual(used);
});

test('what is no instance of the app is not found, and a task is told apart', async () => {
  const mine = await shop('mine');
  const theirs = await shop('theirs');
  const task = await mine.as((tx) => tx.tasks.run({ app: 'shop', command: ['id'] }));
  for (const verb of ['pause', 'resume', 'restart', 'remove'] as const) {
    for (const instance of [theirs.instances[0], 'inotthereever', '']) {
      await expect(
        mine.as((tx) => tx.orders[verb]({ app: 'shop', instance })),
      ).rejects.toMatchObject({ code: 'NOT_FOUND' });
    }
    await expect(
      mine.as((tx) => tx.orders[verb]({ app: 'shop', instance: task.id })),
    ).rejects.toMatchObject({ code: 'CONFLICT' });
  }
  expect(await theirs.row(theirs.instances[0])).toMatchObject({ paused: false, epoch: 0 });
});

test('a viewer orders nothing', async () => {
  const { owner, instances } = await shop('looked-at');
  const viewer = await makeMember(db.tenancy, owner, 'looked-at', 'viewer');
  const input = { app: 'shop', instance: instances[0] };
  for (const order of [
    (tx: TenantTx) => tx.orders.pauseApp('shop'),
    (tx: TenantTx) => tx.orders.resumeApp('shop'),
    (tx: TenantTx) => tx.orders.pause(input),
    (tx: TenantTx) => tx.orders.resume(input),
    (tx: TenantTx) => tx.orders.restart(input),
    (tx: TenantTx) => tx.orders.remove(input),
  ]) {
    await expect(act<unknown>(viewer, 'looked-at', order)).rejects.toMatchObject({
      code: 'FORBIDDEN',
    });
  }
});
