import { randomUUID } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PrismaPg } from '@prisma/adapter-pg';
import {
  bindMigrationAwareSqlAdapterFactory,
  ColumnTypeEnum,
  type SqlDriverAdapter,
} from '@prisma/driver-adapter-utils';
import pg from 'pg';
import * as glue from '@prisma/schema-engine-wasm/schema_engine_bg';

/**
 * Prisma's schema engine as WebAssembly. The stock CLI downloads a binary instead, which an
 * air-gapped installation cannot; both keep the same `_prisma_migrations` table.
 */
const prismaDir = fileURLToPath(new URL('../../../../prisma/', import.meta.url));
export const migrationsDir = join(prismaDir, 'migrations');
const schemaPath = join(prismaDir, 'schema.prisma');

const noFilters = { externalTables: [], externalEnums: [] };

/** The two calls we need; the `dom` library, which has the types, has no place in a server. */
declare const WebAssembly: {
  compile(bytes: Uint8Array): Promise<object>;
  instantiate(module: object, imports: object): Promise<{ exports: Record<string, unknown> }>;
};

let wasm: Promise<void> | undefined;

/**
 * The engine's glue keeps one instance per process. Loaded by hand: importing the package itself
 * works too, but is experimental in Node 24 and says so on stderr.
 */
function loadWasm(): Promise<void> {
  wasm ??= (async () => {
    const js = import.meta.resolve('@prisma/schema-engine-wasm/schema_engine_bg');
    const bytes = await readFile(new URL('./schema_engine_bg.wasm', js));
    const instance = await WebAssembly.instantiate(await WebAssembly.compile(bytes), {
      './schema_engine_bg.js': glue,
    });
    glue.__wbg_set_wasm(instance.exports);
    (instance.exports['__wbindgen_start'] as () => void)();
  })();
  return wasm;
}

const charType = 18;
const textType = 25;
const charMark = ' ("char")';

/**
 * PostgreSQL's catalog has columns of the one-byte type "char", which the engine reads when it
 * describes a schema and @prisma/adapter-pg 7.10 refuses. They pass through it as marked text.
 */
class CatalogPool extends pg.Pool {
  // pg's overloads cannot be said again in a subclass; the adapter uses the promise form alone.
  override query(...args: unknown[]): never {
    const answer = Reflect.apply(super.query, this, args) as Promise<pg.QueryResult>;
    return answer.then((result) => {
      for (const field of result.fields ?? []) {
        if (field.dataTypeID !== charType) continue;
        field.dataTypeID = textType;
        field.name += charMark;
      }
      return result;
    }) as never;
  }
}

/** Turns the marked columns into what the engine expects. */
async function connectCatalog(pool: pg.Pool): Promise<SqlDriverAdapter> {
  const adapter = await new PrismaPg(pool).connect();
  const queryRaw = adapter.queryRaw.bind(adapter);
  adapter.queryRaw = async (query) => {
    const result = await queryRaw(query);
    result.columnNames.forEach((name, i) => {
      if (!name.endsWith(charMark)) return;
      result.columnNames[i] = name.slice(0, -charMark.length);
      result.columnTypes[i] = ColumnTypeEnum.Character;
    });
    return result;
  };
  return adapter;
}

/**
 * Runs the engine on `databaseUrl`. It replays migrations only in `shadowUrl`, an empty database
 * that the caller made: the adapter's own way to make one ignores the name when it is given a URL.
 */
async function withEngine<T>(
  databaseUrl: string,
  shadowUrl: string | null,
  work: (engine: glue.SchemaEngine) => Promise<T>,
): Promise<T> {
  await loadWasm();
  const pools: pg.Pool[] = [];
  const connect = (connectionString: string) => {
    const pool = new CatalogPool({ connectionString, idleTimeoutMillis: 0 });
    pools.push(pool);
    return connectCatalog(pool);
  };
  const adapter = bindMigrationAwareSqlAdapterFactory({
    provider: 'postgres',
    adapterName: '@prisma/adapter-pg',
    connect: () => connect(databaseUrl),
    connectToShadowDb: () => {
      if (shadowUrl === null) throw new Error('no shadow database was given');
      return connect(shadowUrl);
    },
  });
  const engine = await glue.SchemaEngine.new(
    { datamodels: [[schemaPath, await readFile(schemaPath, 'utf8')]] },
    () => undefined,
    adapter,
  );
  try {
    return await work(engine);
  } finally {
    engine.free();
    await Promise.all(pools.map((pool) => pool.end()));
  }
}

/** What is committed in prisma/migrations, in the order of its names. */
async function readMigrations(): Promise<glue.MigrationList> {
  const entries = await readdir(migrationsDir, { withFileTypes: true });
  const names = entries
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort();
  return {
    baseDir: migrationsDir,
    lockfile: {
      path: 'migration_lock.toml',
      content: await readFile(join(migrationsDir, 'migration_lock.toml'), 'utf8'),
    },
    shadowDbInitScript: '',
    migrationDirectories: await Promise.all(
      names.map(async (name) => ({
        path: name,
        migrationFile: {
          path: 'migration.sql',
          content: {
            tag: 'ok' as const,
            value: await readFile(join(migrationsDir, name, 'migration.sql'), 'utf8'),
          },
        },
      })),
    ),
  };
}

/** Applies what is missing, in order; answers the names of what it applied. */
export async function applyMigrations(databaseUrl: string): Promise<readonly string[]> {
  const migrationsList = await readMigrations();
  const { appliedMigrationNames } = await withEngine(databaseUrl, null, (engine) =>
    engine.applyMigrations({ migrationsList, filters: noFilters }),
  );
  return appliedMigrationNames;
}

/**
 * The SQL that leads from the committed migrations to schema.prisma; null when they agree.
 * `adminUrl` needs the right to create databases: the migrations are replayed in a throw-away one.
 */
export async function diffSchema(adminUrl: string): Promise<string | null> {
  const from = await readMigrations();
  const files = [{ path: schemaPath, content: await readFile(schemaPath, 'utf8') }];
  const database = `bulkhead_shadow_${randomUUID().replaceAll('-', '')}`;
  const shadow = new URL(adminUrl);
  shadow.pathname = `/${database}`;
  const admin = new pg.Client({ connectionString: adminUrl });
  await admin.connect();
  try {
    await admin.query(`CREATE DATABASE ${database}`);
    const { exitCode, stdout } = await withEngine(adminUrl, shadow.href, (engine) =>
      engine.diff({
        from: { tag: 'migrations', ...from },
        to: { tag: 'schemaDatamodel', files },
        script: true,
        exitCode: true,
        filters: noFilters,
      }),
    );
    return exitCode === 0 ? null : stdout;
  } finally {
    await admin.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
    await admin.end();
  }
}
