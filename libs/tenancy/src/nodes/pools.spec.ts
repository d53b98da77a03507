import { afterAll, beforeAll, expect, test } from 'vitest';
import type { OperatorTx, TenantTx } from '../db/transactions.ts';
import type { Caller } from '../roles/caller.ts';
import type { ProcessRequest } from '../releases/plan-processes.ts';
import { createTestDatabase, makeImage, makeNode, makeTenant, makeUser } from '../testing.ts';
import type { TestDatabase } from '../testing.ts';

let db: TestDatabase;
let operator: Caller;
let owner: Caller;
beforeAll(async () => {
  db = await createTestDatabase();
  operator = await makeUser(db.tenancy, 'operator', { operator: true });
  owner = await makeTenant(db.tenancy, 'acme');
  await makeTenant(db.tenancy, 'other');
  await act((tx) => tx.apps.create({ name: 'shop' }));
});
afterAll(() => db.drop());

const act = <T>(work: (tx: TenantTx) => Promise<T>) =>
  db.tenancy.run(owner, { tenant: 'acme', permission: 'app.deploy' }, work);
const operate = <T>(work: (tx: OperatorTx) => Promise<T>) =>
  db.tenancy.asOperator(operator, { permission: 'node.manage' }, work);
const deploy = (process: Omit<ProcessRequest, 'name'>) =>
  act((tx) =>
    tx.deployments.deploy({
      app: 'shop',
      image: makeImage(),
      processes: [{ name: 'web', ...process }],
    }),
  );

test('a pool is for those that it was granted to, or for everybody when it is open', async () => {
  await expect(deploy({ pool: 'gpu' })).rejects.toMatchObject({ code: 'INVALID' });
  const closed = await operate((tx) => tx.pools.set({ name: 'gpu', grant: ['other'] }));
  expect(closed).toEqual({
    name: 'gpu',
    cpuOvercommit: 4,
    open: false,
    tenants: ['other'],
    nodes: 0,
  });
  // Said as if it were not there.
  await expect(deploy({ pool: 'gpu' })).rejects.toThrow(
    'there is no pool gpu that this tenant may',
  );

  await operate((tx) => tx.pools.set({ name: 'gpu', grant: ['acme'], revoke: ['other'] }));
  await deploy({ pool: 'gpu' });
  // As in the release before.
  await operate((tx) => tx.pools.set({ name: 'gpu', revoke: ['acme'] }));
  await expect(deploy({})).rejects.toThrow('there is no pool gpu');
  await expect(
    act((tx) => tx.deployments.resize({ app: 'shop', process: 'web', memoryMiB: 256 })),
  ).rejects.toThrow('there is no pool gpu');
  await deploy({ pool: 'default' });
  await expect(act((tx) => tx.deployments.rollback({ app: 'shop' }))).rejects.toThrow(
    'there is no pool gpu',
  );
  await operate((tx) => tx.pools.set({ name: 'gpu', open: true, cpuOvercommit: 1 }));
  await deploy({});
});

test('pools are named by nodes too, and default is always there and open', async () => {
  const { node } = await makeNode(db.tenancy, 'n1');
  await operate((tx) => tx.nodes.setPool(node.name, 'batch'));
  const pools = await operate((tx) => tx.pools.list());
  expect(pools.map((pool) => [pool.name, pool.open, pool.nodes])).toEqual([
    ['batch', false, 1],
    ['default', true, 0],
    ['gpu', true, 0],
  ]);
  await expect(operate((tx) => tx.pools.set({ name: 'default', open: false }))).rejects.toThrow(
    'open to every tenant',
  );
  await expect(operate((tx) => tx.pools.set({ name: 'gpu', grant: ['nobody'] }))).rejects.toThrow(
    'tenant nobody',
  );
  await expect(
    operate((tx) => tx.pools.set({ name: 'gpu', cpuOvercommit: 0 })),
  ).rejects.toMatchObject({ code: 'INVALID' });
});

test('instances of high priority are granted by number', async () => {
  await expect(deploy({ priority: 'high' })).rejects.toThrow('quota exceeded for highPriority');
  await operate((tx) => tx.quota.setLimit({ tenant: 'acme', resource: 'highPriority', limit: 2 }));
  await deploy({ priority: 'high' });
  await deploy({ priority: 'low' });
});

test('labels of nodes are kept from one release to the next until others, or none, are asked for', async () => {
  const labelsNow = () =>
    act(async (tx) => {
      const { id } = await tx.apps.get('shop');
      return (await tx.apps.statuses([id])).get(id)?.processes[0]?.nodeLabels;
    });
  const disk = { name: 'disk', value: 'ssd' };
  await deploy({ nodeLabels: [{ name: 'zone', value: 'a' }, disk] });
  await deploy({ memoryMiB: 256 });
  expect(await labelsNow()).toEqual([disk, { name: 'zone', value: 'a' }]);
  await expect(deploy({ nodeLabels: [disk, { name: 'disk', value: 'hdd' }] })).rejects.toThrow(
    'process web: a label of nodes is given twice',
  );
  await expect(deploy({ nodeLabels: [{ name: 'Disk', value: 'ssd' }] })).rejects.toMatchObject({
    code: 'INVALID',
  });
  await deploy({ nodeLabels: [] });
  expect(await labelsNow()).toEqual([]);
});
