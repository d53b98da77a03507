import { Option, type Command } from 'commander';
import { CliError } from '../errors.ts';
import { createApiToken, revokeApiToken, tokens } from '../graphql/operations.ts';
import { relative } from '../output/time.ts';
import { examples, groupDefault, integer, tenantOption, type Act } from './kit.ts';
import { roleNames, toRole } from './members.ts';

export function tokenCommands(program: Command, act: Act): void {
  const listAction = act(async (session) => {
    const tenant = session.tenant();
    const now = session.out.now();
    const rows = await session.client().all(tokens, { tenant }, (result) => result.tenant.tokens);
    session.out.list(
      rows,
      [
        { title: 'ID', value: (row) => row.id },
        { title: 'NAME', value: (row) => row.name, shrink: true },
        { title: 'ROLE', value: (row) => row.role.toLowerCase() },
        { title: 'BEGINS WITH', value: (row) => row.prefix },
        {
          title: 'LAST USED',
          value: (row) => (row.lastUsedAt === null ? 'never' : relative(row.lastUsedAt, now)),
        },
        {
          title: 'EXPIRES',
          value: (row) => (row.expiresAt === null ? 'never' : relative(row.expiresAt, now)),
        },
      ],
      `No API tokens in ${tenant}.`,
    );
  });
  const group = tenantOption(
    program.command('tokens').description('API tokens, for CI and scripts'),
  );
  examples(groupDefault(group, listAction), ['tokens', 'tokens create ci']);
  examples(
    tenantOption(group.command('list').description('List the API tokens (the default)')).action(
      listAction,
    ),
    ['tokens list', 'tokens list --json'],
  );
  examples(
    tenantOption(
      group
        .command('create')
        .description('Make an API token; it is shown this once, alone on stdout')
        .argument('<name>', 'what it is for')
        .addOption(
          new Option('-r, --role <role>', 'most that it may do')
            .choices(roleNames)
            .default('developer'),
        )
        .option('--expires <days>', 'days until it ends; never without', integer(1, 3650)),
    ).action(
      act(async (session, options: { role: string; expires?: number }, name: string) => {
        const { out } = session;
        const input = {
          tenant: session.tenant(),
          name,
          role: toRole(options.role),
          expiresInDays: options.expires ?? null,
        };
        const { createApiToken: made } = await session.client().request(createApiToken, { input });
        out.data(made);
        out.note(
          `API token ${made.token.id} for ${input.tenant}, ${options.role}. It is not shown again:`,
        );
        out.line(made.secret);
        out.note('Use it as BULKHEAD_TOKEN, or with `bulkhead login --token-stdin`.');
      }),
    ),
    ['tokens create ci --expires 90', 'tokens create dashboard --role viewer > token.txt'],
  );
  examples(
    tenantOption(
      group
        .command('revoke')
        .description('End an API token at once')
        .argument('<token>', 'its id, or its name if only one has it'),
    ).action(
      act(async (session, _options: object, wanted: string) => {
        const tenant = session.tenant();
        const client = session.client();
        const known = await client.all(tokens, { tenant }, (result) => result.tenant.tokens);
        const matches = known.filter((token) => token.id === wanted || token.name === wanted);
        const [token, another] = matches;
        if (token === undefined || another !== undefined) {
          throw new CliError(
            token === undefined ? 'NOT_FOUND' : 'CONFLICT',
            token === undefined
              ? `${tenant} has no API token "${wanted}"`
              : `${String(matches.length)} API tokens are named "${wanted}"`,
            { hint: 'Give the id; see `bulkhead tokens list`.' },
          );
        }
        await client.request(revokeApiToken, { input: { tenant, id: token.id } });
        session.out.data({ ...token, revoked: true });
        session.out.line(`Revoked ${token.name} (${token.prefix}…).`);
      }),
    ),
    ['tokens revoke ci'],
  );
}
