import type { Command } from 'commander';
import { CliError } from '../errors.ts';
import { deploymentById, deployments, latestDeployment } from '../graphql/operations.ts';
import type { DeploymentStatus, DeploymentSummary } from '../graphql/types.ts';
import type { Column } from '../output/table.ts';
import { duration, relative } from '../output/time.ts';
import { adviseAtGate, changes } from '../progress/view.ts';
import { watchDeployment } from '../progress/watch.ts';
import type { Session } from '../session.ts';
import {
  appOptions,
  examples,
  groupDefault,
  integer,
  placeOf,
  waitOptions,
  type Act,
  type WaitOptions,
} from './kit.ts';
import { describeStrategy } from './strategy.ts';

/** Follows a deployment that a command has just begun, or says how to with --detach. */
export async function followOrDetach(
  session: Session,
  id: string,
  at: { tenant: string; app: string },
  { detach, timeout, wait }: WaitOptions,
): Promise<void> {
  if (detach !== true && wait !== false) {
    const place = placeOf(session, at);
    await watchDeployment(session, {
      ...{ id, place, timeout: timeout ?? null },
      pastGates: wait === true,
    });
    return;
  }
  if (session.out.json) {
    const { deployment } = await session.client().request(deploymentById, { id });
    session.out.data(deployment);
    return;
  }
  session.out.note('Begun. Follow it with:');
  session.out.line(`bulkhead deployments follow ${id}`);
}

export function paintStatus(session: Session, status: DeploymentStatus, text: string): string {
  const { style } = session.out;
  if (status === 'SUCCEEDED') return style.good(text);
  if (status === 'FAILED') return style.bad(text);
  return status === 'SUPERSEDED' ? style.dim(text) : text;
}

/** `running`, `waits at 1/2` */
export function statusOf({ status, pause, steps }: DeploymentSummary): string {
  if (pause === null) return status.toLowerCase();
  const verb = pause.until === null ? 'waits' : 'pauses';
  return `${verb} at ${String(pause.step)}/${String(steps)}`;
}

/** `v3 → v4`, `v1`, `-` */
export function move(deployment: Pick<DeploymentSummary, 'from' | 'to'>): string {
  const versions = [deployment.from, deployment.to]
    .filter((release) => release !== null)
    .map((release) => `v${String(release.version)}`);
  return versions.length === 0 ? '-' : [...new Set(versions)].join(' → ');
}

function columns(session: Session): Column<DeploymentSummary>[] {
  const now = session.out.now();
  return [
    { title: 'ID', value: (row) => row.id },
    { title: 'KIND', value: (row) => row.kind.toLowerCase() },
    { title: 'RELEASE', value: move },
    {
      title: 'STATUS',
      value: statusOf,
      style: (cell, row) => paintStatus(session, row.status, cell),
    },
    { title: 'WHEN', value: (row) => relative(row.createdAt, now) },
    {
      title: 'TOOK',
      value: (row) =>
        row.finishedAt === null
          ? '-'
          : duration((Date.parse(row.finishedAt) - Date.parse(row.createdAt)) / 1000),
    },
    { title: 'BY', value: (row) => row.createdBy ?? '-', shrink: true },
    { title: 'WHY NOT', value: (row) => row.failure?.message ?? '', shrink: true },
  ];
}

/** Gives the group, for the commands that others add to it. */
export function deploymentCommands(program: Command, act: Act): Command {
  const listAction = act(async (session, options: { limit: number }) => {
    const at = session.app();
    const rows = await session
      .client()
      .all(deployments, at, (result) => result.app.deployments, options.limit);
    session.out.list(rows, columns(session), `No deployments of ${at.app} yet.`);
  });
  const limit = (command: Command) =>
    appOptions(command).option('-n, --limit <count>', 'how many', integer(1, 1000), 20);

  const group = limit(
    program
      .command('deployments')
      .description('Moves from one release to the next: list, look into, follow'),
  );
  examples(groupDefault(group, listAction), ['deployments --app hello', 'deployments follow']);
  examples(
    limit(group.command('list').description('List deployments, newest first (the default)')).action(
      listAction,
    ),
    ['deployments list --app hello -n 5', 'deployments list --json'],
  );

  examples(
    appOptions(
      group
        .command('info')
        .description('Show a deployment: its steps and how it ended')
        .argument('[id]', 'default: the latest'),
    ).action(
      act(async (session, _options: object, id?: string) => {
        const client = session.client();
        const { deployment } = await client.request(deploymentById, {
          id: id ?? (await latest(session)),
        });
        const { out } = session;
        out.data(deployment);
        for (const line of changes(null, deployment)) out.line(line);
        out.line(
          `Status: ${paintStatus(session, deployment.status, statusOf({ ...deployment, failure: null }))}`,
        );
        out.line(`Strategy: ${describeStrategy(deployment.strategy)}`);
        const place = id === undefined ? placeOf(session, session.app()) : '';
        if (deployment.pause !== null) out.line(adviseAtGate(deployment, place));
        if (deployment.failure === null) return;
        out.line(`${deployment.failure.code}: ${deployment.failure.message}`);
        for (const line of deployment.failure.lastLines) out.line(`  | ${line}`);
      }),
    ),
    ['deployments info --app hello', 'deployments info 0198c0de-0000-7000-8000-000000000001'],
  );

  examples(
    waitOptions(
      appOptions(
        group
          .command('follow')
          .description('Follow a deployment until it ends, as `deploy` does')
          .argument('[id]', 'default: the latest'),
      ),
    ).action(
      act(async (session, options: WaitOptions, id?: string) => {
        // An id is enough; without one there must be an app to look for the latest.
        const place = id === undefined ? placeOf(session, session.app()) : '';
        await watchDeployment(session, {
          id: id ?? (await latest(session)),
          place,
          timeout: options.timeout ?? null,
          stream: true,
          // To follow is to see it to its end.
          pastGates: options.wait !== false,
        });
      }),
    ),
    ['deployments follow --app hello', 'deployments follow --json | jq .status'],
    'With --json: one line per change.',
  );
  return group;
}

async function latest(session: Session): Promise<string> {
  const at = session.app();
  const { app } = await session.client().request(latestDeployment, at);
  if (app.latestDeployment !== null) return app.latestDeployment.id;
  throw new CliError('NOT_FOUND', `${at.app} has no deployment yet`, {
    hint: `Deploy something: bulkhead deploy${placeOf(session, at)} --image IMAGE`,
  });
}
