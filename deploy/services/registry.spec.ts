import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ensureDirectory } from '../files.ts';
import { layout, makeSettings, type Layout } from '../settings.ts';
import { runScript } from '../supervise.ts';
import { ensureRegistryFiles, registryService } from './registry.ts';

let paths: Layout;
const owner = { uid: 65_534, gid: 65_534 };

beforeEach(async () => {
  paths = layout(await mkdtemp(join(tmpdir(), 'bulkhead-registry-')));
  for (const dir of [join(paths.rootKeys, '..'), paths.rootKeys]) await ensureDirectory(dir, 0o700);
});
afterEach(() => rm(join(paths.run, '..'), { recursive: true, force: true }));

test('its run script, which everybody may read, changes with the configuration and holds no secret', async () => {
  const settings = makeSettings({ root: '/srv/clone', stateDir: join(paths.run, '..') });
  const script = async (certificate: string) => {
    const fingerprint = await ensureRegistryFiles(settings, paths, owner, certificate);
    return runScript(paths, registryService(settings, paths, owner, fingerprint), tmpdir());
  };
  const first = await script('one');
  const secret = await readFile(join(paths.rootKeys, 'registry-http-secret'), 'utf8');
  expect(secret).toMatch(/^[0-9a-f]{64}$/);
  expect(first).toContain('BULKHEAD_FINGERPRINT=');
  expect(first).not.toContain(secret);
  expect(await script('one')).toBe(first);
});
