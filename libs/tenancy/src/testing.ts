import { createHash, randomBytes } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { ensureDatabase, migrate } from './db/migrate.ts';
import { migrationsDir } from './db/schema-engine.ts';
import { Tenancy } from './tenancy.ts';
import { startServer, testServerUrl } from './testing/server.ts';

export { startServer, testServerUrl };
export * from './testing/fixtures.ts';
export * from './testing/instances.ts';

/** A fresh, migrated database of its own on a real PostgreSQL. */
export interface TestDatabase {
  /** For a role that row-level security binds, as in production. */
  readonly url: string;
  /** For looking past row-level security in assertions. */
  readonly adminUrl: string;
  /** Connected to it, with a key of its own. */
  readonly tenancy: Tenancy;
  /** Closes `tenancy` and drops the database. */
  drop(): Promise<void>;
}

const role = { role: 'bulkhead_test', password: 'bulkhead_test' };

/**
 * Makes a database from a migrated template. The server is `TEST_DATABASE_URL` (a superuser's URL)
 * or an embedded PostgreSQL shared by all processes of the test run, which ends with the run.
 */
export async function createTestDatabase(
  options: { now?: () => Date } = {},
): Promise<TestDatabase> {
  const server = await testServerUrl();
  const database = `test_${randomBytes(8).toString('hex')}`;
  await withAdmin(server, async (admin) => {
    const template = await ensureTemplate(server, admin);
    await admin.query(`CREATE DATABASE ${database} TEMPLATE ${template} OWNER ${role.role}`);
  });
  const url = await ensureDatabase({ adminUrl: server, database, ...role });
  const adminUrl = new URL(server);
  adminUrl.pathname = `/${database}`;
  const tenancy = await Tenancy.connect({
    databaseUrl: url,
    configKey: { kty: 'oct', k: randomBytes(32).toString('base64url') },
    ...options,
  });
  return {
    url,
    adminUrl: adminUrl.href,
    tenancy,
    drop: async () => {
      await tenancy.close();
      await withAdmin(server, (admin) => admin.query(`DROP DATABASE ${database} WITH (FORCE)`));
    },
  };
}

/** Migrates once per set of migrations; the lock makes the other processes wait for it. */
async function ensureTemplate(server: string, admin: pg.Client): Promise<string> {
  const hash = createHash('sha256');
  for (const name of (await readdir(migrationsDir)).sort()) {
    if (name.endsWith('.toml')) continue;
    hash.update(name).update(await readFile(join(migrationsDir, name, 'migration.sql')));
  }
  const template = `template_${hash.digest('hex').slice(0, 16)}`;
  await admin.query('SELECT pg_advisory_lock(1)');
  const done = await admin.query('SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate', [
    template,
  ]);
  if (!done.rowCount) {
    // Left half-made by a run that was killed.
    await admin.query(`DROP DATABASE IF EXISTS ${template} WITH (FORCE)`);
    await migrate(await ensureDatabase({ adminUrl: server, database: template, ...role }));
    await admin.query(`ALTER DATABASE ${template} IS_TEMPLATE true`);
  }
  await admin.query('SELECT pg_advisory_unlock(1)');
  return template;
}

async function withAdmin<T>(url: string, work: (admin: pg.Client) => Promise<T>): Promise<T> {
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.end();
  }
}
