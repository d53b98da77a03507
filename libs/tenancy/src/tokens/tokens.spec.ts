import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TenantTx } from '../db/transactions.ts';
import type { Caller } from '../roles/caller.ts';
import { createTestDatabase, makeMember, makeTenant, type TestDatabase } from '../testing.ts';

let db: TestDatabase;
let now = new Date();
beforeAll(async () => {
  db = await createTestDatabase({ now: () => now });
});
afterAll(() => db.drop());

const act = <T>(caller: Caller, tenant: string, work: (tx: TenantTx) => Promise<T>) =>
  db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, work);
const create = (
  caller: Caller,
  tenant: string,
  values: { expiresInDays?: number; role?: 'admin' | 'developer' | 'viewer' | 'owner' } = {},
) => act(caller, tenant, (tx) => tx.tokens.create({ name: 'ci', role: 'developer', ...values }));

describe('API tokens', () => {
  test('of another tenant cannot be revoked', async () => {
    const one = await makeTenant(db.tenancy, 'revoker');
    const other = await makeTenant(db.tenancy, 'keeper');
    const { token, secret } = await create(other, 'keeper');
    await expect(
      act(one, 'revoker', (tx) => tx.tokens.revoke({ id: token.id })),
    ).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(act(one, 'revoker', (tx) => tx.tokens.revoke({ id: 'x' }))).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(await db.tenancy.callerFromToken(secret)).toMatchObject({ via: 'token' });
  });

  test('act in their tenant only, though their user is in more', async () => {
    const owner = await makeTenant(db.tenancy, 'first-home');
    await db.tenancy.asUser(owner, (tx) => tx.tenants.create({ slug: 'second-home' }));
    const { secret } = await create(owner, 'first-home', { role: 'viewer' });
    const caller = await db.tenancy.callerFromToken(secret);
    expect(await act(caller, 'first-home', async (tx) => tx.role)).toBe('viewer');
    await expect(act(caller, 'second-home', async (tx) => tx.role)).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(await db.tenancy.asUser(caller, (tx) => tx.tenants.memberships())).toMatchObject([
      { role: 'viewer', tenant: { slug: 'first-home' } },
    ]);
  });

  test('do nothing for an account: no tenants, no tokens, no operator’s rights', async () => {
    const owner = await makeTenant(db.tenancy, 'limits');
    await db.tenancy.ensureOperator({ email: owner.email, password: 'not used at all', name: 'x' });
    const { secret, token } = await create(owner, 'limits', { role: 'owner' });
    const caller = await db.tenancy.callerFromToken(secret);
    expect(caller.operator).toBe(false);
    for (const attempt of [
      () => db.tenancy.asUser(caller, (tx) => tx.tenants.create({ slug: 'more' })),
      () => create(caller, 'limits'),
      () => act(caller, 'limits', (tx) => tx.tokens.revoke({ id: token.id })),
      () => db.tenancy.signOutEverywhere(caller),
      () => db.tenancy.asOperator(caller, { permission: 'node.read' }, (tx) => tx.nodes.list({})),
      () =>
        db.tenancy.asOperator({ ...caller, operator: true }, { permission: 'node.read' }, (tx) =>
          tx.nodes.list({}),
        ),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ code: 'FORBIDDEN' });
    }
  });

  test('have at most the maker’s role, and follow it down', async () => {
    const owner = await makeTenant(db.tenancy, 'follow');
    const developer = await makeMember(db.tenancy, owner, 'follow', 'developer');
    await expect(create(developer, 'follow', { role: 'admin' })).rejects.toMatchObject({
      code: 'FORBIDDEN',
    });
    const { secret } = await create(developer, 'follow');
    const caller = await db.tenancy.callerFromToken(secret);
    await act(owner, 'follow', (tx) =>
      tx.members.setRole({ email: developer.email, role: 'viewer' }),
    );
    expect(await act(caller, 'follow', async (tx) => tx.role)).toBe('viewer');
    await expect(
      act(caller, 'follow', (tx) => tx.apps.create({ name: 'x' })),
    ).rejects.toMatchObject({
      code: 'FORBIDDEN',
    });
  });

  test('are one’s own to revoke; an admin revokes anybody’s', async () => {
    const owner = await makeTenant(db.tenancy, 'whose');
    const developer = await makeMember(db.tenancy, owner, 'whose', 'developer');
    const admin = await makeMember(db.tenancy, owner, 'whose', 'admin');
    const { token } = await create(admin, 'whose');
    const { token: own, secret } = await create(developer, 'whose');
    const revoke = (caller: Caller, id: string) =>
      act(caller, 'whose', (tx) => tx.tokens.revoke({ id }));
    await expect(revoke(developer, token.id)).rejects.toMatchObject({ code: 'FORBIDDEN' });
    const caller = await db.tenancy.callerFromToken(secret);
    await revoke(developer, own.id);
    await revoke(admin, token.id);
    await expect(db.tenancy.callerFromToken(secret)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
    // Also for whoever holds a caller made before.
    await expect(act(caller, 'whose', async (tx) => tx.role)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
    const { nodes } = await act(owner, 'whose', (tx) => tx.tokens.list({}));
    expect(nodes).toEqual([]);
  });

  test('end when they expire', async () => {
    const owner = await makeTenant(db.tenancy, 'expiry');
    const { secret } = await create(owner, 'expiry', { expiresInDays: 1 });
    const caller = await db.tenancy.callerFromToken(secret);
    now = new Date(now.getTime() + 86_400_000);
    await expect(db.tenancy.callerFromToken(secret)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
    await expect(act(caller, 'expiry', async (tx) => tx.role)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
  });

  test('are shown once, stored hashed, recognised by their prefix', async () => {
    const owner = await makeTenant(db.tenancy, 'shown');
    const { secret, token } = await create(owner, 'shown');
    expect(secret).toMatch(/^bh_[A-Za-z0-9_-]{43}$/);
    expect(token.prefix).toBe(secret.slice(0, 9));
    await db.tenancy.callerFromToken(secret);
    const rows = await db.tenancy.platform((tx) =>
      tx.prisma.apiToken.findMany({ where: { id: token.id } }),
    );
    expect(JSON.stringify(rows)).not.toContain(secret.slice(9));
    expect(rows[0]?.hash.length).toBe(32);
    expect(rows[0]?.lastUsedAt).toEqual(now);
    const audit = await act(owner, 'shown', (tx) => tx.audit.list({}));
    expect(JSON.stringify(audit)).not.toContain(secret.slice(3));
  });

  test.each(['', 'bh_', 'bh_short', `bh_${'x'.repeat(43)}`, `xx_${'x'.repeat(43)}`])(
    'nobody made %s',
    async (secret) => {
      await expect(db.tenancy.callerFromToken(secret)).rejects.toMatchObject({
        code: 'UNAUTHENTICATED',
      });
    },
  );

  test('cost quota, given back when revoked', async () => {
    const owner = await makeTenant(db.tenancy, 'costly');
    const tokens = await Promise.all(Array.from({ length: 20 }, () => create(owner, 'costly')));
    await expect(create(owner, 'costly')).rejects.toMatchObject({
      code: 'QUOTA_EXCEEDED',
      details: { resource: 'tokens', used: 20, limit: 20, wanted: 1 },
    });
    await act(owner, 'costly', (tx) => tx.tokens.revoke({ id: tokens[0]?.token.id ?? '' }));
    await create(owner, 'costly');
  });
});
