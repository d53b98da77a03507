/**
 * What the agent does for a stream (OpenStream of libs/protocol): each kind is one function from
 * frames to frames, on the runtime's verbs. What they throw is told to the other side in words.
 */
import { posix } from 'node:path';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import {
  assertNever,
  notFound,
  type InstanceUsage,
  type OpenStream,
  type TerminalSize,
} from '@bulkhead/protocol';
import type { ContainerRuntime, ContainerUse, Exec } from '@bulkhead/runtime';
import { extract, pack } from 'tar-stream';
import type { Wire } from './wire.ts';

/** What a stream may ask of the agent besides the runtime. */
export interface Tasks {
  /** The task's command, when it waits for somebody to attach and nobody has; throws CONFLICT otherwise. */
  beginAttach(instance: string): Promise<{ command: readonly string[]; terminal: boolean } | null>;
  /** How the command of such a task ended. */
  endAttach(instance: string, exitCode: number | null): Promise<void>;
}

export interface ServeOptions {
  readonly runtime: ContainerRuntime;
  readonly tasks: Tasks;
}

const defaultSize: TerminalSize = { columns: 80, rows: 24 };

/** Sends everything but the last frame; answers the exit code for it. */
export async function serve(open: OpenStream, wire: Wire, of: ServeOptions): Promise<number> {
  const { runtime } = of;
  switch (open.kind) {
    case 'exec': {
      const { command, stdin, terminal } = open;
      return talk(await runtime.exec(open.instance, { command, stdin, terminal }), wire);
    }
    case 'attach':
      return attach(open, wire, of);
    case 'copy-out':
      return copyOut(open, wire, runtime);
    case 'copy-in':
      return copyIn(open, wire, runtime);
    case 'forward':
      return forward(open, wire, runtime);
    case 'changes':
      for await (const change of runtime.changes(open.instance)) {
        if (wire.closed.aborted) break;
        await wire.send({ value: JSON.stringify(change) });
      }
      return 0;
    case 'usage':
      return usage(open, wire, runtime);
    default:
      return assertNever(open);
  }
}

async function talk(exec: Exec, wire: Wire): Promise<number> {
  const hangUp = () => exec.hangUp();
  wire.closed.addEventListener('abort', hangUp, { once: true });
  if (wire.closed.aborted) hangUp();
  await wire.send({ started: {} });
  // Not waited for: the command may end long before its input does.
  void feed(exec, wire);
  try {
    await Promise.all([
      sendAll(exec.stdout, wire, 'data'),
      ...(exec.stderr ? [sendAll(exec.stderr, wire, 'errorData')] : []),
    ]);
    return await exec.end;
  } finally {
    wire.closed.removeEventListener('abort', hangUp);
    exec.end.catch(() => undefined);
  }
}

async function feed(exec: Exec, wire: Wire): Promise<void> {
  for await (const frame of wire.frames()) {
    if (frame.data && exec.stdin) await write(exec.stdin, frame.data);
    else if (frame.end) exec.stdin?.end();
    else if (frame.resize) exec.resize(frame.resize);
    else if (frame.signal) exec.signal(frame.signal);
  }
}

/** Resolves when there is room for more, or nobody reads. */
async function write(to: Writable, data: Buffer): Promise<void> {
  if (to.destroyed || to.writableEnded || to.write(data)) return;
  await new Promise<void>((resolve) => {
    const go = () => {
      to.off('drain', go).off('close', go).off('error', go);
      resolve();
    };
    to.once('drain', go).once('close', go).once('error', go);
  });
}

/** A stream that fails has ended: what matters of it is told by the exit code. */
async function sendAll(from: Readable, wire: Wire, kind: 'data' | 'errorData'): Promise<void> {
  try {
    for await (const chunk of from) await wire.sendData(kind, chunk as Buffer);
  } catch {
    // A terminal's end comes as an error.
  }
}

async function attach(
  { instance, size }: Extract<OpenStream, { kind: 'attach' }>,
  wire: Wire,
  { runtime, tasks }: ServeOptions,
): Promise<number> {
  const waiting = await tasks.beginAttach(instance);
  if (waiting === null) return watch(instance, wire, runtime);
  let code: number | null = null;
  try {
    const terminal = waiting.terminal
      ? { term: 'xterm-256color', size: size ?? defaultSize }
      : null;
    const { command } = waiting;
    code = await talk(await runtime.exec(instance, { command, stdin: true, terminal }), wire);
    return code;
  } finally {
    await tasks.endAttach(instance, code);
  }
}

/** The output of a task that needs nobody, from its start on, and its end. */
async function watch(instance: string, wire: Wire, runtime: ContainerRuntime): Promise<number> {
  const exit = runtime.waitExit(instance, wire.closed);
  let ended = false;
  const settled = exit.then(
    () => (ended = true),
    () => (ended = true),
  );
  await wire.send({ started: {} });
  let cursor: string | null = null;
  for (;;) {
    const last = ended;
    const read: Awaited<ReturnType<typeof runtime.readLogs>> | null = await runtime
      .readLogs(instance, cursor, 1000)
      .catch(() => null);
    if (read === null) break;
    cursor = read.cursor;
    for (const { stream, text } of read.lines)
      await wire.sendData(stream === 'stdout' ? 'data' : 'errorData', Buffer.from(`${text}\n`));
    if (wire.closed.aborted || (last && read.lines.length === 0)) break;
    if (read.lines.length === 0) await Promise.race([settled, delay(100)]);
  }
  const { exitCode } = await exit;
  return exitCode ?? 137;
}

async function copyOut(
  { instance, path }: Extract<OpenStream, { kind: 'copy-out' }>,
  wire: Wire,
  runtime: ContainerRuntime,
): Promise<number> {
  const copy = await runtime.copyOut(instance, path);
  wire.closed.addEventListener('abort', () => copy.cancel(), { once: true });
  // tar ends an archive also when it found nothing to put into it; that is told by a failure alone.
  const first = await copy.archive[Symbol.asyncIterator]().next();
  const bytes = first.done === true ? null : (first.value as Buffer);
  if (bytes === null || bytes[0] === 0) {
    copy.archive.resume();
    await copy.end;
  }
  await wire.send({ started: {} });
  if (bytes !== null) await wire.sendData('data', bytes);
  await sendAll(copy.archive, wire, 'data');
  await copy.end;
  return 0;
}

/**
 * Into the directory `path`, or, when there is none, as `path` into the directory above, as
 * `docker cp` has it.
 */
async function copyIn(
  { instance, path }: Extract<OpenStream, { kind: 'copy-in' }>,
  wire: Wire,
  runtime: ContainerRuntime,
): Promise<number> {
  const whole = posix.normalize(path).replace(/(.)\/$/, '$1');
  const isThere = await runtime.isDirectory(instance, whole);
  if (!isThere && path.endsWith('/')) throw notFound(`directory ${path}`);
  const copy = await runtime.copyIn(instance, isThere ? whole : posix.dirname(whole));
  wire.closed.addEventListener('abort', () => copy.cancel(), { once: true });
  const input = isThere ? copy.archive : renamed(posix.basename(whole), copy.archive);
  await wire.send({ started: {} });
  void pour(wire, input);
  await copy.end;
  return 0;
}

/** All data that comes, and its end. Reads on after that: to leave the frames is to leave the stream. */
async function pour(wire: Wire, to: Writable): Promise<void> {
  for await (const frame of wire.frames()) {
    if (frame.data) await write(to, frame.data);
    else if (frame.end) to.end();
  }
  to.end();
}

/** Gives everything in an archive another first name. */
function renamed(name: string, to: Writable): Writable {
  const [reader, writer] = [extract(), pack()];
  reader.on('entry', (header, content, next) => {
    const rest = posix.normalize(header.name).split('/').filter(Boolean).slice(1);
    const entry = writer.entry({ ...header, name: [name, ...rest].join('/') }, next);
    content.pipe(entry);
  });
  reader.on('finish', () => writer.finalize());
  // What is broken in one of them ends the whole; the unpacking at the far end says what it was.
  const input = new PassThrough();
  pipeline(input, reader).catch(() => to.destroy());
  pipeline(writer, to).catch(() => input.destroy());
  return input;
}

async function forward(
  { instance, port }: Extract<OpenStream, { kind: 'forward' }>,
  wire: Wire,
  runtime: ContainerRuntime,
): Promise<number> {
  const socket = await runtime.connect(instance, port);
  // Its failure ends both directions, and shows there.
  socket.on('error', () => undefined);
  wire.closed.addEventListener('abort', () => socket.destroy(), { once: true });
  await wire.send({ started: {} });
  void pour(wire, socket);
  await sendAll(socket, wire, 'data');
  await wire.send({ end: {} });
  // The other half may go on: until the client has said all, or is gone.
  await finished(socket).catch(() => undefined);
  return 0;
}

async function usage(
  { instances, intervalMs }: Extract<OpenStream, { kind: 'usage' }>,
  wire: Wire,
  runtime: ContainerRuntime,
): Promise<number> {
  const before = new Map<string, { at: number; use: ContainerUse }>();
  await wire.send({ started: {} });
  while (!wire.closed.aborted) {
    for (const instance of instances) {
      const use = runtime.use(instance);
      const limits = runtime.limits(instance);
      if (!use || !limits) continue;
      const at = performance.now();
      const value = reckon(instance, { at, use }, before.get(instance) ?? null, limits);
      before.set(instance, { at, use });
      await wire.send({ value: JSON.stringify(value) });
    }
    await delay(intervalMs, undefined, { signal: wire.closed }).catch(() => undefined);
  }
  return 0;
}

type Reading = { at: number; use: ContainerUse };

/** Rates are since the reading before; null in the first. */
export function reckon(
  instance: string,
  { at, use }: Reading,
  before: Reading | null,
  limits: { cpuCapMillis: number; memoryMiB: number; pids: number },
): InstanceUsage {
  const seconds = before === null ? 0 : (at - before.at) / 1000;
  const rate = (of: (use: ContainerUse) => number): number | null =>
    before === null || seconds <= 0 ? null : Math.max(0, of(use) - of(before.use)) / seconds;
  const periods = before === null ? 0 : use.periods - before.use.periods;
  const cpu = rate(({ cpuNanos }) => cpuNanos);
  return {
    instance,
    at: new Date(at).toISOString(),
    cpuMillis: cpu === null ? null : cpu / 1e6,
    cpuCapMillis: limits.cpuCapMillis,
    throttled:
      before === null
        ? null
        : periods > 0
          ? (use.throttledPeriods - before.use.throttledPeriods) / periods
          : 0,
    memoryBytes: use.memoryBytes,
    memoryLimitBytes: limits.memoryMiB * 1024 * 1024,
    pids: use.pids,
    pidsLimit: limits.pids,
    readBytesPerSecond: rate(({ readBytes }) => readBytes),
    writtenBytesPerSecond: rate(({ writtenBytes }) => writtenBytes),
    receivedBytesPerSecond: rate(({ receivedBytes }) => receivedBytes),
    sentBytesPerSecond: rate(({ sentBytes }) => sentBytes),
    diskBytes: use.disk?.bytes ?? null,
    diskLimitBytes: use.disk?.limit ?? null,
  };
}
