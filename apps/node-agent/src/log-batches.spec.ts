import type { LogLine } from '@bulkhead/protocol';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cutLine, LogLimiter, limitLines, packLines } from './log-batches.ts';

const line = (text: string, at = 0): LogLine => ({
  at: new Date(at).toISOString(),
  stream: 'stdout',
  text,
});

test('long lines are cut, never inside a character', () => {
  expect(cutLine('short')).toBe('short');
  expect(cutLine('ää', 3)).toBe('ä [cut]');
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), (text) => {
      const cut = cutLine(text, 50);
      if (cut === text) return;
      const kept = cut.slice(0, -' [cut]'.length);
      expect(text.startsWith(kept)).toBe(true);
      expect(Buffer.byteLength(kept)).toBeLessThanOrEqual(50);
    }),
  );
});

test('the limit goes by when lines were written, not by when they are read', () => {
  const limiter = new LogLimiter(250);
  const flood = Array.from({ length: 10 }, () => line('x'.repeat(480), 1000));
  const lost = { dropped: 8, droppedBytes: 8 * 481 };
  expect(limitLines(flood, limiter)).toMatchObject({ passed: { length: 2 }, ...lost });
  limiter.perSecond = 1000;
  const steady = Array.from({ length: 10 }, (_, i) => line('x'.repeat(480), 2000 + i * 500));
  expect(limitLines(steady, limiter)).toMatchObject({ passed: { length: 10 }, dropped: 0 });
});

test('every batch fits a message, nothing is lost or moved', () => {
  const texts = fc.array(fc.string({ maxLength: 16_384, size: 'max' }), { maxLength: 30 });
  fc.assert(
    fc.property(texts, (all) => {
      const batches = packLines(all.map((text) => line(text)));
      expect(batches.flat().map((l) => l.text)).toEqual(all);
      for (const batch of batches) {
        expect(Buffer.byteLength(JSON.stringify(batch))).toBeLessThan(256 * 1024 - 1024);
      }
    }),
    { numRuns: 30 },
  );
  const worst = packLines(Array.from({ length: 20 }, () => line('\u0001'.repeat(16_384))));
  for (const batch of worst) expect(JSON.stringify(batch).length).toBeLessThan(255 * 1024);
});
