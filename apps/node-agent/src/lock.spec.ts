import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { lockDirectory } from './lock.ts';
import { temporaryDirectory } from './testing.ts';

test('one agent per directory, by whatever path, until it lets go', async () => {
  const directory = await temporaryDirectory();
  const alias = join(await temporaryDirectory(), 'alias');
  await symlink(directory, alias);

  const lock = await lockDirectory(directory);
  await expect(lockDirectory(alias)).rejects.toThrow('Another agent runs on');
  const other = await lockDirectory(await temporaryDirectory());
  await lock.release();
  await other.release();
  await (await lockDirectory(alias)).release();
});
