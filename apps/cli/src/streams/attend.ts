import type { StreamTicket } from '../graphql/types.ts';
import { CommandExit, Interrupted, usageError } from '../errors.ts';
import type { Session } from '../session.ts';
import { Stream } from './stream.ts';
import { DetachKeys, Terminal } from './terminal.ts';

export interface Attendance {
  /** Keys and pipes go to the command. */
  readonly stdin: boolean;
  /** The command has a terminal, ours. */
  readonly terminal: Terminal | null;
  /** With a terminal, Ctrl-P Ctrl-Q lets go of it. */
  readonly detachable: boolean;
  /** What a Ctrl-C does that is not typed into the command's own terminal. */
  readonly onInterrupt: 'signal' | 'let go' | (() => void);
  readonly started?: () => void;
}

/** `-t` wants a terminal of ours; null without it. */
export function terminalFor(session: Session, wanted: boolean): Terminal | null {
  if (!wanted) return null;
  if (!session.io.streams.stdin.isTTY) {
    throw usageError(
      '-t needs a terminal, and the standard input is none',
      'Leave out -t; with -i the command still gets what is piped in.',
    );
  }
  return new Terminal(session.io);
}

/** The terminal as the API wants to hear of it. */
export function terminalInput(session: Session, terminal: Terminal | null) {
  if (terminal === null) return null;
  return { term: session.io.env['TERM'] ?? 'xterm', ...terminal.size };
}

/** Waits until a pipe or a terminal has taken it. */
export async function put(stream: NodeJS.WriteStream, bytes: Buffer): Promise<void> {
  if (!stream.write(bytes)) await new Promise((resolve) => stream.once('drain', resolve));
}

/**
 * Puts a person, or a script, in front of a command far away until it ends. Gives its exit code, or
 * null when they let go of it.
 */
export async function attend(
  session: Session,
  ticket: StreamTicket,
  how: Attendance,
): Promise<number | null> {
  const { stdin, stdout, stderr } = session.io.streams;
  const { terminal } = how;
  let begun = false;
  let letGo: 'detached' | 'interrupted' | null = null;
  const begin = () => {
    if (begun) return;
    begun = true;
    how.started?.();
    terminal?.take();
    if (how.stdin) keys.start();
  };
  const stream: Stream = new Stream(session, ticket, {
    started: begin,
    data: (bytes) => (begin(), put(stdout, bytes)),
    errorData: (bytes) => (begin(), put(stderr, bytes)),
  });
  const leave = (why: typeof letGo) => {
    letGo = why;
    stream.close();
  };
  const keys = pump(stdin, stream, how.detachable && terminal !== null, () => leave('detached'));
  const resized = () => terminal && void stream.resize(terminal.size);
  const interrupted = () => {
    // With a terminal a Ctrl-C is a key like any other: what comes here is somebody's `kill`.
    if (!begun || terminal !== null) leave('interrupted');
    else if (how.onInterrupt === 'let go') leave('detached');
    else if (how.onInterrupt !== 'signal') how.onInterrupt();
    else void stream.signal(session.io.signal.reason === 'SIGTERM' ? 'SIGTERM' : 'SIGINT');
  };
  stdout.on('resize', resized);
  session.io.signal.addEventListener('abort', interrupted, { once: true });
  if (session.io.signal.aborted) interrupted();
  try {
    const code = await stream.done;
    if (letGo === 'interrupted') throw new Interrupted();
    return letGo === null ? code : null;
  } finally {
    keys.stop();
    stdout.off('resize', resized);
    session.io.signal.removeEventListener('abort', interrupted);
    terminal?.restore();
  }
}

/** Ends the program with a command's exit code; 0 goes the ordinary way. */
export function endWith(code: number): void {
  if (code !== 0) throw new CommandExit(code);
}

/** What comes on stdin goes to the stream, no faster than it takes it. */
function pump(stdin: NodeJS.ReadStream, stream: Stream, detachable: boolean, detach: () => void) {
  const detachKeys = detachable ? new DetachKeys() : null;
  const onData = (chunk: Buffer) => {
    const { send, detach: leave } = detachKeys?.press(chunk) ?? { send: chunk, detach: false };
    stdin.pause();
    void stream.send(send).then(() => {
      if (leave) detach();
      else if (stdin.listeners('data').includes(onData)) stdin.resume();
    });
  };
  const onEnd = () => void stream.end();
  return {
    start: () => stdin.on('data', onData).once('end', onEnd).once('error', onEnd),
    stop: () => {
      stdin.off('data', onData).off('end', onEnd).off('error', onEnd);
      stdin.pause();
    },
  };
}
