import { InvalidArgumentError, type Command } from 'commander';
import { CliError } from '../errors.ts';
import { releaseDetails, releases, rollback } from '../graphql/operations.ts';
import type { Release } from '../graphql/types.ts';
import { relative } from '../output/time.ts';
import type { Session } from '../session.ts';
import { processColumns } from './apps.ts';
import { followOrDetach } from './deployments.ts';
import {
  appOptions,
  examples,
  groupDefault,
  integer,
  placeOf,
  type Act,
  type WaitOptions,
} from './kit.ts';
import { rolloutOptions, strategyInput, type StrategyFlags } from './strategy.ts';

/** `v3` or `3` */
export function parseVersion(text: string): number {
  const match = /^v?(\d{1,9})$/.exec(text);
  if (!match || Number(match[1]) === 0) throw new InvalidArgumentError('Write v3 or 3.');
  return Number(match[1]);
}

/** Looks through the releases, newest first; the API has no query for a single one. */
async function findRelease(
  session: Session,
  at: { tenant: string; app: string },
  version: number,
): Promise<Release> {
  let after: string | null = null;
  for (;;) {
    const result: {
      app: {
        releases: {
          nodes: Release[];
          pageInfo: { hasNextPage: boolean; endCursor: string | null };
        };
      };
    } = await session.client().request(releaseDetails, { ...at, first: 20, after });
    const { nodes, pageInfo } = result.app.releases;
    const found = nodes.find((release) => release.version === version);
    if (found !== undefined) return found;
    const past = nodes.some((release) => release.version < version);
    if (past || !pageInfo.hasNextPage) {
      throw new CliError('NOT_FOUND', `${at.app} has no release v${String(version)}`, {
        hint: `See \`bulkhead releases${placeOf(session, at)}\`.`,
      });
    }
    after = pageInfo.endCursor;
  }
}

export function releaseCommands(program: Command, act: Act): void {
  const listAction = act(async (session, options: { limit: number }) => {
    const at = session.app();
    const { out } = session;
    const now = out.now();
    const rows = await session
      .client()
      .all(releases, at, (result) => result.app.releases, options.limit);
    out.list(
      rows,
      [
        { title: '', value: (row) => (row.current ? '*' : '') },
        { title: 'RELEASE', value: (row) => `v${String(row.version)}` },
        { title: 'WHAT', value: (row) => row.description, shrink: true },
        { title: 'IMAGE', value: (row) => row.image, shrink: true },
        { title: 'BY', value: (row) => row.createdBy ?? '-', shrink: true },
        { title: 'WHEN', value: (row) => relative(row.createdAt, now) },
      ],
      `No releases of ${at.app} yet. Deploy something: bulkhead deploy${placeOf(session, at)} --image IMAGE`,
    );
  });
  const limit = (command: Command) =>
    appOptions(command).option('-n, --limit <count>', 'how many', integer(1, 1000), 20);
  const group = limit(
    program.command('releases').description('Releases of an app: image, configuration, processes'),
  );
  examples(groupDefault(group, listAction), [
    'releases --app hello',
    'releases info v3 --app hello',
  ]);
  examples(
    limit(
      group
        .command('list')
        .description('List releases, newest first; * is the current one (the default)'),
    ).action(listAction),
    ['releases list --app hello -n 5', 'releases list --json'],
  );
  examples(
    appOptions(
      group
        .command('info')
        .description('Show everything of a release')
        .argument('<version>', 'v3 or 3', parseVersion),
    ).action(
      act(async (session, _options: object, version: number) => {
        const release = await findRelease(session, session.app(), version);
        const { out } = session;
        out.data(release);
        out.fields([
          ['Release', `v${String(release.version)}${release.current ? ' (current)' : ''}`],
          ['What', release.description],
          ['Image', release.image],
          ['Digest', release.digest],
          [
            'Created',
            `${relative(release.createdAt, out.now())}${release.createdBy === null ? '' : ` by ${release.createdBy}`}`,
          ],
          ['Configuration', release.configNames.join(', ') || '-'],
        ]);
        out.line();
        out.table(release.processes, processColumns());
      }),
    ),
    ['releases info v3 --app hello', 'releases info 3 --app hello --json'],
  );
  examples(
    rolloutOptions(
      appOptions(
        program
          .command('rollback')
          .description('Go back to an earlier release, as a new one')
          .argument(
            '[version]',
            'v2 or 2; default: the release before the current one',
            parseVersion,
          ),
      ),
    ).action(
      act(async (session, options: WaitOptions & StrategyFlags, version?: number) => {
        const at = session.app();
        const input = { ...at, version: version ?? null, strategy: strategyInput(options) };
        const { rollback: deployment } = await session.client().request(rollback, { input });
        await followOrDetach(session, deployment.id, at, options);
      }),
    ),
    ['rollback --app hello', 'rollback v2 --app hello'],
  );
}
