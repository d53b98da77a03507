import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Tenancy } from './tenancy.ts';
import { createTestDatabase, makeTenant, makeUser, type TestDatabase } from './testing.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

describe('the tenant’s door', () => {
  test('opens for members only; for others there is no such tenant', async () => {
    const owner = await makeTenant(db.tenancy, 'door');
    const stranger = await makeUser(db.tenancy, 'stranger');
    const enter = (caller: typeof owner, tenant: string) =>
      db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, async (tx) => tx.tenant.slug);

    expect(await enter(owner, 'door')).toBe('door');
    await expect(enter(stranger, 'door')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: 'tenant door not found',
    });
    await expect(enter(stranger, 'nowhere')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: 'tenant nowhere not found',
    });
  });

  test('rolls back what a failed operation did', async () => {
    const owner = await makeTenant(db.tenancy, 'rolls');
    const failing = db.tenancy.run(
      owner,
      { tenant: 'rolls', permission: 'app.create' },
      async (tx) => {
        await tx.apps.create({ name: 'half' });
        throw new Error('after the fact');
      },
    );
    await expect(failing).rejects.toThrow('after the fact');
    const page = await db.tenancy.run(owner, { tenant: 'rolls', permission: 'app.read' }, (tx) =>
      tx.apps.list({}),
    );
    expect(page.totalCount).toBe(0);
  });
});

test('the time is PostgreSQL’s, whatever the clock of this process is set to', async () => {
  const hour = 3_600_000;
  for (const wrongBy of [13 * hour, -13 * hour]) {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + wrongBy });
    try {
      const told = await db.tenancy.platform(async (tx) => tx.now);
      const carriedOn = db.tenancy.now().getTime();
      expect(Math.abs(carriedOn - told.getTime())).toBeLessThan(hour);
      expect(Math.abs(Date.now() - carriedOn)).toBeGreaterThan(12 * hour);
    } finally {
      vi.useRealTimers();
    }
  }
});

test('PostgreSQL ends a transaction that nobody goes on with, so that it holds up no other', async () => {
  const hung = db.tenancy.platform(async (tx) => {
    await tx.prisma.$executeRaw`SELECT pg_advisory_xact_lock(1)`;
    const [row] = await tx.prisma.$queryRaw<{ limit: string }[]>`
      SELECT current_setting('idle_in_transaction_session_timeout') AS "limit"`;
    expect(row).toEqual({ limit: '16s' });
    // As if that were over.
    await tx.prisma.$queryRaw`SELECT set_config('idle_in_transaction_session_timeout', '50', true)`;
    await db.tenancy.platform((other) => other.prisma.$executeRaw`SELECT pg_advisory_xact_lock(1)`);
    await tx.prisma.$queryRaw`SELECT 1`;
  });
  await expect(hung).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

describe('row-level security', () => {
  test('binds raw SQL to the tenant of the door, and shows nothing without a door', async () => {
    const one = await makeTenant(db.tenancy, 'wall-one');
    const two = await makeTenant(db.tenancy, 'wall-two');
    for (const [owner, tenant] of [
      [one, 'wall-one'],
      [two, 'wall-two'],
    ] as const) {
      await db.tenancy.run(owner, { tenant, permission: 'app.create' }, (tx) =>
        tx.apps.create({ name: `${tenant}-app` }),
      );
    }
    const client = new pg.Client({ connectionString: db.url });
    await client.connect();
    try {
      const { rows: tables } = await client.query<{ name: string; forced: boolean }>(`
        SELECT relname AS name, relrowsecurity AND relforcerowsecurity AS forced
        FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
          AND relname <> '_prisma_migrations'`);
      expect(tables.filter(({ forced }) => !forced)).toEqual([]);
      expect(tables.length).toBeGreaterThan(15);
      // Not bound to anything: every table is empty.
      for (const { name } of tables) {
        expect((await client.query(`SELECT * FROM "${name}"`)).rows).toEqual([]);
      }

      const rows = await db.tenancy.platform((tx) =>
        tx.prisma.tenant.findMany({
          where: { slug: { startsWith: 'wall-' } },
          orderBy: { slug: 'asc' },
        }),
      );
      const tenants = rows.map(({ id }) => id);
      await client.query('BEGIN');
      await client.query(`SELECT set_config('bulkhead.tenant', $1, true)`, [tenants[0]]);
      const seen = await client.query('SELECT "name" FROM "App"');
      expect(seen.rows).toEqual([{ name: 'wall-one-app' }]);
      expect((await client.query('SELECT "slug" FROM "Tenant"')).rows).toEqual([
        { slug: 'wall-one' },
      ]);
      expect((await client.query('SELECT "email" FROM "User"')).rows).toEqual([
        { email: 'wall-one-owner@example.org' },
      ]);
      const changed = await client.query(
        `UPDATE "App" SET "name" = 'stolen' WHERE "tenantId" = $1`,
        [tenants[1]],
      );
      expect(changed.rowCount).toBe(0);
      await client.query('SAVEPOINT s');
      await expect(
        client.query(
          `INSERT INTO "QuotaLimit" ("tenantId", "resource", "limit") VALUES ($1, 'apps', 999)`,
          [tenants[1]],
        ),
      ).rejects.toThrow('row-level security');
      await client.query('ROLLBACK TO s');
      // The audit log only grows.
      expect((await client.query('DELETE FROM "AuditEntry"')).rowCount).toBe(0);
      await client.query('ROLLBACK');
    } finally {
      await client.end();
    }
  });

  test('is not left to chance: a role that it does not bind is refused', async () => {
    await expect(
      Tenancy.connect({
        databaseUrl: db.adminUrl,
        configKey: { kty: 'oct', k: Buffer.alloc(32).toString('base64url') },
      }),
    ).rejects.toThrow('superuser');
  });
});

test('a database that does not answer is UNAVAILABLE', async () => {
  await expect(
    Tenancy.connect({
      databaseUrl: 'postgresql://nobody@127.0.0.1:1/none',
      configKey: { kty: 'oct', k: Buffer.alloc(32).toString('base64url') },
    }),
  ).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('a connection that is cut in the middle is UNAVAILABLE, and the next one works', async () => {
  const admin = new pg.Client({ connectionString: db.adminUrl });
  await admin.connect();
  try {
    const cut = db.tenancy.platform(async (tx) => {
      const [self] = await tx.prisma.$queryRaw<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`;
      await admin.query('SELECT pg_terminate_backend($1)', [self?.pid]);
      await tx.prisma.tenant.count();
    });
    await expect(cut).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await db.tenancy.ping();
  } finally {
    await admin.end();
  }
});
