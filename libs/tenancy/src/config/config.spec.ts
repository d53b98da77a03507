import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { TenantTx } from '../db/transactions.ts';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeImage,
  makeMember,
  makeTenant,
  type TestDatabase,
} from '../testing.ts';

// That another tenant's config is neither seen nor changed is proven in foreign.spec.ts.
let db: TestDatabase;
let owner: Caller;
let tenant: string;
let count = 0;
beforeAll(async () => {
  db = await createTestDatabase();
});
beforeEach(async () => {
  tenant = `t${count++}`;
  owner = await makeTenant(db.tenancy, tenant);
  await act((tx) => tx.apps.create({ name: 'shop' }));
});
afterAll(() => db.drop());

const act = <T>(work: (tx: TenantTx) => Promise<T>, caller = owner) =>
  db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, work);
const deploy = () => act((tx) => tx.deployments.deploy({ app: 'shop', image: makeImage() }));
const shop = () => act((tx) => tx.apps.get('shop'));
const releases = async () =>
  (await act(async (tx) => tx.releases.list((await tx.apps.get('shop')).id, {}))).nodes;

describe('config', () => {
  test('before the first release is only kept', async () => {
    const { deployment } = await act((tx) =>
      tx.config.set({
        app: 'shop',
        vars: [
          { name: 'B', value: '2' },
          { name: 'A', value: '1' },
        ],
      }),
    );
    expect(deployment).toBeNull();
    await deploy();
    expect((await releases())[0]?.configNames).toEqual(['A', 'B']);
  });

  test('makes the next release with the same image, and nothing when nothing changes', async () => {
    await deploy();
    const set = (name: string, value: string | null) =>
      act((tx) => tx.config.set({ app: 'shop', vars: [{ name, value }] }));
    expect((await set('A', '1')).deployment).toMatchObject({ kind: 'config' });
    expect((await set('A', '1')).deployment).toBeNull();
    expect((await set('B', null)).deployment).toBeNull();
    await set('A', null);
    expect((await releases()).map((r) => [r.version, r.description, r.configNames])).toEqual([
      [3, 'Unset A', []],
      [2, 'Set A', ['A']],
      [1, 'Deploy hello:1', []],
    ]);
  });

  test('is sealed at rest, opens for the controllers, and is not in the audit log', async () => {
    await deploy();
    await act((tx) =>
      tx.config.set({ app: 'shop', vars: [{ name: 'KEY', value: 'hunter2 secret' }] }),
    );
    const { currentReleaseId } = await shop();
    const [rows, opened] = await db.tenancy.platform(async (tx) => {
      const release = await tx.prisma.release.findUniqueOrThrow({
        where: { id: currentReleaseId ?? '' },
      });
      const all = [
        release,
        await tx.prisma.configVar.findMany(),
        await tx.prisma.auditEntry.findMany(),
      ];
      return [all, await tx.releases.openConfig(release)];
    });
    const text = JSON.stringify(rows, (_, value: unknown) =>
      typeof value === 'bigint' ? String(value) : value,
    );
    expect(text).not.toContain('hunter2');
    expect(opened).toEqual({ KEY: 'hunter2 secret' });
    expect(await act((tx) => tx.config.list('shop'))).toEqual([
      { name: 'KEY', value: 'hunter2 secret' },
    ]);
    const viewer = await makeMember(db.tenancy, owner, tenant, 'viewer');
    await expect(act((tx) => tx.config.list('shop'), viewer)).rejects.toMatchObject({
      code: 'FORBIDDEN',
    });
  });

  test('of a stopped app makes a release and starts nothing', async () => {
    await deploy();
    await act((tx) => tx.deployments.stop('shop'));
    await act((tx) => tx.config.set({ app: 'shop', vars: [{ name: 'A', value: '1' }] }));
    expect((await shop()).state).toBe('stopped');
    expect(await releases()).toHaveLength(2);
  });
});
