import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../testing.ts';
import { nameStatements } from './statements.ts';

describe('a name', () => {
  const say = (name: ReturnType<typeof nameStatements>, sql: string, times: number) =>
    Array.from({ length: times }, () => name({ sql }));

  test('is for what comes again and again, and stays the same', () => {
    const name = nameStatements({ after: 3, most: 10 });
    expect(say(name, 'one', 5)).toEqual(['', '', 's1', 's1', 's1']);
    expect(say(name, 'two', 4)).toEqual(['', '', 's2', 's2']);
    expect(say(name, 'one', 1)).toEqual(['s1']);
  });

  test('is had by no more than PostgreSQL is to keep', () => {
    const name = nameStatements({ after: 1, most: 2 });
    expect(['a', 'b', 'c', 'a'].map((sql) => name({ sql }))).toEqual(['s1', 's2', '', 's1']);
  });

  test('is not for lists, whose texts are as many as they have lengths', () => {
    expect(say(nameStatements({ after: 1 }), 'x'.repeat(10_000), 2)).toEqual(['', '']);
  });
});

describe('PostgreSQL', () => {
  let db: TestDatabase;
  beforeAll(async () => {
    db = await createTestDatabase();
  });
  afterAll(() => db.drop());

  test('plans a named statement once, for whatever tenant it is asked behind the wall', async () => {
    const tenants = ['one', 'two'].map((slug) => ({ slug, id: crypto.randomUUID(), name: slug }));
    await db.tenancy.platform((tx) => tx.prisma.tenant.createMany({ data: tenants }));
    const known = await db.tenancy.platform(async (tx) => {
      for (let time = 0; time < 12; time++) {
        const { id, slug } = tenants[time % 2]!;
        await tx.prisma
          .$queryRaw`SELECT set_config('bulkhead.tenant', ${id}, true), set_config('bulkhead.scope', '', true)`;
        const seen = await tx.prisma.$queryRaw`SELECT "slug" FROM "Tenant"`;
        expect(seen).toEqual([{ slug }]);
      }
      return tx.prisma.$queryRaw`
        SELECT name, generic_plans > 0 AS "planned" FROM pg_prepared_statements
        WHERE statement = 'SELECT "slug" FROM "Tenant"'`;
    });
    expect(known).toEqual([{ name: expect.stringMatching(/^s\d+$/), planned: true }]);
  });
});
