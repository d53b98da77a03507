/** The platform's PostgreSQL as it is run in production, durable, and what pgbench says of it. */
import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ensureDatabase, migrate } from '@bulkhead/tenancy';
import { startServer } from '@bulkhead/tenancy/testing';
import pg from 'pg';
import { postgresSettings } from '../../deploy/services/postgres.ts';
import { until } from '../../e2e/support/until.ts';

const run = promisify(execFile);

export interface Postgres {
  /** A superuser's, to the platform's database. */
  readonly adminUrl: string;
  /** The platform's own role's. */
  readonly url: string;
  readonly pid: number;
}

/** `dir` must be passable for the user `postgres`. */
export async function startPostgres(
  dir: string,
  ends: (() => Promise<unknown>)[],
): Promise<Postgres> {
  await mkdir(dir, { mode: 0o711 });
  const server = await startServer(process.pid, dir, [
    ...postgresSettings,
    ...(process.env['FLEET_STATEMENTS']
      ? ['shared_preload_libraries=pg_stat_statements', 'pg_stat_statements.track=all']
      : []),
  ]);
  const role = { role: 'bulkhead', password: 'bulkhead' };
  const url = await ensureDatabase({ adminUrl: server, database: 'bulkhead', ...role });
  await migrate(url);
  const adminUrl = new URL(server);
  adminUrl.pathname = '/bulkhead';
  const pid = Number((await readFile(join(dir, 'data/postmaster.pid'), 'utf8')).split('\n')[0]);
  // Its supervisor takes the folder away after it.
  ends.push(async () => {
    process.kill(pid, 'SIGINT');
    await until('PostgreSQL has ended', async () => !(await stat(dir).catch(() => null)));
  });
  return { adminUrl: adminUrl.href, url, pid };
}

export async function asSuperuser<T>(
  { adminUrl }: Postgres,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({ connectionString: adminUrl });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Debian's pgbench, of whatever version there is. */
async function pgbenchBinary(): Promise<string> {
  const versions = await readdir('/usr/lib/postgresql').catch(() => []);
  const [newest] = versions.sort((a, b) => Number(b) - Number(a));
  if (newest === undefined) throw new Error('there is no pgbench: apt-get install postgresql-15');
  return join('/usr/lib/postgresql', newest, 'bin/pgbench');
}

/** Transactions a second of a script that pgbench runs; without one, of its own simple update. */
export async function pgbench(
  postgres: Postgres,
  options: { clients: number; seconds: number; script?: string },
  dir: string,
): Promise<number> {
  const url = new URL(postgres.adminUrl);
  const binary = await pgbenchBinary();
  const env = {
    ...process.env,
    ...{ PGHOST: url.hostname, PGPORT: url.port, PGUSER: url.username },
    PGPASSWORD: decodeURIComponent(url.password),
  };
  const database = 'pgbench';
  await asSuperuser(postgres, async (client) => {
    const known = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (known.rowCount) return;
    await client.query(`CREATE DATABASE ${database}`);
    await run(binary, ['-i', '-q', '-s', '10', database], { env });
  });
  const file = join(dir, 'pgbench.sql');
  if (options.script !== undefined) await writeFile(file, options.script);
  const { stdout } = await run(
    binary,
    [
      ...(options.script === undefined ? ['-N'] : ['-n', '-f', file]),
      ...['-c', String(options.clients), '-j', '1', '-T', String(options.seconds), database],
    ],
    { env },
  );
  return Number(/^tps = ([\d.]+)/m.exec(stdout)?.[1]);
}

/** Statements that PostgreSQL spends its time on, when it is told to count. */
export async function topStatements(postgres: Postgres): Promise<string[]> {
  if (!process.env['FLEET_STATEMENTS']) return [];
  return asSuperuser(postgres, async (client) => {
    await client.query('CREATE EXTENSION IF NOT EXISTS pg_stat_statements');
    const { rows } = await client.query<{ ms: number; calls: number; rows: number; query: string }>(
      `SELECT total_exec_time::int AS ms, calls::int, rows::int, left(regexp_replace(query, '\\s+', ' ', 'g'), 110) AS query
       FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 25`,
    );
    await client.query('SELECT pg_stat_statements_reset()');
    return rows.map(
      ({ ms, calls, rows: found, query }) => `${ms} ms, ${calls} calls, ${found} rows: ${query}`,
    );
  });
}
