/**
 * Signs the `bulkhead` command of whoever ran `npm run up` in as the demo user, so that the first
 * commands work at once. Somebody who works with another server, or as another user, is left alone.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { FirstUser } from './credentials.ts';
import type { Platform } from './platform.ts';

interface Context {
  current: boolean;
  server: string;
}

/** Whether `npx bulkhead` now speaks to this platform. */
export async function ensureSignedIn(
  { settings, apiUrl }: Platform,
  user: FirstUser,
): Promise<boolean> {
  const bulkhead = (args: string[], input = '') =>
    spawnSync(
      join(settings.root, 'node_modules/.bin/node'),
      [join(settings.root, 'apps/cli/dist/bulkhead.js'), ...args],
      { encoding: 'utf8', input, timeout: 30_000 },
    );
  const list = bulkhead(['context', 'list', '--json']);
  if (list.status !== 0) return false;
  const current = (JSON.parse(list.stdout) as Context[]).find((context) => context.current);
  if (current !== undefined && current.server !== apiUrl && (await isInUse(current.server)))
    return false;
  // A token of a platform that was purged is worth nothing.
  if (current?.server === apiUrl && bulkhead(['whoami']).status === 0) return true;
  const options = ['--email', user.email, '--password-stdin', '--tenant', 'demo'];
  return bulkhead(['login', apiUrl, ...options], user.password).status === 0;
}

/** Another server counts unless it was a platform on this machine that is no more. */
async function isInUse(server: string): Promise<boolean> {
  if (new URL(server).hostname !== '127.0.0.1') return true;
  return fetch(`${server}/healthz`, { signal: AbortSignal.timeout(3_000) }).then(
    () => true,
    () => false,
  );
}
