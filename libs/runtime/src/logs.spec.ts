import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { currentLog, readLog, watchLog } from './logs.ts';
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
  expect(readLog(dir, first.cursor, 10, false)).toEqual({ lines: [], cursor: first.cursor });
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
