import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LogRotations } from './log-rotations.ts';
import { currentLog, keepRotated, prepareLog, readLog, watchLog } from './logs.ts';
import { until } from './testing/host.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(`${tmpdir()}/bulkhead-logs-`);
});
afterEach(() => rmSync(dir, { recursive: true }));

const at = '2026-01-02T03:04:05.123456789+00:00';
const write = (stream: string, tag: string, text: string): void =>
  appendFileSync(currentLog(dir), `${at} ${stream} ${tag} ${text}\n`);
/** What conmon does when the file is full. */
const rotate = (): void => {
  writeFileSync(`${dir}/new`, '');
  renameSync(`${dir}/new`, currentLog(dir));
};
const texts = (answer: ReturnType<typeof readLog>): string[] =>
  answer.lines.map((line) => line.text);

it('reads from the oldest, then only what is new', () => {
  expect(readLog(dir, null, 10, false).lines).toEqual([]);
  write('stdout', 'F', 'one');
  write('stderr', 'F', 'two: with  spaces');
  const first = readLog(dir, null, 10, false);
  expect(first.lines).toEqual([
    { at: new Date('2026-01-02T03:04:05.123Z'), stream: 'stdout', text: 'one' },
    { at: new Date('2026-01-02T03:04:05.123Z'), stream: 'stderr', text: 'two: with  spaces' },
  ]);
  expect(readLog(dir, first.cursor, 10, false)).toEqual({
    ...{ lines: [], cursor: first.cursor, lostBytes: 0 },
  });
  write('stdout', 'F', '');
  expect(texts(readLog(dir, first.cursor, 10, false))).toEqual(['']);
});

it('gives no more than asked for and goes on from there', () => {
  for (let n = 0; n < 5; n++) write('stdout', 'F', String(n));
  const first = readLog(dir, null, 2, false);
  expect(texts(first)).toEqual(['0', '1']);
  const second = readLog(dir, first.cursor, 2, false);
  expect(texts(second)).toEqual(['2', '3']);
  expect(texts(readLog(dir, second.cursor, 2, false))).toEqual(['4']);
});

it('joins the parts of a line, across reads and between lines of the other stream', () => {
  write('stdout', 'P', 'a');
  write('stderr', 'F', 'whole');
  const first = readLog(dir, null, 10, false);
  expect(texts(first)).toEqual(['whole']);
  write('stderr', 'F', 'second');
  write('stdout', 'P', 'b');
  const second = readLog(dir, first.cursor, 10, false);
  expect(texts(second)).toEqual(['second']);
  write('stdout', 'F', 'c');
  expect(texts(readLog(dir, second.cursor, 10, false))).toEqual(['abc']);
});

it('joins the parts of a line across a rotation, however they are read', () => {
  write('stderr', 'P', 'A');
  write('stdout', 'P', 'a');
  const first = readLog(dir, null, 10, false);
  expect(texts(first)).toEqual([]);
  rotate();
  write('stdout', 'P', 'b');
  const second = readLog(dir, first.cursor, 10, false);
  expect(texts(second)).toEqual([]);
  rotate();
  write('stderr', 'F', 'B');
  write('stderr', 'F', 'whole');
  write('stdout', 'F', 'c');
  for (const { cursor } of [first, second])
    expect(texts(readLog(dir, cursor, 10, false))).toEqual(['AB', 'whole', 'abc']);
  const third = readLog(dir, second.cursor, 1, false);
  expect(texts(third)).toEqual(['AB']);
  expect(texts(readLog(dir, third.cursor, 10, false))).toEqual(['whole', 'abc']);
  expect(texts(readLog(dir, null, 10, false))).toEqual(['AB', 'whole', 'abc']);
});

it('gives an unfinished last line when the container has ended', () => {
  write('stdout', 'P', 'no newline');
  const first = readLog(dir, null, 10, false);
  expect(texts(first)).toEqual([]);
  const second = readLog(dir, first.cursor, 10, true);
  expect(texts(second)).toEqual(['no newline']);
  expect(texts(readLog(dir, second.cursor, 10, true))).toEqual([]);
});

it('leaves alone a line that is still being written', () => {
  appendFileSync(currentLog(dir), `${at} stdout F half`);
  const first = readLog(dir, null, 10, false);
  expect(texts(first)).toEqual([]);
  appendFileSync(currentLog(dir), ' and half\n');
  expect(texts(readLog(dir, first.cursor, 10, false))).toEqual(['half and half']);
});

it('loses nothing to a rotation between two reads, and keeps few files', () => {
  let cursor: string | null = null;
  const all: string[] = [];
  for (let n = 0; n < 8; n++) {
    write('stdout', 'F', `${n} before`);
    const answer = readLog(dir, cursor, 10, false);
    cursor = answer.cursor;
    all.push(...texts(answer));
    write('stdout', 'F', `${n} after`);
    rotate();
  }
  all.push(...texts(readLog(dir, cursor, 10, false)));
  expect(all).toEqual(Array.from({ length: 8 }, (_, n) => [`${n} before`, `${n} after`]).flat());
  expect(readdirSync(dir).length).toBeLessThanOrEqual(4);
});

describe('rotated', () => {
  const MiB = 1024 * 1024;
  let rotations: LogRotations;
  beforeEach(() => {
    rotations = new LogRotations();
    rotations.watch(dir);
    prepareLog(dir, take);
  });
  afterEach(() => rotations.close());
  const take = (of: string): number => rotations.take(of);
  const read = (cursor: string | null) => readLog(dir, cursor, 100, false, take);

  it('while nobody read, but kept: nothing is lost, from the very first file on', () => {
    for (const text of ['one', 'two', 'three']) {
      write('stdout', 'F', text);
      if (text === 'three') break;
      rotate();
      expect(rotations.dirs()).toEqual([dir]);
      keepRotated(dir, take);
      expect(rotations.dirs()).toEqual([]);
    }
    expect(read(null)).toMatchObject({
      lines: [{ text: 'one' }, { text: 'two' }, { text: 'three' }],
      lostBytes: 0,
    });
  });

  it('more often than anybody looked: how much is lost is told once, and what is left is read', () => {
    write('stdout', 'F', 'first');
    rotate();
    write('stdout', 'F', 'seen by nobody');
    rotate();
    write('stdout', 'F', 'nor this');
    rotate();
    write('stdout', 'F', 'last');
    const all = read(null);
    expect(all).toMatchObject({ lines: [{ text: 'first' }, { text: 'last' }], lostBytes: 8 * MiB });
    write('stdout', 'F', 'more');
    expect(read(all.cursor)).toMatchObject({ lines: [{ text: 'more' }], lostBytes: 0 });
  });

  it('with the end of a line among what is lost: it is a line, and so is what follows', () => {
    write('stdout', 'P', 'beginning');
    rotate();
    write('stdout', 'F', ' and end');
    rotate();
    write('stdout', 'F', 'next');
    expect(texts(read(null))).toEqual(['beginning', 'next']);
  });

  it('more than is kept: the rest of what was being read is lost, too', () => {
    write('stdout', 'F', 'read');
    const { cursor } = read(null);
    for (let file = 0; file < 4; file++) {
      write('stdout', 'F', `unread of ${file}`);
      rotate();
      keepRotated(dir, take);
    }
    write('stdout', 'F', 'now');
    const later = read(cursor);
    expect(texts(later)).toEqual(['unread of 2', 'unread of 3', 'now']);
    const readBytes = `${at} stdout F read\n`.length;
    expect(later.lostBytes).toBe(8 * MiB - readBytes);
  });

  it('between a look and the name: the name is that of the file', () => {
    write('stdout', 'F', 'a');
    rotate();
    // conmon is faster than we are, once.
    let looks = 0;
    const hasty = (of: string): number => {
      if (++looks === 2) {
        write('stdout', 'F', 'b');
        rotate();
        write('stdout', 'F', 'c');
      }
      return rotations.take(of);
    };
    const answer = readLog(dir, null, 100, false, hasty);
    expect(answer).toMatchObject({ lines: [{ text: 'a' }, { text: 'c' }], lostBytes: 4 * MiB });
  });

  it('is not what happens to a log that is put aside for a start', () => {
    write('stdout', 'F', 'x'.repeat(3 * MiB));
    const before = read(null);
    prepareLog(dir, take);
    write('stdout', 'F', 'the next run');
    const after = read(before.cursor);
    expect(after).toMatchObject({ lines: [{ text: 'the next run' }], lostBytes: 0 });
    expect(readdirSync(dir)).toHaveLength(3);
  });

  it('in a directory that is gone counts no more', () => {
    rotate();
    const other = mkdtempSync(`${tmpdir()}/bulkhead-logs-`);
    rotations.watch(other);
    renameSync(`${dir}/current`, `${other}/current`);
    rmSync(other, { recursive: true });
    expect(rotations.dirs()).toEqual([dir]);
  });
});

it('refuses a cursor that it did not give', () => {
  expect(() => readLog(dir, 'nonsense', 10, false)).toThrow('not a cursor');
});

it('tells of writes', async () => {
  write('stdout', 'F', 'x');
  let told = 0;
  const end = watchLog(dir, () => told++);
  write('stdout', 'F', 'y');
  await until('it was told', () => told > 0);
  end();
});
