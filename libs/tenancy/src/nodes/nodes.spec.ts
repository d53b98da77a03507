import { makeSealingKeyPair } from '@bulkhead/protocol';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeImage,
  makeMember,
  makeNode,
  makeTenant,
  makeUser,
  placeInstance,
  removeInstance,
  type TestDatabase,
} from '../testing.ts';

let db: TestDatabase;
let operator: Caller;
let owner: Caller;
let appId: string;
beforeAll(async () => {
  db = await createTestDatabase();
  operator = await makeUser(db.tenancy, 'operator', { operator: true });
  owner = await makeTenant(db.tenancy, 'acme');
  appId = await db.tenancy.run(owner, { tenant: 'acme', permission: 'app.deploy' }, async (tx) => {
    const { id } = await tx.apps.create({ name: 'shop' });
    await tx.deployments.deploy({ app: 'shop', image: makeImage() });
    return id;
  });
});
afterAll(() => db.drop());

const read = { permission: 'node.read' } as const;

describe('nodes', () => {
  test('are seen by operators only', async () => {
    await expect(
      db.tenancy.asOperator(owner, read, (tx) => tx.nodes.list({})),
    ).rejects.toMatchObject({ code: 'FORBIDDEN' });
  });

  test('show what they have and what is reserved', async () => {
    const { node } = await makeNode(db.tenancy, 'busy');
    await makeNode(db.tenancy, 'idle');
    expect(node.id).toMatch(/^n[a-z0-9]{12}$/);
    await db.tenancy.platform(async (tx) => {
      await tx.prisma.node.update({
        where: { id: node.id },
        data: { cpuMillis: 2000, memoryMiB: 4096, diskMiB: 10_000, maxInstances: 100 },
      });
      await placeInstance(tx, { appId, nodeId: node.id });
      await placeInstance(tx, { appId, nodeId: node.id });
      await placeInstance(tx, { appId, nodeId: node.id, state: 'gone' });
    });
    const page = await db.tenancy.asOperator(operator, read, (tx) => tx.nodes.list({ first: 1 }));
    expect(page).toMatchObject({ totalCount: 2, pageInfo: { hasNextPage: true } });
    expect(page.nodes[0]).toMatchObject({
      name: 'busy',
      state: 'joining',
      capacity: { cpuMillis: 2000, memoryMiB: 4096, diskMiB: 10_000, instances: 100 },
      reserved: { cpuMillis: 200, memoryMiB: 256, diskMiB: 1024, instances: 2 },
      instanceCount: 2,
    });
    const { instances, idle } = await db.tenancy.asOperator(operator, read, async (tx) => ({
      instances: await tx.nodes.instances(node.id, {}),
      idle: await tx.nodes.get('idle'),
    }));
    expect(instances.nodes).toHaveLength(2);
    expect(instances.nodes[0]).toMatchObject({ tenant: 'acme', app: 'shop', process: 'web' });
    expect(idle.reserved.instances).toBe(0);
    await expect(
      db.tenancy.asOperator(operator, read, (tx) => tx.nodes.get('nowhere')),
    ).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('are named to members who are operators, and to nobody else', async () => {
    await db.tenancy.run(owner, { tenant: 'acme', permission: 'member.add' }, (tx) =>
      tx.members.add({ email: operator.email, role: 'viewer' }),
    );
    const names = (caller: Caller) =>
      db.tenancy.run(caller, { tenant: 'acme', permission: 'app.read' }, async (tx) => {
        const live = await tx.instances.live(appId);
        // The look-up across the border must not leave the border open.
        const seen = await tx.apps.list({});
        expect(seen.totalCount).toBe(1);
        return new Set(live.map(({ node }) => node));
      });
    await makeTenant(db.tenancy, 'other-tenant');
    expect(await names(operator)).toEqual(new Set(['busy']));
    expect(await names(owner)).toEqual(new Set([null]));
  });

  test('registered again keep their id and get the new keys', async () => {
    const first = await makeNode(db.tenancy, 'again');
    const second = await makeNode(db.tenancy, 'again');
    expect(second.node.id).toBe(first.node.id);
    const { id } = first.node;
    await expect(db.tenancy.nodeFromRegistrySecret(id, first.registrySecret)).rejects.toMatchObject(
      { code: 'UNAUTHENTICATED' },
    );
    expect(await db.tenancy.nodeFromRegistrySecret(id, second.registrySecret)).toEqual({
      id,
      name: 'again',
    });
  });

  test('never give their private key away, also by mistake', async () => {
    const { privateKey } = await makeSealingKeyPair();
    await db.tenancy.registerNode({
      name: 'careless',
      sealingKey: privateKey,
      natsUser: `U${'A'.repeat(55)}`,
      registrySecret: 'x'.repeat(32),
    });
    const row = await db.tenancy.platform((tx) =>
      tx.prisma.node.findUniqueOrThrow({ where: { name: 'careless' } }),
    );
    expect(row.sealingKey).not.toHaveProperty('d');
    expect(row.sealingKey).toHaveProperty('x', privateKey.x);
  });

  test.each([
    ['name', { name: 'Not A Label' }],
    ['natsUser', { natsUser: 'UABC' }],
    ['registrySecret', { registrySecret: 'short' }],
    ['sealingKey.kty', { sealingKey: { kty: 'RSA' } }],
  ])('INVALID: %s', async (field, change) => {
    const { publicKey } = await makeSealingKeyPair();
    await expect(
      db.tenancy.registerNode({
        name: 'fine',
        sealingKey: publicKey,
        natsUser: `U${'B'.repeat(55)}`,
        registrySecret: 'x'.repeat(32),
        ...change,
      }),
    ).rejects.toMatchObject({ code: 'INVALID', details: { field: `node.${field}` } });
  });
});

describe('the registry', () => {
  test('lets a node pull what is placed on it, as long as it is', async () => {
    const { node } = await makeNode(db.tenancy, 'puller');
    const { repository } = makeImage();
    expect(await db.tenancy.mayPull(node.id, repository)).toBe(false);
    const id = await db.tenancy.platform((tx) => placeInstance(tx, { appId, nodeId: node.id }));
    expect(await db.tenancy.mayPull(node.id, repository)).toBe(true);
    expect(await db.tenancy.mayPull(node.id, `${repository}-other`)).toBe(false);
    await db.tenancy.platform((tx) => removeInstance(tx, id));
    expect(await db.tenancy.mayPull(node.id, repository)).toBe(false);
  });

  test('asks the role of a member', async () => {
    const viewer = await makeMember(db.tenancy, owner, 'acme', 'viewer');
    const may = (caller: Caller, permission: 'registry.push' | 'registry.pull') =>
      db.tenancy.may(caller, { tenant: 'acme', permission });
    expect(await may(owner, 'registry.push')).toBe(true);
    expect(await may(viewer, 'registry.pull')).toBe(false);
    expect(await db.tenancy.may(owner, { tenant: 'nowhere', permission: 'registry.push' })).toBe(
      false,
    );
  });
});
