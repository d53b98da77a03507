import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  addAnswers,
  answerBucket,
  answerBuckets,
  answerPercentile,
  answerUnitMicros,
} from './answer-times.ts';

const millis = (units: number) => (units * answerUnitMicros) / 1000;

it('has buckets without gaps, from nothing to longer than an edge waits', () => {
  let end = 0;
  for (let index = 0; index < answerBuckets; index += 1) {
    const { start, width } = answerBucket(index);
    expect(start).toBe(end);
    expect(index < 4 || width <= start / 4).toBe(true);
    // What a network of addresses needs.
    expect(start % width).toBe(0);
    end = start + width;
  }
  expect(millis(end)).toBeGreaterThan(120_000);
});

const counted = (times: readonly number[]) => {
  const counts = Array.from({ length: answerBuckets }, () => 0);
  for (const time of times) {
    const index = counts.findIndex((_, each) => {
      const { start, width } = answerBucket(each);
      return time < millis(start + width);
    });
    counts[index] = (counts[index] ?? 0) + 1;
  }
  return counts;
};

it('gives percentiles that are off by less than a quarter, put together or not', () => {
  const some = fc.array(fc.double({ min: 1.1, max: 120_000, noNaN: true }), { minLength: 1 });
  fc.assert(
    fc.property(some, some, fc.constantFrom(0.5, 0.95, 0.99), (a, b, part) => {
      const sorted = [...a, ...b].sort((x, y) => x - y);
      const exact = sorted[Math.ceil(part * sorted.length) - 1] ?? NaN;
      const read = answerPercentile(addAnswers(counted(a), counted(b)), part) ?? NaN;
      expect(Math.abs(read - exact)).toBeLessThanOrEqual(exact / 4);
    }),
  );
  expect(answerPercentile([], 0.5)).toBe(null);
  expect(answerPercentile([0, 0], 0.99)).toBe(null);
});
