import type { Command } from 'commander';
import { createJoinToken, joinTokens, removeNode, revokeJoinToken } from '../graphql/operations.ts';
import type { JoinToken } from '../graphql/types.ts';
import { relative } from '../output/time.ts';
import { collect, examples, groupDefault, seconds, type Act } from './kit.ts';
import { parseLabels } from './node-drain.ts';

const labelsOf = ({ labels }: JoinToken): string =>
  labels.map(({ name, value }) => `${name}=${value}`).join(' ') || '-';

function stateOf(token: JoinToken, now: Date): string {
  if (token.usedAt !== null) return 'used';
  return Date.parse(token.expiresAt) <= now.getTime() ? 'over' : 'good';
}

/** How hosts come into the fleet, and out of it for good. */
export function joinCommands(group: Command, act: Act): void {
  const listAction = act(async (session) => {
    const { out } = session;
    const now = out.now();
    const { joinTokens: rows } = await session.client().request(joinTokens, {});
    out.list(
      rows,
      [
        { title: 'ID', value: (row) => row.id },
        { title: 'STATE', value: (row) => stateOf(row, now) },
        { title: 'NODE', value: (row) => row.name ?? '-' },
        { title: 'POOL', value: (row) => row.pool },
        { title: 'LABELS', value: labelsOf, shrink: true },
        { title: 'EXPIRES', value: (row) => relative(row.expiresAt, now) },
        { title: 'MADE BY', value: (row) => row.createdBy, shrink: true },
      ],
      'No join tokens.',
    );
  });
  const tokens = group.command('token').description('Tokens by which hosts join the fleet');
  examples(groupDefault(tokens, listAction), ['nodes token', 'nodes token create']);
  examples(tokens.command('list').description('List them (the default)').action(listAction), [
    'nodes token list',
  ]);
  examples(
    tokens
      .command('create')
      .description('Make a token for one host; it is shown this once, alone on stdout')
      .option(
        '--ttl <duration>',
        'how long it is good: 10m, 1h (the default), at most 168h',
        seconds,
      )
      .option('--name <name>', 'name of the node; else the host’s own')
      .option('--pool <pool>', 'pool of the node; else default')
      .option('--label <name=value>', 'label of the node; may be repeated', collect)
      .action(
        act(
          async (
            session,
            options: { ttl?: number; name?: string; pool?: string; label?: string[] },
          ) => {
            const { out } = session;
            const labels = parseLabels(options.label ?? []).flatMap(({ name, value }) =>
              value === null ? [] : [{ name, value }],
            );
            const ttlMinutes =
              options.ttl === undefined ? null : Math.max(1, Math.round(options.ttl / 60));
            const input = {
              ...{ name: options.name ?? null, pool: options.pool ?? null, labels, ttlMinutes },
            };
            const { createJoinToken: made } = await session
              .client()
              .request(createJoinToken, { input });
            out.data(made);
            out.note(
              `Good for one host, ${relative(made.token.expiresAt, out.now())}. In a clone on that host, as root: npm run join -- TOKEN`,
            );
            out.line(made.secret);
          },
        ),
      ),
    [
      'nodes token create',
      'nodes token create --ttl 10m --name db-host --label zone=b',
      'nodes token create --json',
    ],
  );
  examples(
    tokens
      .command('revoke')
      .description('No host can join by it any more')
      .argument('<id>')
      .action(
        act(async (session, _options: object, id: string) => {
          await session.client().request(revokeJoinToken, { input: { id } });
          session.out.data({ id, revoked: true });
          session.out.line('Revoked.');
        }),
      ),
    ['nodes token revoke 01a21951-b42d-749a-8d20-3c4709514536'],
  );
  examples(
    group
      .command('remove')
      .description('Take a node out of the fleet for good: it is not let in any more')
      .argument('<name>')
      .option(
        '--force',
        'also with instances on it: they are lost with it, others take their place',
      )
      .action(
        act(async (session, options: { force?: boolean }, node: string) => {
          const force = options.force ?? false;
          await session.client().request(removeNode, { input: { node, force } });
          session.out.data({ node, removed: true });
          session.out.line(`${node} is removed. On that host: npm run down -- --purge`);
        }),
      ),
    ['nodes drain node-2 && bulkhead nodes remove node-2', 'nodes remove node-2 --force'],
    'What still runs on a host that is removed by force goes on there until somebody ends it.',
  );
}
