import { readFileSync } from 'node:fs';
import { migrate } from './db/migrate.ts';

/** `node libs/tenancy/dist/migrate.js`, with DATABASE_URL or DATABASE_URL_FILE. */
const file = process.env['DATABASE_URL_FILE'];
const url = process.env['DATABASE_URL'] ?? (file && readFileSync(file, 'utf8').trim());
if (!url) {
  console.error('set DATABASE_URL, or DATABASE_URL_FILE to a file that holds it');
  process.exit(2);
}
const applied = await migrate(url);
// The engine leaves a timer behind for 10 seconds.
const text = applied.length > 0 ? `applied ${applied.join(', ')}` : 'nothing to apply';
// The engine leaves a timer of ten seconds behind; nobody shall wait for it.
process.stdout.write(`${text}\n`, () => process.exit());
process.exit(0);
