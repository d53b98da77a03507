import type { Command } from 'commander';
import { contextOf, withContext, type GlobalOptions } from '../context/settings.ts';
import { defaultServer, normaliseServer } from '../context/server.ts';
import { CliError, usageError } from '../errors.ts';
import { me, signIn, signOutEverywhere, signUp } from '../graphql/operations.ts';
import type { Viewer } from '../graphql/types.ts';
import { ask, readStdin } from '../output/prompt.ts';
import type { Session } from '../session.ts';
import { examples, type Act } from './kit.ts';

interface LoginOptions extends GlobalOptions {
  readonly email?: string;
  readonly name?: string;
  readonly passwordStdin?: boolean;
  readonly tokenStdin?: boolean;
}

/** The server to sign in to and the context that will remember it. */
function target(session: Session, typed: string | undefined): { server: string; context: string } {
  const { stored, options, io } = session;
  if (typed !== undefined && options.server !== undefined && typed !== options.server) {
    throw usageError(`two servers named: ${typed} and --server ${options.server}`);
  }
  const named = options.context ?? io.env['BULKHEAD_CONTEXT'];
  const known = stored.contexts[named ?? stored.current ?? ''];
  const address =
    typed ?? options.server ?? io.env['BULKHEAD_SERVER'] ?? known?.server ?? defaultServer;
  const server = normaliseServer(
    address,
    options.insecure === true || io.env['BULKHEAD_INSECURE'] === '1',
  );
  return { server, context: named ?? contextOf(stored, server) ?? new URL(server).host };
}

/** Keeps the token and says who is signed in; chooses the tenant when there is no question which. */
async function remember(
  session: Session,
  at: { server: string; context: string },
  viewer: Viewer,
  token: string,
) {
  const { stored, out } = session;
  const slugs = viewer.memberships.map((membership) => membership.tenant.slug);
  const before = stored.contexts[at.context];
  const kept = before?.server === at.server && before.tenant !== null ? before.tenant : null;
  const wanted = session.options.tenant ?? kept;
  const tenant =
    wanted !== null && slugs.includes(wanted)
      ? wanted
      : slugs.length === 1
        ? (slugs[0] ?? null)
        : null;
  const change = { server: at.server, token, email: viewer.email, tenant };
  await session.store({ ...withContext(stored, at.context, change), current: at.context });
  out.data({ context: at.context, server: at.server, tenant, viewer });
  out.line(
    `Signed in to ${at.server} as ${viewer.email}${tenant === null ? '' : `, tenant ${tenant}`}.`,
  );
  if (viewer.operator && slugs.length === 0) return;
  if (slugs.length === 0)
    out.note('You are in no tenant yet. Make one: bulkhead tenants create NAME');
  else if (tenant === null) out.note(`Choose a tenant: bulkhead tenants use ${slugs.join('|')}`);
}

async function password(session: Session, options: LoginOptions, twice: boolean): Promise<string> {
  if (options.passwordStdin === true) {
    const secret = await readStdin(session.io.streams, '--password-stdin');
    if (secret === '') throw usageError('--password-stdin: nothing came on stdin');
    return secret;
  }
  const insteadOf =
    'Send it through a pipe with --password-stdin, or an API token with --token-stdin.';
  const secret = await ask(session.io.streams, 'Password', { secret: true, insteadOf });
  if (
    twice &&
    secret !== (await ask(session.io.streams, 'Password again', { secret: true, insteadOf }))
  ) {
    throw usageError('the two passwords differ');
  }
  return secret;
}

async function email(session: Session, options: LoginOptions, context: string): Promise<string> {
  if (options.email !== undefined) return options.email;
  const before = session.stored.contexts[context]?.email;
  return ask(session.io.streams, 'Email', {
    insteadOf: 'Give it with --email.',
    ...(before ? { default: before } : {}),
  });
}

export function signInCommands(program: Command, act: Act): void {
  examples(
    program
      .command('login')
      .description('Sign in, and remember it as a context')
      .argument('[server]', `address of the API (default: the context's, else ${defaultServer})`)
      .option('-e, --email <address>', 'who you are; asked for when missing')
      .option('--password-stdin', 'read the password from stdin instead of asking')
      .option('--token-stdin', 'sign in with an API token read from stdin')
      .option('-t, --tenant <name>', 'tenant to work in')
      .action(
        act(async (session, options: LoginOptions, server?: string) => {
          const at = target(session, server);
          if (options.tokenStdin === true) {
            const token = (await readStdin(session.io.streams, '--token-stdin')).trim();
            if (token === '') throw usageError('--token-stdin: nothing came on stdin');
            const { me: viewer } = await session.clientFor(at.server, token).request(me, {});
            await remember(session, at, viewer, token);
            return;
          }
          const address = await email(session, options, at.context);
          const secret = await password(session, options, false);
          const answer = await session
            .clientFor(at.server, null)
            .request(signIn, { input: { email: address, password: secret } })
            .catch((error: unknown) => {
              throw wrongPassword(error);
            });
          await remember(session, at, answer.signIn.viewer, answer.signIn.token);
        }),
      ),
    [
      'login',
      'login https://api.example.com --email ann@example.com',
      'login --email ci@example.com --password-stdin < password.txt',
      'login https://api.example.com --token-stdin --context ci < token.txt',
    ],
  );

  examples(
    program
      .command('signup')
      .description('Make an account and sign in')
      .argument('[server]', 'address of the API')
      .option('-e, --email <address>', 'your email address; asked for when missing')
      .option('--name <name>', 'your name')
      .option('--password-stdin', 'read the password (10 characters or more) from stdin')
      .action(
        act(async (session, options: LoginOptions, server?: string) => {
          const at = target(session, server);
          const address = await email(session, options, at.context);
          const secret = await password(session, options, true);
          const input = { email: address, name: options.name ?? null, password: secret };
          const answer = await session.clientFor(at.server, null).request(signUp, { input });
          await remember(session, at, answer.signUp.viewer, answer.signUp.token);
        }),
      ),
    ['signup --email ann@example.com --name Ann', 'signup https://api.example.com'],
  );

  examples(
    program
      .command('logout')
      .description('Forget the token of the context')
      .option('--everywhere', 'also end all your sessions on the server')
      .action(
        act(async (session, options: { everywhere?: boolean }) => {
          const { out, stored, connection } = session;
          if (options.everywhere === true) await session.client().request(signOutEverywhere, {});
          const { context } = connection;
          if (context !== null) {
            const change = { server: connection.server, token: null };
            await session.store(withContext(stored, context, change));
          }
          out.data({ context, server: connection.server, everywhere: options.everywhere === true });
          out.line(`Signed out of ${connection.server}.`);
          if (session.io.env['BULKHEAD_TOKEN'])
            out.note('BULKHEAD_TOKEN is still set in the environment.');
        }),
      ),
    ['logout', 'logout --everywhere', 'logout --context ci'],
  );

  examples(
    program
      .command('whoami')
      .description('Show who you are, your tenants and roles')
      .action(
        act(async (session) => {
          const { connection, out } = session;
          const { me: viewer } = await session.client().request(me, {});
          out.data({
            ...viewer,
            server: connection.server,
            context: connection.context,
            tenant: connection.tenant,
          });
          out.fields([
            ['User', viewer.name === '' ? viewer.email : `${viewer.name} <${viewer.email}>`],
            ['Server', connection.server],
            ['Signed in by', viewer.via === 'TOKEN' ? 'API token' : 'password'],
            ['Tenant', connection.tenant ?? '- (choose one: bulkhead tenants use NAME)'],
            [
              'Roles',
              viewer.memberships
                .map((one) => `${one.tenant.slug}: ${one.role.toLowerCase()}`)
                .join(', ') || '-',
            ],
            ...(viewer.operator ? [['Operator', 'yes'] as const] : []),
          ]);
        }),
      ),
    ['whoami', 'whoami --json'],
  );
}

/** At sign-in "run bulkhead login" is no help. */
function wrongPassword(error: unknown): unknown {
  if (!(error instanceof CliError) || error.exit !== 'UNAUTHENTICATED') return error;
  return new CliError('UNAUTHENTICATED', 'wrong email or password', {
    hint: 'No account yet? Make one with `bulkhead signup`.',
  });
}
