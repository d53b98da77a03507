import type { Readable, Writable } from 'node:stream';
import type { TerminalSize } from '@bulkhead/protocol';
import { constants } from 'node:os';
import { ConsoleSocket } from './console.ts';
import type { Terminal } from './console.ts';
import { enter, refusalOf } from './enter.ts';
import type { Entry } from './enter.ts';
import type { Host } from './host.ts';
import { busyboxInside, capabilities } from './oci-config.ts';
import { RuntimeError } from './runtime.ts';
import type { Exec, ExecOptions } from './runtime.ts';
import type { ContainerRecord } from './state.ts';

/** Commands that a person or a program outside talks with (enter.ts says how they get in). */

/** From the hang-up to SIGKILL, ms. */
const hangUpGraceMs = 3000;
let count = 0;

/** Throws RuntimeError `not-running`. What the command itself comes to is told by `end`. */
export async function startExec(
  host: Host,
  record: ContainerRecord,
  options: ExecOptions,
): Promise<Exec> {
  const { command, terminal } = options;
  let console: ConsoleSocket | null = null;
  const entry = await enter(host, record, {
    name: `exec-${process.pid}-${++count}`,
    process: {
      args: terminal && host.busybox !== null ? withSize(command, terminal.size) : command,
      ...(options.asRoot && rootInside),
      ...(terminal && { terminal: true }),
    },
    ...(terminal && { env: [`TERM=${terminal.term || 'xterm'}`] }),
    stdin: options.stdin && !terminal ? 'pipe' : 'ignore',
    ...(terminal && {
      consoleSocket: (dir: string) => (console = new ConsoleSocket(`${dir}/console`)).path,
    }),
  });
  if (!entry) throw new RuntimeError('not-running', 'The container does not run.');
  return terminal && console
    ? onTerminal(entry, console, terminal.size)
    : onPipes(entry, options.stdin);
}

/**
 * The command, once its terminal has its size: crun 1.8 gives it none before the process runs, and
 * what looks only once would see 0 by 0.
 */
const withSize = (command: readonly string[], { columns, rows }: TerminalSize): string[] => [
  ...[busyboxInside, 'sh', '-c', `${busyboxInside} stty cols ${columns} rows ${rows}; exec "$@"`],
  ...['sh', ...command],
];

/** The container's root, for the platform's own work in it: with what a root of its own would have, no more. */
const rootInside = {
  user: { uid: 0, gid: 0, umask: 0o022 },
  cwd: '/',
  capabilities: {
    ...{ bounding: capabilities, effective: capabilities, permitted: capabilities },
    ...{ inheritable: [], ambient: [] },
  },
};

function onPipes(entry: Entry, withInput: boolean): Exec {
  const { stdin, stdout, stderr } = entry.child;
  if (!stdout || !stderr) throw new Error('crun was started without pipes');
  // A command may end without reading all of its input.
  stdin?.on('error', () => undefined);
  return {
    stdin: withInput ? stdin : null,
    stdout,
    stderr,
    end: endOf(entry),
    resize: () => undefined,
    signal: (name) => signalAll(entry, name),
    hangUp: () => hangUp(entry),
  };
}

async function onTerminal(entry: Entry, console: ConsoleSocket, size: TerminalSize): Promise<Exec> {
  const ended = new AbortController();
  void entry.end.then(
    () => ended.abort(),
    () => ended.abort(),
  );
  let terminal: Terminal | null;
  try {
    terminal = await console.terminal(ended.signal);
  } finally {
    console.close();
  }
  if (!terminal) {
    await entry.kill();
    await endOf(entry);
    throw new RuntimeError('exec-refused', 'The terminal could not be opened.');
  }
  const { stream } = terminal;
  const open = terminal;
  open.resize(size);
  return {
    stdin: stream as Writable,
    stdout: stream as Readable,
    stderr: null,
    end: endOf(entry),
    resize: (to) => open.resize(to),
    signal: (name) => signalAll(entry, name),
    hangUp: () => {
      stream.destroy();
      hangUp(entry);
    },
  };
}

async function endOf(entry: Entry): Promise<number> {
  const { exitCode, said } = await entry.end;
  if (said !== '')
    throw new RuntimeError(
      'exec-refused',
      sentence(refusalOf(said) ?? 'the command could not be run'),
    );
  // crun itself was killed, with the command.
  return exitCode ?? 128 + constants.signals.SIGKILL;
}

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

function signalAll(entry: Entry, name: string): void {
  const number = new Map<string, number>(Object.entries(constants.signals)).get(name);
  if (number === undefined) return;
  for (const pid of entry.processes()) {
    try {
      process.kill(pid, number);
    } catch {
      // It ended meanwhile.
    }
  }
}

function hangUp(entry: Entry): void {
  signalAll(entry, 'SIGHUP');
  const timer = setTimeout(() => entry.kill().catch(() => undefined), hangUpGraceMs);
  entry.end.then(
    () => clearTimeout(timer),
    () => clearTimeout(timer),
  );
}
