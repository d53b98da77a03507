import { afterAll, beforeAll, expect, test } from 'vitest';
import { createTestDatabase, makeTenant, type TestDatabase } from '../testing.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

test('a NUL character, which PostgreSQL cannot hold, is the caller’s mistake and not ours', async () => {
  const owner = await makeTenant(db.tenancy, 'nul');
  const nul = 'a\u0000b';
  const inTenant = { tenant: 'nul', permission: 'app.deploy' } as const;
  const attempts = [
    () => db.tenancy.asUser(owner, (tx) => tx.tenants.create({ slug: 'nul-two', name: nul })),
    () => db.tenancy.run(owner, { ...inTenant, tenant: nul }, async (tx) => tx.tenant),
    () => db.tenancy.run(owner, inTenant, (tx) => tx.apps.get(nul)),
    // In JSON it comes as another error.
    () =>
      db.tenancy.platform((tx) => tx.prisma.$queryRaw`SELECT ${JSON.stringify({ nul })}::jsonb`),
    () => db.tenancy.signIn({ email: `${nul}@example.com`, password: nul, address: '192.0.2.1' }),
  ];
  for (const attempt of attempts) {
    await expect(attempt()).rejects.toMatchObject({
      code: 'INVALID',
      message: expect.stringContaining('NUL character') as string,
    });
  }
});
