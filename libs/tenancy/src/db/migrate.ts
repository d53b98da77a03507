import pg from 'pg';
import { applyMigrations } from './schema-engine.ts';

/** Any number, as long as every release of the platform uses the same. */
const migrationLock = 7_301_642_905;

/**
 * Applies the migrations of prisma/migrations that are missing, and keeps Prisma's own
 * `_prisma_migrations`, so the stock CLI can take over. Safe to run from several replicas at once:
 * the second waits for an advisory lock and then finds nothing to do. Answers the names applied now.
 */
export async function migrate(databaseUrl: string): Promise<readonly string[]> {
  const lock = new pg.Client({ connectionString: databaseUrl });
  await lock.connect();
  try {
    await lock.query('SELECT pg_advisory_lock($1)', [migrationLock]);
    return await applyMigrations(databaseUrl);
  } finally {
    // Ends the session and with it the lock.
    await lock.end();
  }
}

/**
 * Makes, if missing, a login role without superuser or BYPASSRLS rights and a database that it
 * owns. `adminUrl` must be allowed to. Answers the database's URL for that role.
 */
export async function ensureDatabase(options: {
  adminUrl: string;
  database: string;
  role: string;
  password: string;
}): Promise<string> {
  const { adminUrl, database, role, password } = options;
  const admin = new pg.Client({ connectionString: adminUrl });
  await admin.connect();
  try {
    // Two that do this at once would change one role's row at once. Given back with the connection.
    await admin.query("SELECT pg_advisory_lock(hashtext('bulkhead.ensureDatabase'))");
    const name = pg.escapeIdentifier(role);
    const known = await admin.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [role]);
    await admin.query(
      `${known.rowCount ? 'ALTER' : 'CREATE'} ROLE ${name} LOGIN NOSUPERUSER NOBYPASSRLS ` +
        `NOCREATEROLE NOCREATEDB PASSWORD ${pg.escapeLiteral(password)}`,
    );
    const made = await admin.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (!made.rowCount) {
      await admin.query(`CREATE DATABASE ${pg.escapeIdentifier(database)} OWNER ${name}`);
    }
  } finally {
    await admin.end();
  }
  const url = new URL(adminUrl);
  url.username = encodeURIComponent(role);
  url.password = encodeURIComponent(password);
  url.pathname = `/${encodeURIComponent(database)}`;
  return url.href;
}
