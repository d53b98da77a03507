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
 * renaming a new file over `current`, which would drop what nobody has read. So every read gives
 * `current` a second name, `<sequence>-<inode>`; a file that was rotated away lives on under it, and
 * the oldest are deleted. A cursor is a file and an offset; lines in flight (conmon cuts long lines
 * into parts) are remembered by where their first part starts.
 */
export const logSizeMax = 4 * 1024 * 1024;
const filesKept = 3;
const longestLine = 64 * 1024;
const readSize = 1024 * 1024;

type Stream = ContainerLogLine['stream'];
interface Cursor {
  /** Sequence of the file. */
  s: number;
  /** Offset of the first record not yet read. */
  o: number;
  /** Where the unfinished line of each stream starts in this file. */
  p: Partial<Record<Stream, number>>;
}
interface LogFile {
  sequence: number;
  path: string;
}

export const currentLog = (dir: string): string => `${dir}/current`;

/** Files of the log, oldest first; gives `current` its second name and deletes what is too old. */
function logFiles(dir: string): LogFile[] {
  const files = readdirSync(dir)
    .flatMap((name) => {
      const match = /^(\d+)-(\d+)$/.exec(name);
      return match
        ? [{ sequence: Number(match[1]), inode: Number(match[2]), path: `${dir}/${name}` }]
        : [];
    })
    .sort((a, b) => a.sequence - b.sequence);
  const inode = statSync(currentLog(dir), { throwIfNoEntry: false })?.ino;
  if (inode !== undefined && !files.some((file) => file.inode === inode)) {
    const sequence = (files.at(-1)?.sequence ?? 0) + 1;
    const path = `${dir}/${sequence}-${inode}`;
    linkSync(currentLog(dir), path);
    files.push({ sequence, inode, path });
  }
  for (const old of files.splice(0, Math.max(0, files.length - filesKept)))
    rmSync(old.path, { force: true });
  return files;
}

/** Before a start: a full file is put aside, so that conmon begins a new one. */
export function rotateBeforeStart(dir: string): void {
  const size = statSync(currentLog(dir), { throwIfNoEntry: false })?.size ?? 0;
  if (size < logSizeMax / 2) return;
  logFiles(dir);
  rmSync(currentLog(dir));
}

export function readLog(
  dir: string,
  cursorText: string | null,
  limit: number,
  ended: boolean,
): { lines: ContainerLogLine[]; cursor: string } {
  const files = logFiles(dir);
  let cursor = parseCursor(cursorText);
  const lines: ContainerLogLine[] = [];
  for (const file of files) {
    if (file.sequence < cursor.s) continue;
    if (file.sequence > cursor.s) cursor = { s: file.sequence, o: 0, p: {} };
    const isLast = file === files.at(-1);
    cursor = readFile(file.path, cursor, limit - lines.length, !isLast || ended, lines);
    if (lines.length >= limit) break;
  }
  return { lines, cursor: Buffer.from(JSON.stringify(cursor)).toString('base64url') };
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

/** Reads one file from the cursor; `final`: nothing will be added, so unfinished lines are lines. */
function readFile(
  path: string,
  from: Cursor,
  limit: number,
  final: boolean,
  lines: ContainerLogLine[],
): Cursor {
  const pendingStarts = Object.values(from.p);
  const start = Math.min(from.o, ...pendingStarts);
  const parts = new Map<Stream, { start: number; at: Date; text: string }>();
  let offset = from.o;
  const emit = (stream: Stream): void => {
    const part = parts.get(stream);
    if (part) lines.push({ at: part.at, stream, text: part.text });
    parts.delete(stream);
  };
  for (const { text, at, end } of records(path, start)) {
    if (lines.length >= limit) break;
    const match = record.exec(text);
    const stream = match?.[2] as Stream | undefined;
    const isOld = at < from.o;
    // Going back for an unfinished line of one stream passes finished ones of the other.
    if (isOld && (stream === undefined || at < (from.p[stream] ?? Infinity))) continue;
    if (!isOld) offset = end;
    if (!match || !stream) continue;
    const known = parts.get(stream);
    if (known) known.text += match[4] ?? '';
    else parts.set(stream, { start: at, at: new Date(match[1] ?? ''), text: match[4] ?? '' });
    if (match[3] === 'F' || (parts.get(stream)?.text.length ?? 0) >= longestLine) emit(stream);
  }
  if (final && lines.length < limit) for (const stream of [...parts.keys()]) emit(stream);
  const pending: Cursor['p'] = {};
  for (const [stream, part] of parts) pending[stream] = part.start;
  return { s: from.s, o: offset, p: pending };
}

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
