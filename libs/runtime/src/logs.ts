import {
  linkSync,
  readdirSync,
  readSync,
  openSync,
  closeSync,
  fstatSync,
  rmSync,
  statSync,
  watch,
} from 'node:fs';
import type { ContainerLogLine } from './runtime.ts';

/**
 * The output of a container, as conmon writes it ("time stream P|F text" a line). conmon rotates by
 * renaming a new file over `current`, which would drop what is in the old one. So `current` has a
 * second name, `<sequence>-<inode>`; a file that was rotated away lives on under it, and the oldest
 * are deleted. It gets that name at the start, and the next ones at each read and soon after each
 * rotation (log-rotations.ts), so that lines wait for their reader as long as files are kept. The
 * sequence counts files that were rotated away before they had one, too: what is missing was lost,
 * and a read says how much. A cursor is a file and an offset; lines in flight (conmon cuts long lines
 * into parts) are remembered by where their first part starts.
 */
export const logSizeMax = 4 * 1024 * 1024;
const filesKept = 3;
const longestLine = 64 * 1024;
const readSize = 1024 * 1024;

type Stream = ContainerLogLine['stream'];
/** A file, by its sequence, and an offset in it. */
interface Position {
  s: number;
  o: number;
}
/** The first record not yet read. */
interface Cursor extends Position {
  /** Where the unfinished line of each stream starts ... */
  p: Partial<Record<Stream, number>>;
  /** ... and in which file, when that is an earlier one. */
  f?: Partial<Record<Stream, number>>;
}
interface LogFile {
  sequence: number;
  path: string;
}

export const currentLog = (dir: string): string => `${dir}/current`;

/** How often the log in this directory was rotated since it was last asked for. */
type Rotated = (dir: string) => number;
const notCounted: Rotated = () => 0;

/** Files of the log, oldest first; gives `current` its second name and deletes what is too old. */
function logFiles(dir: string, rotated: Rotated): LogFile[] {
  const files = readdirSync(dir)
    .flatMap((name) => {
      const match = /^(\d+)-(\d+)$/.exec(name);
      return match
        ? [{ sequence: Number(match[1]), inode: Number(match[2]), path: `${dir}/${name}` }]
        : [];
    })
    .sort((a, b) => a.sequence - b.sequence);
  for (let rotations = rotated(dir); ;) {
    const inode = inodeOf(currentLog(dir));
    const meanwhile = rotated(dir);
    rotations += meanwhile;
    if (meanwhile > 0) continue;
    if (inode === null || files.some((file) => file.inode === inode)) break;
    const sequence = (files.at(-1)?.sequence ?? 0) + Math.max(1, rotations);
    const path = `${dir}/${sequence}-${inode}`;
    linkSync(currentLog(dir), path);
    if (inodeOf(path) === inode) {
      files.push({ sequence, inode, path });
      break;
    }
    // It was rotated once more before that.
    rmSync(path);
  }
  for (const old of files.splice(0, Math.max(0, files.length - filesKept)))
    rmSync(old.path, { force: true });
  return files;
}

const inodeOf = (path: string): number | null =>
  statSync(path, { throwIfNoEntry: false })?.ino ?? null;

/** Gives what was rotated its second names. */
export const keepRotated = (dir: string, rotated: Rotated): void => void logFiles(dir, rotated);

/** Before a start: a full file is put aside, and that which conmon goes on with is there and kept. */
export function prepareLog(dir: string, rotated: Rotated): void {
  keepRotated(dir, rotated);
  const size = statSync(currentLog(dir), { throwIfNoEntry: false })?.size ?? 0;
  if (size >= logSizeMax / 2) rmSync(currentLog(dir));
  closeSync(openSync(currentLog(dir), 'a', 0o600));
  keepRotated(dir, rotated);
}

export function readLog(
  dir: string,
  cursorText: string | null,
  limit: number,
  ended: boolean,
  rotated: Rotated = notCounted,
): { lines: ContainerLogLine[]; cursor: string; lostBytes: number } {
  const files = logFiles(dir, rotated);
  const from = parseCursor(cursorText);
  const unfinished = new Map(
    Object.entries(from.p).map(([stream, o]) => [
      stream,
      { s: from.f?.[stream as Stream] ?? from.s, o },
    ]),
  );
  const start = [...unfinished.values()].reduce(
    (first, position) => (isBefore(position, first) ? position : first),
    from as Position,
  );
  const lines: ContainerLogLine[] = [];
  const parts = new Map<Stream, { start: Position; at: Date; text: string }>();
  const emit = (stream: Stream): void => {
    const part = parts.get(stream);
    if (part) lines.push({ at: part.at, stream, text: part.text });
    parts.delete(stream);
  };
  const emitAll = (): void => [...parts.keys()].forEach(emit);
  let reached: Position = { s: from.s, o: from.o };
  let lostBytes = 0;
  for (const file of files) {
    if (file.sequence < start.s || lines.length >= limit) continue;
    if (file.sequence > reached.s) {
      const missing = missingBetween(reached, file, files);
      // The ends of unfinished lines are among it.
      if (missing > 0) emitAll();
      lostBytes += missing;
      reached = { s: file.sequence, o: 0 };
    }
    for (const { text, at, end } of records(file.path, file.sequence === start.s ? start.o : 0)) {
      if (lines.length >= limit) break;
      const position = { s: file.sequence, o: at };
      const match = record.exec(text);
      const stream = match?.[2] as Stream | undefined;
      if (isBefore(position, from)) {
        // Going back for an unfinished line of one stream passes finished ones of the other.
        const first = stream === undefined ? undefined : unfinished.get(stream);
        if (first === undefined || isBefore(position, first)) continue;
      } else reached = { s: file.sequence, o: end };
      if (!match || !stream) continue;
      const known = parts.get(stream);
      if (known) known.text += match[4] ?? '';
      else
        parts.set(stream, { start: position, at: new Date(match[1] ?? ''), text: match[4] ?? '' });
      if (match[3] === 'F' || (parts.get(stream)?.text.length ?? 0) >= longestLine) emit(stream);
    }
  }
  // Nothing will be added.
  if (ended && lines.length < limit) emitAll();
  const cursor: Cursor = { ...reached, p: {} };
  for (const [stream, part] of parts) {
    cursor.p[stream] = part.start.o;
    if (part.start.s !== reached.s) cursor.f = { ...cursor.f, [stream]: part.start.s };
  }
  return { lines, cursor: Buffer.from(JSON.stringify(cursor)).toString('base64url'), lostBytes };
}

const isBefore = (a: Position, b: Position): boolean => a.s < b.s || (a.s === b.s && a.o < b.o);

/** About how many bytes there were, and are not kept. A log begins where file 0 would have ended. */
function missingBetween(reached: Position, file: LogFile, files: readonly LogFile[]): number {
  const isThere = reached.s === 0 || files.some(({ sequence }) => sequence === reached.s);
  const rest = isThere ? 0 : Math.max(0, logSizeMax - reached.o);
  return rest + (file.sequence - reached.s - 1) * logSizeMax;
}

function parseCursor(text: string | null): Cursor {
  if (text === null) return { s: 0, o: 0, p: {} };
  try {
    const value = JSON.parse(Buffer.from(text, 'base64url').toString()) as Cursor;
    if (
      Number.isSafeInteger(value.s) &&
      Number.isSafeInteger(value.o) &&
      value.o >= 0 &&
      typeof value.p === 'object'
    )
      return value;
  } catch {
    // Falls through: the caller hears of it once.
  }
  throw new Error('This is not a cursor that readLogs gave.');
}

const record = /^(\S+) (stdout|stderr) ([PF]) (.*)$/s;

/** Whole lines of a file from `start` on, with where they begin and end. */
function* records(
  path: string,
  start: number,
): Generator<{ text: string; at: number; end: number }> {
  const file = openSync(path, 'r');
  try {
    const left = fstatSync(file).size - start;
    const buffer = Buffer.alloc(Math.min(readSize, Math.max(left, longestLine * 2)));
    let position = start;
    for (;;) {
      const size = readSync(file, buffer, 0, buffer.length, position);
      const whole = size === 0 ? 0 : buffer.lastIndexOf(10, size - 1) + 1;
      if (whole === 0) return;
      for (let at = 0; at < whole;) {
        const newline = buffer.indexOf(10, at);
        yield {
          text: buffer.toString('utf8', at, newline),
          at: position + at,
          end: position + newline + 1,
        };
        at = newline + 1;
      }
      position += whole;
    }
  } finally {
    closeSync(file);
  }
}

/** Tells of writes and rotations; the answer ends it. */
export function watchLog(dir: string, onChange: () => void): () => void {
  const watcher = watch(dir, { persistent: false }, (_event, name) => {
    if (name === 'current' || name === null) onChange();
  });
  watcher.on('error', () => watcher.close());
  return () => watcher.close();
}
