import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  createTestDatabase,
  makeMember,
  makeTenant,
  makeUser,
  type TestDatabase,
} from '../testing.ts';
import type { Caller } from '../roles/caller.ts';
import type { TenantTx } from '../db/transactions.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

const act = <T>(caller: Caller, tenant: string, work: (tx: TenantTx) => Promise<T>) =>
  db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, work);

/** One type for operations that answer different things. */
const works = (list: ((tx: TenantTx) => Promise<unknown>)[]) => list;

const list = async (caller: Caller, tenant: string) =>
  (await act(caller, tenant, (tx) => tx.members.list({}))).nodes.map(({ email, role }) => [
    email,
    role,
  ]);

describe('members', () => {
  test('of another tenant cannot be changed or removed', async () => {
    const one = await makeTenant(db.tenancy, 'here');
    const other = await makeTenant(db.tenancy, 'there');
    for (const work of works([
      (tx: TenantTx) => tx.members.setRole({ email: other.email, role: 'viewer' }),
      (tx: TenantTx) => tx.members.remove({ email: other.email }),
    ])) {
      await expect(act(one, 'here', work)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    }
    expect(await list(other, 'there')).toEqual([[other.email, 'owner']]);
  });

  test('must have signed up, and are members once', async () => {
    const owner = await makeTenant(db.tenancy, 'once');
    const user = await makeUser(db.tenancy, 'joiner');
    const add = (email: string) =>
      act(owner, 'once', (tx) => tx.members.add({ email, role: 'developer' }));
    await expect(add('ghost@example.org')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: 'user ghost@example.org not found; they must sign up first',
    });
    expect(await add(user.email.toUpperCase())).toMatchObject({
      id: user.userId,
      role: 'developer',
    });
    await expect(add(user.email)).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(await list(user, 'once')).toEqual([
      [user.email, 'developer'],
      [owner.email, 'owner'],
    ]);
  });

  test('never give, change or take a role above their own', async () => {
    const owner = await makeTenant(db.tenancy, 'ranks');
    const admin = await makeMember(db.tenancy, owner, 'ranks', 'admin');
    const user = await makeUser(db.tenancy, 'climber');
    for (const work of works([
      (tx: TenantTx) => tx.members.add({ email: user.email, role: 'owner' }),
      (tx: TenantTx) => tx.members.setRole({ email: admin.email, role: 'owner' }),
      (tx: TenantTx) => tx.members.setRole({ email: owner.email, role: 'viewer' }),
      (tx: TenantTx) => tx.members.remove({ email: owner.email }),
    ])) {
      await expect(act(admin, 'ranks', work)).rejects.toMatchObject({ code: 'FORBIDDEN' });
    }
    const developer = await makeMember(db.tenancy, owner, 'ranks', 'developer');
    await expect(
      act(developer, 'ranks', (tx) => tx.members.add({ email: user.email, role: 'viewer' })),
    ).rejects.toMatchObject({ code: 'FORBIDDEN' });
  });

  test('leave at least one owner, also when two remove each other at once', async () => {
    const owner = await makeTenant(db.tenancy, 'last');
    for (const work of works([
      (tx: TenantTx) => tx.members.setRole({ email: owner.email, role: 'admin' }),
      (tx: TenantTx) => tx.members.remove({ email: owner.email }),
    ])) {
      await expect(act(owner, 'last', work)).rejects.toMatchObject({ code: 'CONFLICT' });
    }
    const second = await makeMember(db.tenancy, owner, 'last', 'owner');
    const results = await Promise.allSettled([
      act(owner, 'last', (tx) => tx.members.remove({ email: second.email })),
      act(second, 'last', (tx) => tx.members.remove({ email: owner.email })),
    ]);
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    const owners = await db.tenancy.platform((tx) =>
      tx.prisma.member.count({ where: { tenant: { slug: 'last' }, role: 'owner' } }),
    );
    expect(owners).toBe(1);
  });

  test('may leave whatever their role, but remove nobody else, and not through a token', async () => {
    const owner = await makeTenant(db.tenancy, 'leaving');
    const leave = (who: Caller) =>
      db.tenancy.run(who, { tenant: 'leaving', permission: 'member.leave' }, (tx) =>
        tx.members.remove({ email: who.email }),
      );
    for (const role of ['viewer', 'developer', 'admin', 'owner'] as const) {
      const member = await makeMember(db.tenancy, owner, 'leaving', role);
      await leave(member);
      await expect(list(member, 'leaving')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    }
    await expect(leave(owner)).rejects.toMatchObject({ code: 'CONFLICT' });
    const [viewer, developer] = [
      await makeMember(db.tenancy, owner, 'leaving', 'viewer'),
      await makeMember(db.tenancy, owner, 'leaving', 'developer'),
    ];
    await expect(
      db.tenancy.run(viewer, { tenant: 'leaving', permission: 'member.leave' }, (tx) =>
        tx.members.remove({ email: developer.email }),
      ),
    ).rejects.toMatchObject({ code: 'FORBIDDEN' });
    const { secret } = await act(developer, 'leaving', (tx) =>
      tx.tokens.create({ name: 'ci', role: 'developer' }),
    );
    await expect(leave(await db.tenancy.callerFromToken(secret))).rejects.toMatchObject({
      code: 'FORBIDDEN',
    });
  });

  test('who are removed are strangers, and so are their tokens', async () => {
    const owner = await makeTenant(db.tenancy, 'gone');
    const developer = await makeMember(db.tenancy, owner, 'gone', 'developer');
    const { secret } = await act(developer, 'gone', (tx) =>
      tx.tokens.create({ name: 'ci', role: 'developer' }),
    );
    const token = await db.tenancy.callerFromToken(secret);
    await act(owner, 'gone', (tx) => tx.members.remove({ email: developer.email }));
    await expect(list(developer, 'gone')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(list(token, 'gone')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(db.tenancy.callerFromToken(secret)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
    const usage = await act(owner, 'gone', (tx) => tx.quota.usage());
    expect(usage.find(({ resource }) => resource === 'tokens')?.used).toBe(0);
  });

  test('changes are in the audit log, which owners and admins read', async () => {
    const owner = await makeTenant(db.tenancy, 'audited');
    const viewer = await makeMember(db.tenancy, owner, 'audited', 'viewer');
    await act(owner, 'audited', (tx) => tx.members.setRole({ email: viewer.email, role: 'admin' }));
    const entries = (caller: Caller) => act(caller, 'audited', (tx) => tx.audit.list({ first: 2 }));
    expect(await entries(viewer)).toMatchObject({
      totalCount: 3,
      nodes: [
        { actor: owner.email, action: 'member.setRole', target: viewer.email },
        { actor: owner.email, action: 'member.add', target: viewer.email },
      ],
    });
    await act(owner, 'audited', (tx) =>
      tx.members.setRole({ email: viewer.email, role: 'viewer' }),
    );
    await expect(entries(viewer)).rejects.toMatchObject({ code: 'FORBIDDEN' });
  });
});
