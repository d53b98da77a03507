import type { Command } from 'commander';
import { CliError, Interrupted, usageError } from '../errors.ts';
import type { GraphqlClient } from '../graphql/client.ts';
import { attachTask, instances, runTask, stopTask } from '../graphql/operations.ts';
import type { Instance, StreamTicket } from '../graphql/types.ts';
import { relative } from '../output/time.ts';
import { showWaiting } from '../progress/waiting.ts';
import { paintState, stateOf } from '../progress/view.ts';
import type { Session } from '../session.ts';
import { attend, endWith, terminalFor, terminalInput, type Attendance } from '../streams/attend.ts';
import { StreamLost } from '../streams/stream.ts';
import { instanceId } from './instance-name.ts';
import {
  appOptions,
  examples,
  groupDefault,
  integer,
  placeOf,
  remoteAppOptions,
  seconds,
  type Act,
} from './kit.ts';
import { parseMillis, parseMiB } from './sizes.ts';

interface RunOptions {
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly detach?: boolean;
  readonly process?: string;
  readonly release?: number;
  readonly cpu?: number;
  readonly memory?: number;
  readonly timeout?: number;
}

type At = { tenant: string; app: string };

const releaseNumber = (text: string) => integer(1, 1_000_000)(text.replace(/^v/, ''));

/** What to do with a task that goes on without us. */
function goesOn(session: Session, at: At, id: string): string {
  const place = placeOf(session, at);
  return [
    `  bulkhead tasks attach ${id}${place}`,
    `  bulkhead logs -f --instance ${id}${place}`,
    `  bulkhead tasks stop ${id}${place}`,
  ].join('\n');
}

async function allTasks(client: GraphqlClient, at: At, gone: boolean): Promise<Instance[]> {
  const all = await client.all(
    instances,
    { ...at, includeGone: gone },
    (result) => result.app.instances,
  );
  return all.filter(({ oneOff }) => oneOff).reverse();
}

/** In front of a task; a lost connection says how to come back, for the task goes on. */
async function attendTask(
  session: Session,
  at: At,
  ticket: StreamTicket,
  how: Omit<Attendance, 'detachable'>,
): Promise<void> {
  const { instance } = ticket;
  try {
    const code = await attend(session, ticket, { ...how, detachable: true });
    if (code === null) {
      session.out.note(`Let go of ${instance}; it runs on:\n${goesOn(session, at, instance)}`);
      return;
    }
    endWith(code);
  } catch (error) {
    if (!(error instanceof StreamLost)) throw error;
    throw new CliError('UNAVAILABLE', error.message, {
      hint: `The task runs on:\n${goesOn(session, at, instance)}`,
    });
  }
}

async function run(session: Session, options: RunOptions, command: string[]): Promise<void> {
  if (command.length === 0)
    throw usageError('no command given', 'Write it after --: bulkhead run -- npm run migrate');
  const detach = options.detach === true;
  const stdin = options.interactive === true;
  if (detach && (stdin || options.tty === true))
    throw usageError('--detach and -it exclude each other', 'Leave out one of them.');
  const terminal = terminalFor(session, options.tty === true);
  const at = session.app();
  const client = session.client();
  const { instance, stream } = (
    await client.request(runTask, {
      input: {
        ...at,
        command,
        process: options.process ?? null,
        release: options.release ?? null,
        cpuMillis: options.cpu ?? null,
        memoryMiB: options.memory ?? null,
        terminal: terminalInput(session, terminal),
        stdin,
        timeoutSeconds: options.timeout ?? null,
        detach,
      },
    })
  ).runTask;
  if (stream === null) {
    session.out.data(instance);
    session.out.line(instance.id);
    session.out.note(`It runs on its own:\n${goesOn(session, at, instance.id)}`);
    return;
  }
  const stopRunning = async () => {
    session.out.note('Stopping it; Ctrl-C again leaves it to itself.');
    const alone = session.unsignalledClient();
    await alone.request(stopTask, { input: { ...at, instance: instance.id } });
  };
  let started = false;
  const waiting = showWaiting(session, at, instance);
  try {
    await attendTask(session, at, stream, {
      stdin,
      terminal,
      // A command that hears nothing of us is told to stop by the platform.
      onInterrupt: stdin ? 'signal' : () => void stopRunning(),
      started: () => {
        started = true;
        waiting.close();
      },
    });
  } catch (error) {
    // Who gives up before it runs does not want it to run later.
    if (error instanceof Interrupted && !started) {
      const alone = session.unsignalledClient();
      await alone.request(stopTask, { input: { ...at, instance: instance.id } });
      throw new Interrupted('stopped before it ran');
    }
    throw error;
  } finally {
    waiting.close();
  }
}

export function taskCommands(program: Command, act: Act): void {
  examples(
    remoteAppOptions(
      program
        .command('run')
        .description('Run a one-off task in a new container')
        .argument('[command...]', 'after --')
        .option('-i, --interactive', 'pass on what is typed or piped in')
        .option('-t, --tty', 'with a terminal; Ctrl-P Ctrl-Q lets go of it')
        .option('-d, --detach', 'do not wait for it')
        .option('-p, --process <name>', 'with the size of this process')
        .option('--release <version>', 'of this release (default: the current one)', releaseNumber)
        .option('--memory <size>', 'memory limit: 512, 512m, 2g', parseMiB)
        .option('--cpu <share>', 'CPU: 500m, 0.5, 2', parseMillis)
        .option('--timeout <duration>', 'stop it when it still runs after this time', seconds),
    ).action(
      act((session, options: RunOptions, command: string[]) => run(session, options, command)),
    ),
    [
      'run --app hello -- npm run migrate',
      'run -it --app hello -- node',
      'run --detach --timeout 2h --memory 1g --app hello -- ./report.sh',
      'run -i --app hello --release v3 -- ./import < rows.csv',
    ],
    "Ends with the command's exit code. Ctrl-C goes to the command; a lost connection does not end it.",
  );

  const tasks = examples(
    appOptions(program.command('tasks').description('List, attach to and stop one-off tasks')),
    ['tasks --app hello', 'tasks attach i3k9 --app hello', 'tasks stop i3k9 --app hello'],
  );
  const list = act(async (session, options: { all?: boolean }) => {
    const { out } = session;
    const at = session.app();
    const now = out.now();
    const rows = await allTasks(session.client(), at, options.all === true);
    out.list(
      rows,
      [
        { title: 'INSTANCE', value: (row) => row.id },
        { title: 'RELEASE', value: (row) => `v${String(row.release)}` },
        {
          title: 'STATE',
          value: stateOf,
          style: (cell, row) => paintState(stateOf(row), out.style, cell),
        },
        { title: 'AGE', value: (row) => relative(row.createdAt, now).replace(' ago', '') },
        { title: 'NOTE', value: (row) => row.lastExit?.message ?? row.message ?? '', shrink: true },
      ],
      `No tasks of ${at.app}.`,
    );
  });
  groupDefault(tasks, list);
  examples(
    appOptions(
      tasks
        .command('list')
        .description('List the tasks of an app, newest first')
        .option('--all', 'also those that are gone'),
    ).action(list),
    ['tasks list --app hello --all', 'tasks list --app hello --json'],
  );
  examples(
    remoteAppOptions(
      tasks
        .command('attach')
        .description('See what a task writes, from its start on, until it ends')
        .argument('<instance>')
        .option('-i, --interactive', 'pass on what is typed or piped in')
        .option('-t, --tty', 'with a terminal; Ctrl-P Ctrl-Q lets go of it'),
    ).action(
      act(async (session, options: RunOptions, text: string) => {
        const terminal = terminalFor(session, options.tty === true);
        const at = session.app();
        const client = session.client();
        const instance = await instanceId(client, at, text);
        const answer = await client.request(attachTask, {
          input: { ...at, instance, terminal: terminalInput(session, terminal) },
        });
        const stdin = options.interactive === true;
        await attendTask(session, at, answer.attachTask, {
          stdin,
          terminal,
          onInterrupt: stdin ? 'signal' : 'let go',
        });
      }),
    ),
    ['tasks attach i3k9 --app hello', 'tasks attach -it i3k9 --app hello'],
    "Ends with the task's exit code, also when it has run already.",
  );
  examples(
    appOptions(tasks.command('stop').description('Stop tasks').argument('<instance...>')).action(
      act(async (session, _options: object, texts: string[]) => {
        const at = session.app();
        const client = session.client();
        const stopped: Instance[] = [];
        for (const text of texts) {
          const instance = await instanceId(client, at, text);
          stopped.push((await client.request(stopTask, { input: { ...at, instance } })).stopTask);
          session.out.line(instance);
        }
        session.out.data(stopped);
      }),
    ),
    ['tasks stop i3k9 --app hello'],
  );
}
