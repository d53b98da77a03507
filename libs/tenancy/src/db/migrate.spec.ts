import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { expect, test } from 'vitest';
import { testServerUrl } from '../testing/server.ts';
import { ensureDatabase, migrate } from './migrate.ts';
import { diffSchema } from './schema-engine.ts';

test('schema.prisma and the committed migrations agree', async () => {
  expect(await diffSchema(await testServerUrl())).toBeNull();
});

test('replicas that start at once migrate once, and a later start does nothing', async () => {
  const adminUrl = await testServerUrl();
  const database = `migrate_${randomBytes(6).toString('hex')}`;
  const owner = { adminUrl, database, role: database, password: 'secret of the test' };
  const url = await ensureDatabase(owner);
  // Asking again changes nothing.
  expect(await ensureDatabase(owner)).toBe(url);
  const admin = new pg.Client({ connectionString: adminUrl });
  await admin.connect();
  try {
    const [first, second] = await Promise.all([migrate(url), migrate(url)]);
    const applied = [...first, ...second];
    expect(applied.length).toBeGreaterThan(0);
    expect(new Set(applied).size).toBe(applied.length);
    expect(await migrate(url)).toEqual([]);

    const client = new pg.Client({ connectionString: url });
    await client.connect();
    const { rows } = await client.query<{ migration_name: string; done: boolean }>(
      'SELECT migration_name, finished_at IS NOT NULL AS done FROM _prisma_migrations ORDER BY 1',
    );
    await client.end();
    expect(rows).toEqual(applied.sort().map((name) => ({ migration_name: name, done: true })));
  } finally {
    await admin.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
    await admin.query(`DROP ROLE IF EXISTS ${database}`);
    await admin.end();
  }
});
