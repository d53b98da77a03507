import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { diffSchema, migrationsDir } from './db/schema-engine.ts';
import { testServerUrl } from './testing/server.ts';

/**
 * `npm run migration -- <name>`: writes prisma/migrations/<timestamp>_<name>/migration.sql with
 * what leads from the committed migrations to schema.prisma. Read it, add what Prisma cannot say
 * (policies, checks), commit it; a migration that was released is never changed.
 */
const name = process.argv[2];
if (name === undefined || !/^[a-z][a-z0-9_]*$/.test(name)) {
  console.error('usage: npm run migration -- <name in a-z, 0-9 and _>');
  process.exit(2);
}
const sql = await diffSchema(await testServerUrl());
if (sql === null) {
  console.log('schema.prisma and the migrations agree: nothing to write');
} else {
  const stamp = new Date()
    .toISOString()
    .replaceAll(/[^0-9]/g, '')
    .slice(0, 14);
  const folder = join(migrationsDir, `${stamp}_${name}`);
  await mkdir(folder);
  await writeFile(join(folder, 'migration.sql'), sql);
  console.log(`wrote ${folder}/migration.sql`);
}
