import { createHash } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

const built = [
  'apps/api',
  'apps/node-agent',
  'apps/edge',
  'libs/protocol',
  'libs/runtime',
  'libs/scheduler',
  'libs/tenancy',
];

/** Hash of everything that the services run, so that a new build restarts them and the same one does not. */
export async function buildFingerprint(clone: string): Promise<string> {
  const hash = createHash('sha256').update(await readFile(join(clone, 'package-lock.json')));
  for (const project of built) {
    const dist = join(clone, project, 'dist');
    const files = (await readdir(dist, { recursive: true }))
      .filter((name) => name.endsWith('.js'))
      .sort();
    for (const file of files) hash.update(file).update(await readFile(join(dist, file)));
  }
  return hash.digest('hex').slice(0, 16);
}
