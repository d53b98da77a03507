import { createLogUpdate } from 'log-update';
import { CliError, Interrupted } from '../errors.ts';
import type { Deployment } from '../graphql/types.ts';
import type { Session } from '../session.ts';
import { followDeployment } from './follow.ts';
import { adviseAtGate, changes, draw } from './view.ts';
import { judge } from './verdict.ts';

export interface WatchOptions {
  readonly id: string;
  /** What to add to commands that are suggested: ` --app hello --tenant demo`. */
  readonly place: string;
  /** How long to wait, not how long the deployment may take; null waits for its end. Seconds. */
  readonly timeout: number | null;
  /** With --json, a record per change instead of one document at the end. */
  readonly stream?: boolean;
  /** Goes on watching while it waits to be promoted. */
  readonly pastGates?: boolean;
}

/**
 * Shows a deployment until it ends or waits for people, and throws what it failed with. Ctrl-C and
 * the timeout end the watching, never the deployment.
 */
export async function watchDeployment(session: Session, options: WatchOptions): Promise<void> {
  const { out, io } = session;
  const deadline = new AbortController();
  const timer =
    options.timeout === null
      ? undefined
      : setTimeout(() => deadline.abort(), options.timeout * 1000);
  const client = session.client();
  const screen = out.json ? silent : out.streams.stderr.isTTY ? painter(session) : printer(session);
  let last: Deployment | null = null;
  try {
    const follow = followDeployment({
      client: client.until(deadline.signal),
      id: options.id,
      trouble: (text) => screen.trouble(text),
    });
    for await (const deployment of follow) {
      screen.show(deployment);
      last = deployment;
      if (options.stream === true) out.record(deployment);
      if (options.pastGates !== true && waitsForPeople(deployment)) break;
    }
  } catch (error) {
    screen.close();
    const goOn = `It goes on without us. Follow it: bulkhead deployments follow ${options.id}`;
    if (io.signal.aborted) throw new Interrupted('no longer watching', goOn);
    if (deadline.signal.aborted) {
      throw new CliError('UNAVAILABLE', `not finished after ${String(options.timeout)} s`, {
        code: 'TIMEOUT',
        hint: goOn,
      });
    }
    if (error instanceof CliError && error.exit === 'UNAVAILABLE') {
      throw new CliError('UNAVAILABLE', error.message, { code: error.code, hint: goOn });
    }
    throw error;
  } finally {
    clearTimeout(timer);
  }
  screen.close();
  if (last === null)
    throw new CliError('UNAVAILABLE', 'the server said nothing about the deployment');
  if (options.stream !== true) out.data(last);
  if (last.status === 'RUNNING' && waitsForPeople(last)) {
    out.line(`${out.style.warn('‖')} ${adviseAtGate(last, options.place)}`);
    return;
  }
  const { lines, error } = judge(last, options.place, out.noteStyle);
  // What went wrong is about the command, like an error; that it is ready is its result.
  for (const line of lines) {
    if (error === null) out.line(line);
    else out.note(line);
  }
  if (error !== null) throw error;
}

const waitsForPeople = ({ pause }: Deployment) => pause !== null && pause.until === null;

interface Screen {
  show(deployment: Deployment): void;
  trouble(text: string | null): void;
  close(): void;
}

const silent: Screen = { show: () => undefined, trouble: () => undefined, close: () => undefined };

/** A line per change, for logs and pipes. */
function printer({ out }: Session): Screen {
  let previous: Deployment | null = null;
  let said: string | null = null;
  return {
    show: (deployment) => {
      for (const line of changes(previous, deployment)) out.note(line);
      previous = deployment;
    },
    trouble: (text) => {
      if (text !== null && text !== said) out.note(text);
      said = text;
    },
    close: () => undefined,
  };
}

/** A picture that is drawn again at every change and, for the clock in it, eight times a second. */
function painter({ out }: Session): Screen {
  const terminal = out.streams.stderr;
  const update = createLogUpdate(terminal, { showCursor: true });
  let current: Deployment | null = null;
  let trouble: string | null = null;
  let frame = 0;
  const paint = () => {
    if (current === null) return;
    const canvas = {
      columns: terminal.columns || 80,
      rows: terminal.rows || 24,
      now: out.now(),
      style: out.noteStyle,
      frame,
      trouble,
    };
    update(draw(current, canvas).join('\n'));
  };
  const timer = setInterval(() => {
    frame += 1;
    paint();
  }, 125);
  timer.unref();
  return {
    show: (deployment) => {
      current = deployment;
      paint();
    },
    trouble: (text) => {
      trouble = text;
      paint();
    },
    close: () => {
      clearInterval(timer);
      trouble = null;
      paint();
      update.done();
    },
  };
}
