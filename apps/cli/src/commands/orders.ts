import type { Command } from 'commander';
import { CliError } from '../errors.ts';
import {
  deleteInstance,
  instances,
  pauseApp,
  pauseInstance,
  restartInstance,
  resumeApp,
  resumeInstance,
} from '../graphql/operations.ts';
import type { Instance } from '../graphql/types.ts';
import { pause } from '../progress/follow.ts';
import type { Session } from '../session.ts';
import { appOptions, examples, placeOf, waitOptions, type Act, type WaitOptions } from './kit.ts';

// Orders for instances one by one. The API only notes them: what waits here is the command line.

interface Place {
  readonly tenant: string;
  readonly app: string;
}
type OrderOptions = WaitOptions & { instance?: string };

const pollMs = 300;
const waitSeconds = 120;

const rowsOf = (session: Session, at: Place) =>
  session.client().all(instances, { ...at, includeGone: false }, (result) => result.app.instances);

/** Those that an order is about; a task is none of them. */
const isMeant = (instance?: string) => (row: Instance) =>
  instance === undefined ? row.desired === 'RUNNING' && row.process !== 'run' : row.id === instance;

/** Polls until `done` says so of the app's instances; answers them. */
async function until(
  session: Session,
  at: Place,
  options: WaitOptions,
  wait: { what: string; done: (rows: readonly Instance[]) => boolean },
): Promise<readonly Instance[]> {
  const timeout = options.timeout ?? waitSeconds;
  const end = Date.now() + timeout * 1000;
  for (;;) {
    const rows = await rowsOf(session, at);
    if (wait.done(rows)) return rows;
    if (Date.now() > end) {
      throw new CliError('UNAVAILABLE', `${wait.what} after ${String(timeout)} s`, {
        code: 'TIMEOUT',
        hint: `It goes on without us; see bulkhead ps${placeOf(session, at)}`,
      });
    }
    await pause(pollMs, session.io.signal);
  }
}

const copies = (count: number) => (count === 1 ? '1 instance' : `${String(count)} instances`);

async function pauseOrResume(
  session: Session,
  at: Place,
  verb: 'pause' | 'resume',
  options: OrderOptions,
): Promise<void> {
  const { out } = session;
  const { instance } = options;
  const client = session.client();
  if (instance === undefined) {
    await client.request<unknown, { input: Place }>(verb === 'pause' ? pauseApp : resumeApp, {
      input: at,
    });
  } else {
    const input = { ...at, instance };
    await client.request<unknown, { input: typeof input }>(
      verb === 'pause' ? pauseInstance : resumeInstance,
      { input },
    );
  }
  const meant = isMeant(instance);
  const settled = (row: Instance) => (row.state === 'PAUSED') === (verb === 'pause');
  const rows =
    options.detach === true
      ? await rowsOf(session, at)
      : await until(session, at, options, {
          what: `${instance ?? at.app} is not ${verb}d`,
          done: (all) => all.filter(meant).every(settled),
        });
  const done = rows.filter(meant);
  out.data(done);
  const what = instance ?? `${at.app}, ${copies(done.length)}`;
  if (options.detach === true) out.line(`${verb === 'pause' ? 'Pausing' : 'Resuming'} ${what}.`);
  else out.line(`${verb === 'pause' ? 'Paused' : 'Resumed'} ${what}.`);
  if (verb === 'pause') {
    const one = instance === undefined ? '' : ` --instance ${instance}`;
    out.note(`Go on with: bulkhead resume${placeOf(session, at)}${one}`);
  }
}

/** Has one instance replaced; with `restart` it serves until the one in its place does. */
export async function replace(
  session: Session,
  at: Place,
  verb: 'restart' | 'delete',
  instance: string,
  options: WaitOptions,
): Promise<void> {
  const { out } = session;
  const input = { ...at, instance };
  await session
    .client()
    .request<unknown, { input: typeof input }>(
      verb === 'restart' ? restartInstance : deleteInstance,
      { input },
    );
  const rows =
    options.detach === true
      ? await rowsOf(session, at)
      : await until(session, at, options, {
          what: `${instance} is not gone`,
          done: (all) => !all.some(({ id }) => id === instance),
        });
  out.data(rows);
  if (options.detach === true) {
    out.line(verb === 'restart' ? `Replacing ${instance}.` : `Deleting ${instance}.`);
  } else {
    out.line(verb === 'restart' ? `Replaced ${instance}.` : `Deleted ${instance}.`);
  }
}

export function orderCommands(program: Command, act: Act): void {
  const one = (command: Command) =>
    waitOptions(appOptions(command.option('--instance <id>', 'only this one; see `bulkhead ps`')));
  examples(
    one(
      program
        .command('pause')
        .description('Hold an app still as it is: no requests, no CPU, its memory stays')
        .argument('[app]'),
    ).action(
      act(async (session, options: OrderOptions, name?: string) => {
        await pauseOrResume(session, session.app(name), 'pause', options);
      }),
    ),
    ['pause hello', 'pause --app hello --instance i0123456789ab'],
    'What is deployed or scaled up later runs. An app cannot be paused while a deployment is on its way.',
  );
  examples(
    one(
      program.command('resume').description('Let an app that is paused run on').argument('[app]'),
    ).action(
      act(async (session, options: OrderOptions, name?: string) => {
        await pauseOrResume(session, session.app(name), 'resume', options);
      }),
    ),
    ['resume hello', 'resume --app hello --instance i0123456789ab'],
  );
}

/** `instances delete`, below the group that `ps` belongs to. */
export function instanceOrders(group: Command, act: Act): void {
  examples(
    waitOptions(
      appOptions(
        group
          .command('delete')
          .description('End an instance; another takes its place if it is wanted')
          .argument('<id>', 'see `bulkhead ps`'),
      ),
    ).action(
      act(async (session, options: WaitOptions, id: string) => {
        await replace(session, session.app(), 'delete', id, options);
      }),
    ),
    ['instances delete i0123456789ab --app hello'],
    'The new one is not waited for; `bulkhead restart --instance` has it ready first.',
  );
}
