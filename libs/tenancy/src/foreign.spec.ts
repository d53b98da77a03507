import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import pg from 'pg';
import type { TenantTx } from './db/transactions.ts';
import type { Caller } from './roles/caller.ts';
import { permissions } from './roles/permissions.ts';
import {
  createTestDatabase,
  makeImage,
  makeNode,
  makeTenant,
  type TestDatabase,
} from './testing.ts';

/**
 * Every operation with another tenant's identity: nothing is seen, nothing is changed. Mallory owns
 * a tenant of her own and knows every name and id of Alice's.
 */
let db: TestDatabase;
let mallory: Caller;
const known = {
  app: '',
  release: '',
  deployment: '',
  instance: 'iaaaaaaaaaaaa',
  token: '',
  email: '',
};

beforeAll(async () => {
  db = await createTestDatabase();
  const alice = await makeTenant(db.tenancy, 'alice');
  mallory = await makeTenant(db.tenancy, 'mallory');
  const { node } = await makeNode(db.tenancy, 'host');
  known.email = alice.email;
  await db.tenancy.run(alice, { tenant: 'alice', permission: 'app.deploy' }, async (tx) => {
    known.app = (await tx.apps.create({ name: 'shop' })).id;
    await tx.config.set({ app: 'shop', vars: [{ name: 'SECRET', value: 'of alice' }] });
    await tx.deployments.deploy({ app: 'shop', image: makeImage() });
    const deployment = await tx.deployments.deploy({ app: 'shop', image: makeImage() });
    known.deployment = deployment.id;
    known.release = deployment.toReleaseId ?? '';
    known.token = (await tx.tokens.create({ name: 'ci', role: 'viewer' })).token.id;
  });
  await db.tenancy.platform(async (tx) => {
    const app = await tx.prisma.app.findUniqueOrThrow({ where: { id: known.app } });
    await tx.prisma.instance.create({
      data: {
        id: known.instance,
        tenantId: app.tenantId,
        appId: app.id,
        releaseId: known.release,
        process: 'web',
        epoch: 0,
        nodeId: node.id,
        cpuMillis: 100,
        memoryMiB: 128,
        diskMiB: 512,
      },
    });
    const minute = { appId: app.id, tenantId: app.tenantId, minute: new Date() };
    const counts = { status2xx: 1, status3xx: 0, status4xx: 0, status5xx: 0, failed: 0 };
    const sums = { bytesIn: 1, bytesOut: 1, waitedMs: 1 };
    await tx.prisma.traffic.create({ data: { ...minute, ...counts, ...sums } });
  });
});
afterAll(() => db.drop());

const asMallory = <T>(work: (tx: TenantTx) => Promise<T>) =>
  db.tenancy.run(mallory, { tenant: 'mallory', permission: 'tenant.read' }, work);

/** Everything in the database but Mallory's own tenant's rows. */
async function everything(): Promise<string> {
  const client = new pg.Client({ connectionString: db.adminUrl });
  await client.connect();
  try {
    const { rows: tables } = await client.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`,
    );
    const all = [];
    for (const { name } of tables.sort((a, b) => a.name.localeCompare(b.name))) {
      all.push(name, (await client.query(`SELECT * FROM "${name}" t ORDER BY t::text`)).rows);
    }
    return JSON.stringify(all);
  } finally {
    await client.end();
  }
}

describe('at the door', () => {
  test.each(permissions)('%s: the tenant is not found', async (permission) => {
    const before = await everything();
    for (const ref of [{ tenant: 'alice' }, { deployment: known.deployment }]) {
      let entered = false;
      await expect(
        db.tenancy.run(mallory, { ...ref, permission }, async () => {
          entered = true;
        }),
      ).rejects.toMatchObject({ code: 'NOT_FOUND' });
      expect(entered).toBe(false);
      expect(await db.tenancy.may(mallory, { ...ref, permission })).toBe(false);
    }
    expect(await everything()).toBe(before);
  });
});

const refused: [string, (tx: TenantTx) => Promise<unknown>][] = [
  ['apps.get', (tx) => tx.apps.get('shop')],
  ['apps.getById', (tx) => tx.apps.getById(known.app)],
  ['apps.destroy', (tx) => tx.apps.destroy('shop')],
  ['config.list', (tx) => tx.config.list('shop')],
  ['config.set', (tx) => tx.config.set({ app: 'shop', vars: [{ name: 'A', value: 'b' }] })],
  ['deployments.get', (tx) => tx.deployments.get(known.deployment)],
  ['deployments.deploy', (tx) => tx.deployments.deploy({ app: 'shop', image: makeImage() })],
  [
    'deployments.scale',
    (tx) => tx.deployments.scale({ app: 'shop', formation: [{ process: 'web', count: 9 }] }),
  ],
  [
    'deployments.resize',
    (tx) => tx.deployments.resize({ app: 'shop', process: 'web', memoryMiB: 64 }),
  ],
  ['deployments.restart', (tx) => tx.deployments.restart('shop')],
  ['deployments.rollback', (tx) => tx.deployments.rollback({ app: 'shop' })],
  ['deployments.stop', (tx) => tx.deployments.stop('shop')],
  ['deployments.start', (tx) => tx.deployments.start('shop')],
  ['gates.promote', (tx) => tx.gates.promote({ app: 'shop', deployment: known.deployment })],
  ['gates.abort', (tx) => tx.gates.abort({ app: 'shop', deployment: known.deployment })],
  ['instances.get', (tx) => tx.instances.get(known.app, known.instance)],
  ['instances.locate', (tx) => tx.instances.locate(known.app, { instance: known.instance })],
  ['orders.pauseApp', (tx) => tx.orders.pauseApp('shop')],
  ['orders.resumeApp', (tx) => tx.orders.resumeApp('shop')],
  ['orders.pause', (tx) => tx.orders.pause({ app: 'shop', instance: known.instance })],
  ['orders.resume', (tx) => tx.orders.resume({ app: 'shop', instance: known.instance })],
  ['orders.restart', (tx) => tx.orders.restart({ app: 'shop', instance: known.instance })],
  ['orders.remove', (tx) => tx.orders.remove({ app: 'shop', instance: known.instance })],
  [
    'instances.open',
    (tx) =>
      tx.instances.open('shop', { instance: known.instance }, 'instance.exec', { command: ['id'] }),
  ],
  ['instances.placeOfTask', (tx) => tx.instances.placeOfTask(known.app, known.instance)],
  ['tasks.attach', (tx) => tx.tasks.attach({ app: 'shop', instance: known.instance })],
  ['tasks.run', (tx) => tx.tasks.run({ app: 'shop', command: ['id'] })],
  ['tasks.stop', (tx) => tx.tasks.stop({ app: 'shop', instance: known.instance })],
  ['members.setRole', (tx) => tx.members.setRole({ email: known.email, role: 'viewer' })],
  ['members.remove', (tx) => tx.members.remove({ email: known.email })],
  ['tokens.revoke', (tx) => tx.tokens.revoke({ id: known.token })],
];

const empty: [string, (tx: TenantTx) => Promise<unknown>][] = [
  ['apps.list', async (tx) => (await tx.apps.list({})).nodes],
  ['apps.statuses', async (tx) => [...(await tx.apps.statuses([known.app]))]],
  [
    'audit.list',
    async (tx) => (await tx.audit.list({})).nodes.filter(({ target }) => target !== 'mallory'),
  ],
  ['deployments.events', (tx) => tx.deployments.events(known.deployment)],
  ['deployments.latest', async (tx) => [...(await tx.deployments.latest([known.app]))]],
  ['deployments.list', async (tx) => (await tx.deployments.list(known.app, {})).nodes],
  ['instances.list', async (tx) => (await tx.instances.list(known.app, {})).nodes],
  ['instances.live', (tx) => tx.instances.live(known.app)],
  ['instances.running', (tx) => tx.instances.running(known.app)],
  ['traffic.list', (tx) => tx.traffic.list(known.app, 60, 1)],
  [
    'members.list',
    async (tx) => (await tx.members.list({})).nodes.filter(({ id }) => id !== mallory.userId),
  ],
  ['quota.usage', async (tx) => (await tx.quota.usage()).filter(({ used }) => used !== 0)],
  ['releases.byIds', async (tx) => [...(await tx.releases.byIds([known.release]))]],
  ['releases.images', async (tx) => (await tx.releases.images({})).nodes],
  ['releases.list', async (tx) => (await tx.releases.list(known.app, {})).nodes],
  ['tokens.list', async (tx) => (await tx.tokens.list({})).nodes],
];

describe('inside her own tenant, with the names and ids of Alice’s', () => {
  test.each(refused)('%s is not found and changes nothing', async (_, work) => {
    const before = await everything();
    await expect(asMallory(work)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await everything()).toBe(before);
  });

  test.each(empty)('%s shows nothing', async (_, work) => {
    expect(await asMallory(work)).toEqual([]);
  });

  test('every store method is in one of these lists, or only makes what is new', async () => {
    const tried = new Set([...refused, ...empty].map(([name]) => name));
    const makesNew = ['apps.create', 'audit.write', 'members.add', 'tokens.create'];
    const methods = await asMallory(async (tx) =>
      Object.entries(tx).flatMap(([name, store]: [string, object]) => {
        const prototype: object = typeof store === 'object' ? Object.getPrototypeOf(store) : {};
        if (prototype === Object.prototype) return [];
        return Object.getOwnPropertyNames(prototype)
          .filter((method) => method !== 'constructor' && typeof store === 'object')
          .map((method) => `${name}.${method}`);
      }),
    );
    expect(methods.length).toBeGreaterThan(30);
    expect(methods.filter((method) => !tried.has(method) && !makesNew.includes(method))).toEqual(
      [],
    );
  });
});

test('operators’ doors are closed to her', async () => {
  const before = await everything();
  for (const caller of [mallory, { ...mallory, operator: true }]) {
    await expect(
      db.tenancy.asOperator(caller, { permission: 'quota.set' }, (tx) =>
        tx.quota.setLimit({ tenant: 'mallory', resource: 'apps', limit: 1e6 }),
      ),
    ).rejects.toMatchObject({ code: 'FORBIDDEN' });
  }
  expect(await everything()).toBe(before);
});
