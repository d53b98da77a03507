import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createTestDatabase, makeTenant, makeUser, type TestDatabase } from '../testing.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

const address = '198.51.100.7';

describe('signing up', () => {
  test('makes a user who can sign in; the email is one however it is written', async () => {
    const { caller } = await db.tenancy.signUp({
      email: ' Ada@Example.org ',
      password: 'a long password',
      address,
    });
    expect(caller).toMatchObject({
      email: 'ada@example.org',
      name: 'ada',
      operator: false,
      via: 'session',
    });
    const again = await db.tenancy.signIn({
      email: 'ADA@example.org',
      password: 'a long password',
      address,
    });
    expect(again.caller).toEqual(caller);
    await expect(
      db.tenancy.signUp({ email: 'ada@example.org', password: 'another password', address }),
    ).rejects.toMatchObject({ code: 'CONFLICT' });
  });

  test.each([
    ['no address', 'nobody', 'a long password'],
    ['short password', 'short@example.org', 'too short'],
  ])('INVALID: %s', async (_, email, password) => {
    await expect(db.tenancy.signUp({ email, password, address })).rejects.toMatchObject({
      code: 'INVALID',
    });
  });

  test('keeps the password hashed with argon2id', async () => {
    await makeUser(db.tenancy, 'hashed');
    const user = await db.tenancy.platform((tx) =>
      tx.prisma.user.findUniqueOrThrow({ where: { email: 'hashed@example.org' } }),
    );
    expect(user.passwordHash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  });
});

describe('signing in', () => {
  test('says the same for an unknown email, a wrong password and a disabled user', async () => {
    await makeUser(db.tenancy, 'known');
    await makeUser(db.tenancy, 'disabled');
    await db.tenancy.platform((tx) =>
      tx.prisma.user.update({
        where: { email: 'disabled@example.org' },
        data: { disabledAt: new Date() },
      }),
    );
    for (const [email, password] of [
      ['known@example.org', 'not the password'],
      ['unknown@example.org', 'not the password'],
      ['disabled@example.org', 'disabled has a password'],
    ] as const) {
      await expect(db.tenancy.signIn({ email, password, address })).rejects.toMatchObject({
        code: 'UNAUTHENTICATED',
        message: 'wrong email or password',
      });
    }
  });

  test('is slowed down for who guesses, not for others, and not by success', async () => {
    await makeUser(db.tenancy, 'target');
    const email = 'target@example.org';
    const attempt = (password: string, from: string) =>
      db.tenancy.signIn({ email, password, address: from }).then(
        () => 'in',
        (error: { code: string }) => error.code,
      );
    // Many right ones are no attack.
    for (let i = 0; i < 12; i++)
      expect(await attempt('target has a password', '203.0.113.1')).toBe('in');
    const guesses = await Promise.all(
      Array.from({ length: 15 }, (_, i) => attempt(`guess number ${i}`, '203.0.113.2')),
    );
    expect(guesses.filter((code) => code === 'UNAUTHENTICATED')).toHaveLength(10);
    expect(guesses.filter((code) => code === 'UNAVAILABLE')).toHaveLength(5);
    expect(await attempt('target has a password', '203.0.113.2')).toBe('UNAVAILABLE');
    expect(await attempt('target has a password', '203.0.113.1')).toBe('in');
  });
});

describe('sessions', () => {
  test('end everywhere at once', async () => {
    await makeUser(db.tenancy, 'leaver');
    const password = 'leaver has a password';
    const signIn = () => db.tenancy.signIn({ email: 'leaver@example.org', password, address });
    const { caller, epoch } = await signIn();
    const session = { userId: caller.userId, epoch };
    expect(await db.tenancy.callerFromSession(session)).toEqual(caller);
    await db.tenancy.signOutEverywhere(caller);
    await expect(db.tenancy.callerFromSession(session)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
    const next = await signIn();
    expect(await db.tenancy.callerFromSession({ ...session, epoch: next.epoch })).toEqual(caller);
  });

  test('of nobody are refused', async () => {
    for (const userId of ['x', '00000000-0000-7000-8000-000000000000']) {
      await expect(db.tenancy.callerFromSession({ userId, epoch: 0 })).rejects.toMatchObject({
        code: 'UNAUTHENTICATED',
      });
    }
  });
});

describe('bootstrap', () => {
  test('may be repeated: passwords stay, owners are owners', async () => {
    const first = { email: 'boot@example.org', password: 'the first password', name: 'Boot' };
    const made = await db.tenancy.ensureUser(first);
    expect(made.created).toBe(true);
    const again = await db.tenancy.ensureOperator({ ...first, password: 'another password' });
    expect(again).toEqual({ userId: made.userId, created: false });
    const { caller } = await db.tenancy.signIn({ ...first, address });
    expect(caller.operator).toBe(true);

    const tenant = await db.tenancy.ensureTenant({ slug: 'boot', ownerEmail: first.email });
    expect(await db.tenancy.ensureTenant({ slug: 'boot', ownerEmail: first.email })).toEqual(
      tenant,
    );
    const memberships = await db.tenancy.asUser(caller, (tx) => tx.tenants.memberships());
    expect(memberships).toEqual([{ role: 'owner', tenant }]);
  });
});

describe('tenants of a user', () => {
  test.each(['www', 'api', 'Demo', '-x', 'x-', 'xn--x', '', '9lives'])(
    'INVALID slug: %s',
    async (slug) => {
      const user = await makeUser(db.tenancy, 'namer');
      await expect(
        db.tenancy.asUser(user, (tx) => tx.tenants.create({ slug })),
      ).rejects.toMatchObject({ code: 'INVALID' });
    },
  );

  test('have one name each; another’s are not listed', async () => {
    const one = await makeTenant(db.tenancy, 'mine');
    const other = await makeTenant(db.tenancy, 'theirs');
    await expect(
      db.tenancy.asUser(other, (tx) => tx.tenants.create({ slug: 'mine' })),
    ).rejects.toMatchObject({ code: 'CONFLICT' });
    const list = await db.tenancy.asUser(one, (tx) => tx.tenants.memberships());
    expect(list.map(({ role, tenant }) => [role, tenant.slug])).toEqual([['owner', 'mine']]);
  });
});
