import type { Command } from 'commander';
import { spawn } from 'node:child_process';
import { CliError, usageError } from '../errors.ts';
import { appInfo, apps, appUrl, createApp, destroyApp } from '../graphql/operations.ts';
import type { AppHealth, AppInfo, AppSummary, Process } from '../graphql/types.ts';
import { ask } from '../output/prompt.ts';
import type { Style } from '../output/style.ts';
import type { Column } from '../output/table.ts';
import { relative } from '../output/time.ts';
import { pause } from '../progress/follow.ts';
import type { Session } from '../session.ts';
import { move, paintStatus, statusOf } from './deployments.ts';
import { describeStrategy } from './strategy.ts';
import {
  appOptions,
  examples,
  groupDefault,
  placeOf,
  tenantOption,
  waitOptions,
  type Act,
  type WaitOptions,
} from './kit.ts';

const destroyPollMs = 500;
const destroySeconds = 120;

export function paintHealth(health: AppHealth, style: Style, text: string): string {
  switch (health) {
    case 'RUNNING':
      return style.good(text);
    case 'CRASHED':
      return style.bad(text);
    case 'DEGRADED':
    case 'PAUSED':
      return style.warn(text);
    case 'NEW':
    case 'STOPPED':
    case 'DELETING':
      return style.dim(text);
    case 'DEPLOYING':
      return text;
  }
}

const formation = (processes: AppSummary['processes']) =>
  processes.map((one) => `${one.name} ${String(one.ready)}/${String(one.count)}`).join(', ') || '-';

async function listApps(session: Session): Promise<void> {
  const tenant = session.tenant();
  const { out } = session;
  const now = out.now();
  const rows = await session.client().all(apps, { tenant }, (result) => result.tenant.apps);
  out.list(
    rows,
    [
      { title: 'APP', value: (row) => row.name },
      {
        title: 'STATE',
        value: (row) => row.health.toLowerCase(),
        style: (cell, row) => paintHealth(row.health, out.style, cell),
      },
      {
        title: 'RELEASE',
        value: (row) =>
          row.currentRelease === null ? '-' : `v${String(row.currentRelease.version)}`,
      },
      { title: 'READY', value: (row) => formation(row.processes) },
      { title: 'DEPLOYED', value: (row) => relative(row.currentRelease?.createdAt ?? null, now) },
      { title: 'ADDRESS', value: (row) => row.url, shrink: true },
    ],
    `No apps in ${tenant} yet. Make one: bulkhead apps create NAME`,
  );
}

/** Columns of processes, for `apps info` and `releases info`. */
export function processColumns(): Column<Process>[] {
  return [
    { title: 'PROCESS', value: (row) => row.name },
    { title: 'CPU', value: (row) => `${String(row.cpuMillis)}m`, align: 'right' },
    { title: 'MEMORY', value: (row) => `${String(row.memoryMiB)} MiB`, align: 'right' },
    { title: 'DISK', value: (row) => `${String(row.diskMiB)} MiB`, align: 'right' },
    { title: 'PORT', value: (row) => (row.port === null ? '-' : String(row.port)), align: 'right' },
    { title: 'CHECK', value: (row) => checkOf(row) },
    { title: 'COMMAND', value: (row) => row.command?.join(' ') ?? '(of the image)', shrink: true },
  ];
}

function checkOf({ healthCheck }: Process): string {
  if (healthCheck === null) return '-';
  switch (healthCheck.kind) {
    case 'HTTP':
      return `http ${healthCheck.path ?? '/'}`;
    case 'COMMAND':
      return `command ${healthCheck.command?.join(' ') ?? ''}`;
    case 'TCP':
      return 'tcp';
  }
}

/** The block about an app that `apps info` and `status` begin with. */
export function appFields(session: Session, app: AppInfo): void {
  const { out } = session;
  const now = out.now();
  const { currentRelease: release, latestDeployment: deployment } = app;
  out.fields([
    ['App', app.name],
    ['State', paintHealth(app.health, out.style, app.health.toLowerCase())],
    ['Address', app.url],
    [
      'Release',
      release === null
        ? '- (nothing deployed yet)'
        : `v${String(release.version)}, ${relative(release.createdAt, now)}`,
    ],
    ...(release === null
      ? []
      : [['Image', `${release.image} (${release.digest.slice(0, 19)})`] as const]),
    ...(deployment === null
      ? []
      : [
          [
            'Deployment',
            `${deployment.kind.toLowerCase()} ${move(deployment)} ` +
              `${paintStatus(session, deployment.status, statusOf(deployment))}, ` +
              `${relative(deployment.createdAt, now)}${deployment.createdBy === null ? '' : ` by ${deployment.createdBy}`}`,
          ] as const,
        ]),
    ...(app.strategy === null ? [] : [['Strategy', describeStrategy(app.strategy)] as const]),
    ...(deployment?.failure ? [['Why not', deployment.failure.message] as const] : []),
  ]);
}

async function destroy(
  session: Session,
  at: { tenant: string; app: string },
  options: WaitOptions & { yes?: boolean },
) {
  const { out } = session;
  const client = session.client();
  if (options.yes !== true) {
    const { app } = await client.request(appUrl, at);
    const answer = await ask(
      session.io.streams,
      `Everything of ${app.name} will be deleted. Type its name to go on`,
      {
        insteadOf: 'Say --yes to destroy it without being asked.',
      },
    );
    if (answer !== at.app) throw usageError('that was not its name: nothing was destroyed');
  }
  const { destroyApp: app } = await client.request(destroyApp, { input: at });
  if (options.detach !== true) {
    const timeout = options.timeout ?? destroySeconds;
    const end = Date.now() + timeout * 1000;
    out.note(`Destroying ${at.app}: waiting for its instances to be gone.`);
    while (await appExists(session, at)) {
      if (Date.now() > end) {
        throw new CliError('UNAVAILABLE', `${at.app} is not gone after ${String(timeout)} s`, {
          code: 'TIMEOUT',
          hint: `It goes on without us; see bulkhead ps${placeOf(session, at)}`,
        });
      }
      await pause(destroyPollMs, session.io.signal);
    }
  }
  out.data(app);
  out.line(options.detach === true ? `Destroying ${at.app}.` : `Destroyed ${at.app}.`);
}

/** Whether the app is there, for this caller. */
export async function appExists(
  session: Session,
  at: { tenant: string; app: string },
): Promise<boolean> {
  try {
    await session.client().request(appUrl, at);
    return true;
  } catch (error) {
    if (error instanceof CliError && error.exit === 'NOT_FOUND') return false;
    throw error;
  }
}

/** Opens a browser when this looks like somebody's desktop. */
function openBrowser(url: string, env: NodeJS.ProcessEnv): boolean {
  const command =
    process.platform === 'darwin'
      ? 'open'
      : env['DISPLAY'] || env['WAYLAND_DISPLAY']
        ? 'xdg-open'
        : null;
  // Only what a browser should open: the address comes from the server.
  if (command === null || !/^https?:\/\//.test(url)) return false;
  const child = spawn(command, [url], { stdio: 'ignore', detached: true });
  child.on('error', () => undefined);
  child.unref();
  return true;
}

export function appCommands(program: Command, act: Act): void {
  const listAction = act((session) => listApps(session));
  const group = tenantOption(
    program.command('apps').description('Apps: create, list, look at, destroy'),
  );
  examples(groupDefault(group, listAction), ['apps', 'apps create hello']);
  examples(
    tenantOption(
      group.command('list').description('List the apps of the tenant (the default)'),
    ).action(listAction),
    ['apps list', 'apps list --tenant acme --json'],
  );
  examples(
    appOptions(
      group
        .command('create')
        .description('Make an app')
        .argument('[name]', 'a-z, 0-9 and -; part of its address'),
    ).action(
      act(async (session, _options: object, name?: string) => {
        const at = session.app(name);
        const input = { tenant: at.tenant, name: at.app };
        const { createApp: app } = await session.client().request(createApp, { input });
        session.out.data(app);
        session.out.line(`Made ${app.name}: ${app.url}`);
        session.out.note(`Next: bulkhead deploy --app ${app.name} --image IMAGE`);
      }),
    ),
    ['apps create hello'],
  );
  examples(
    appOptions(
      group
        .command('info')
        .description('Show an app: address, release, processes')
        .argument('[name]'),
    ).action(
      act(async (session, _options: object, name?: string) => {
        const { app } = await session.client().request(appInfo, session.app(name));
        session.out.data(app);
        appFields(session, app);
        if (app.processes.length === 0) return;
        session.out.line();
        session.out.table(app.processes, [
          ...processColumns().slice(0, 1),
          { title: 'READY', value: (row: Process) => `${String(row.ready)}/${String(row.count)}` },
          ...processColumns().slice(1),
        ]);
      }),
    ),
    ['apps info hello', 'apps info hello --json'],
  );
  examples(
    waitOptions(
      appOptions(
        group
          .command('destroy')
          .description('Stop an app and delete everything of it')
          .argument('[name]')
          .option('-y, --yes', 'do not ask'),
      ),
    ).action(
      act(async (session, options: WaitOptions & { yes?: boolean }, name?: string) => {
        await destroy(session, session.app(name), options);
      }),
    ),
    ['apps destroy hello', 'apps destroy hello --yes'],
  );

  examples(
    appOptions(
      program
        .command('open')
        .description('Print the address of an app, and open it in a browser')
        .argument('[app]'),
    ).action(
      act(async (session, _options: object, name?: string) => {
        const { app } = await session.client().request(appUrl, session.app(name));
        const opened =
          !session.out.json &&
          session.io.streams.stdout.isTTY &&
          openBrowser(app.url, session.io.env);
        session.out.data({ app: app.name, url: app.url, opened });
        session.out.line(app.url);
        if (app.state === 'STOPPED')
          session.out.note(`${app.name} is stopped: bulkhead start --app ${app.name}`);
      }),
    ),
    ['open hello', 'open hello | xargs curl'],
  );
}
