import { CliError, usageError } from '../errors.ts';
import { normaliseServer, defaultServer } from './server.ts';
import type { ContextFile, StoredContext } from './store.ts';
import type { ProjectFile } from './project.ts';

/** What the options that every command takes said. */
export interface GlobalOptions {
  readonly json?: boolean;
  readonly context?: string;
  readonly server?: string;
  readonly insecure?: boolean;
  readonly tenant?: string;
  readonly app?: string;
}

export type Env = Readonly<Record<string, string | undefined>>;

/** Where a command goes and as whom. */
export interface Connection {
  /** Name of the stored context in use; null when the environment or an option replaced it. */
  readonly context: string | null;
  readonly server: string;
  readonly token: string | null;
  readonly tenant: string | null;
}

const set = (value: string | undefined) => (value === undefined || value === '' ? null : value);

/**
 * Which server and which token: options before environment before context before default. A stored
 * token goes only to the server it came from: with `--server` or BULKHEAD_SERVER the context of
 * that server is used, whichever is current, and no other's token.
 */
export function resolveConnection(
  options: GlobalOptions,
  env: Env,
  stored: ContextFile,
): Connection {
  const insecure = options.insecure === true || env['BULKHEAD_INSECURE'] === '1';
  const named = set(options.context) ?? set(env['BULKHEAD_CONTEXT']);
  if (named !== null && stored.contexts[named] === undefined) {
    throw new CliError('NOT_FOUND', `there is no context "${named}"`, {
      hint: 'See `bulkhead context list`.',
    });
  }
  const asked = set(options.server) ?? set(env['BULKHEAD_SERVER']);
  const server = asked === null ? null : normaliseServer(asked, insecure);
  const name = named ?? (server === null ? stored.current : contextOf(stored, server));
  const context = name === null ? undefined : stored.contexts[name];
  if (server !== null && context !== undefined && context.server !== server) {
    throw usageError(`context "${String(name)}" is for ${context.server}, not for ${server}`);
  }
  // The newline at the end of a file is no part of the token in it.
  const token = set(env['BULKHEAD_TOKEN']?.trim());
  return {
    context: context === undefined ? null : name,
    server:
      server ?? (context === undefined ? defaultServer : normaliseServer(context.server, insecure)),
    token: token ?? context?.token ?? null,
    tenant: set(options.tenant) ?? set(env['BULKHEAD_TENANT']) ?? context?.tenant ?? null,
  };
}

/** The context to use for a server: the current one if it is of that server, else the first. */
export function contextOf(stored: ContextFile, server: string): string | null {
  const { current } = stored;
  if (current !== null && stored.contexts[current]?.server === server) return current;
  return (
    Object.entries(stored.contexts).find(([, context]) => context.server === server)?.[0] ?? null
  );
}

/** The tenant of a command; `project` comes before the context because it lies beside the code. */
export function resolveTenant(
  options: GlobalOptions,
  env: Env,
  project: ProjectFile | null,
  connection: Connection,
): string {
  const tenant =
    set(options.tenant) ?? set(env['BULKHEAD_TENANT']) ?? project?.tenant ?? connection.tenant;
  if (tenant !== null) return tenant;
  throw usageError(
    'no tenant chosen',
    'Choose one with `bulkhead tenants use NAME` (see `bulkhead tenants list`), or give --tenant.',
  );
}

/** The app of a command: what was typed, else the environment, else ./bulkhead.json. */
export function resolveApp(
  typed: string | undefined,
  options: GlobalOptions,
  env: Env,
  project: ProjectFile | null,
): string {
  if (typed !== undefined && options.app !== undefined && typed !== options.app) {
    throw usageError(`two apps named: ${typed} and --app ${options.app}`);
  }
  const app = set(typed) ?? set(options.app) ?? set(env['BULKHEAD_APP']) ?? project?.app ?? null;
  if (app !== null) return app;
  throw usageError(
    'no app chosen',
    'Give --app NAME, set BULKHEAD_APP, or keep {"app": "NAME"} in ./bulkhead.json. See `bulkhead apps list`.',
  );
}

/** A context with a change, the others as they were. */
export function withContext(
  stored: ContextFile,
  name: string,
  change: Partial<StoredContext> & { server: string },
): ContextFile {
  const before = stored.contexts[name] ?? {
    server: change.server,
    tenant: null,
    token: null,
    email: null,
  };
  return { ...stored, contexts: { ...stored.contexts, [name]: { ...before, ...change } } };
}
