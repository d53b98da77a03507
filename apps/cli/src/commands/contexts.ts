import type { Command } from 'commander';
import { CliError } from '../errors.ts';
import type { Session } from '../session.ts';
import { examples, groupDefault, type Act } from './kit.ts';

interface ContextRow {
  readonly name: string;
  readonly current: boolean;
  readonly server: string;
  readonly tenant: string | null;
  readonly email: string | null;
  readonly signedIn: boolean;
}

function missing(name: string): CliError {
  return new CliError('NOT_FOUND', `there is no context "${name}"`, {
    hint: 'See `bulkhead context list`; `bulkhead login SERVER --context NAME` makes one.',
  });
}

export function contextCommands(program: Command, act: Act): void {
  const listAction = act(async (session: Session) => {
    const { current, contexts } = session.stored;
    const rows = Object.entries(contexts).map(
      ([name, { server, tenant, email, token }]): ContextRow => ({
        name,
        current: name === current,
        server,
        tenant,
        email,
        signedIn: token !== null,
      }),
    );
    session.out.list(
      rows,
      [
        { title: '', value: (row) => (row.current ? '*' : '') },
        { title: 'NAME', value: (row) => row.name },
        { title: 'SERVER', value: (row) => row.server, shrink: true },
        { title: 'TENANT', value: (row) => row.tenant ?? '-' },
        { title: 'USER', value: (row) => row.email ?? '-', shrink: true },
        { title: 'SIGNED IN', value: (row) => (row.signedIn ? 'yes' : 'no') },
      ],
      'No contexts yet: sign in with `bulkhead login`.',
    );
    await Promise.resolve();
  });
  const group = program.command('context').description('Switch between servers, tenants and users');
  examples(groupDefault(group, listAction), ['context', 'context use production']);
  examples(
    group
      .command('list')
      .description('List contexts; * is the current one (the default)')
      .action(listAction),
    ['context list', 'context list --json'],
  );
  examples(
    group
      .command('use')
      .description('Make a context the current one')
      .argument('<name>')
      .action(
        act(async (session, _options: object, name: string) => {
          const context = session.stored.contexts[name];
          if (context === undefined) throw missing(name);
          await session.store({ ...session.stored, current: name });
          session.out.data({ name, server: context.server, tenant: context.tenant });
          session.out.line(
            `Now using ${name}: ${context.server}, tenant ${context.tenant ?? '-'}.`,
          );
        }),
      ),
    ['context use production'],
  );
  examples(
    group
      .command('rm')
      .description('Forget a context and its token')
      .argument('<name>')
      .action(
        act(async (session, _options: object, name: string) => {
          const { contexts, current } = session.stored;
          if (contexts[name] === undefined) throw missing(name);
          const { [name]: _gone, ...rest } = contexts;
          await session.store({
            ...session.stored,
            contexts: rest,
            current: current === name ? null : current,
          });
          session.out.data({ name });
          session.out.line(`Forgot ${name}.`);
        }),
      ),
    ['context rm old'],
  );
}
