import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, mkdir, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { CliError } from '../errors.ts';

/**
 * The file with the contexts: which servers this person uses, as whom, for which tenant. It holds
 * session tokens, so it is for its owner alone: 0600 in a directory of 0700, replaced as a whole.
 */
const storedContext = z.object({
  server: z.string(),
  tenant: z.string().nullable().default(null),
  token: z.string().nullable().default(null),
  email: z.string().nullable().default(null),
});
export type StoredContext = z.infer<typeof storedContext>;

const contextFile = z.object({
  version: z.literal(1),
  current: z.string().nullable(),
  contexts: z.record(z.string(), storedContext),
});
export type ContextFile = z.infer<typeof contextFile>;

const empty: ContextFile = { version: 1, current: null, contexts: {} };

/** `$XDG_CONFIG_HOME/bulkhead/config.json`, else under `~/.config`. */
export function contextPath(env: NodeJS.ProcessEnv): string {
  const base = env['XDG_CONFIG_HOME'];
  return join(base?.startsWith('/') ? base : join(homedir(), '.config'), 'bulkhead', 'config.json');
}

/**
 * Reads the contexts; a missing file is an empty one. A mode that lets others read is repaired and
 * `warn` says so. Throws when the file belongs to somebody else or makes no sense.
 */
export async function readContexts(
  path: string,
  warn: (text: string) => void,
): Promise<ContextFile> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return structuredClone(empty);
    throw new CliError('FAILED', `cannot read ${path}: ${(error as Error).message}`);
  }
  try {
    // The open file, not the path: what is checked is what is read.
    const { mode, uid } = await file.stat();
    const me = process.getuid?.();
    if (me !== undefined && uid !== me && uid !== 0) {
      throw new CliError('FAILED', `${path} belongs to another user (uid ${String(uid)})`, {
        hint: 'It may hold somebody else’s token. Remove it, or point XDG_CONFIG_HOME elsewhere.',
      });
    }
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      await file.chmod(0o600);
      warn(
        `${path} could be read by others (mode ${(mode & 0o777).toString(8)}); it is 600 now. ` +
          'If somebody may have seen it, run `bulkhead logout --everywhere` and sign in again.',
      );
    }
    return contextFile.parse(JSON.parse(await file.readFile('utf8')));
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError('FAILED', `${path} is damaged`, {
      hint: `Move it away (mv '${path}' '${path}.broken') and sign in again with \`bulkhead login\`.`,
    });
  } finally {
    await file.close();
  }
}

/** Replaces the file: a reader sees the old one or the new one, whole. */
export async function writeContexts(path: string, contexts: ContextFile): Promise<void> {
  const target = await realpath(path).catch(() => path);
  const directory = dirname(target);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  if (((await stat(directory)).mode & 0o077) !== 0) await chmod(directory, 0o700);
  const draft = join(directory, `.config.${randomBytes(6).toString('hex')}`);
  try {
    const file = await open(
      draft,
      constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY,
      0o600,
    );
    try {
      await file.writeFile(`${JSON.stringify(contexts, null, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, target);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}
