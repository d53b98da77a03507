import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { CliError, Interrupted } from '../errors.ts';
import { resync, resyncWaiting } from '../graphql/operations.ts';
import type { Session } from '../session.ts';
import { examples, seconds, type Act } from './kit.ts';

const pollMs = 500;

interface ResyncCommandOptions {
  readonly detach?: boolean;
  readonly timeout?: number;
}

export function adminCommands(program: Command, act: Act): void {
  const group = program.command('admin').description('The platform itself');
  examples(group, ['admin resync']);
  examples(
    group
      .command('resync')
      .description('Write everything in NATS again from PostgreSQL, and remove what is stale there')
      .option('-d, --detach', 'do not wait until it is delivered')
      .option('--timeout <duration>', 'stop waiting after this time (the resync goes on)', seconds)
      .action(act((session, options: ResyncCommandOptions) => resyncAll(session, options))),
    ['admin resync', 'admin resync --timeout 5m'],
    'Nothing stops by it, and it may be repeated, also while deploys go on. After NATS came back\nempty the platform does the writing by itself.',
  );
}

async function resyncAll(session: Session, options: ResyncCommandOptions): Promise<void> {
  const { out } = session;
  const { resync: started } = await session.client().request(resync, {});
  const { instances, routes, stale, left } = started;
  if (left > 0)
    out.warn(
      `${count(left, 'key')} in NATS left alone: the database does not know the nodes or has no routes. Was it restored from a backup?`,
    );
  const written = `${count(instances, 'instance')} and ${count(routes, 'route')}`;
  if (options.detach !== true) await untilDelivered(session, started.until, options.timeout);
  out.data(started);
  out.line(
    options.detach === true
      ? `${written} are being written to NATS again, ${count(stale, 'stale key')} removed.`
      : `${written} written to NATS again, ${count(stale, 'stale key')} removed.`,
  );
}

async function untilDelivered(
  session: Session,
  until: string,
  timeout: number | undefined,
): Promise<void> {
  const { out, io } = session;
  const goOn = 'It goes on by itself; bulkhead admin resync may be repeated.';
  const deadline = timeout === undefined ? Infinity : Date.now() + timeout * 1000;
  let told = -1;
  for (;;) {
    const { resyncWaiting: waiting } = await session.client().request(resyncWaiting, { until });
    if (waiting === 0) return;
    if (waiting !== told) out.note(`${String(waiting)} left to deliver`);
    told = waiting;
    if (Date.now() >= deadline)
      throw new CliError('UNAVAILABLE', `${String(waiting)} changes are not delivered yet`, {
        code: 'TIMEOUT',
        hint: goOn,
      });
    await delay(pollMs, undefined, { signal: io.signal }).catch(() => {
      throw new Interrupted('no longer watching', goOn);
    });
  }
}

const count = (number: number, noun: string) =>
  `${String(number)} ${noun}${number === 1 ? '' : 's'}`;
