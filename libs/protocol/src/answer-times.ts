/**
 * How long answers took to begin, as a histogram: counts of buckets, which can be added up over
 * edges, hosts and minutes as percentiles cannot. It is log-linear, as HdrHistogram and Circonus'
 * are: four buckets to each doubling, from a quarter of a millisecond to two minutes. Bounds are
 * powers of two times a unit, so that HAProxy, which has no logarithm, finds a time's bucket as it
 * finds a network of addresses.
 */
export const answerBuckets = 72;
export const answerUnitMicros = 256;

/** Where a bucket begins and how wide it is, in units. */
export function answerBucket(index: number): { start: number; width: number } {
  const doublings = Math.max(0, Math.floor(index / 4) - 1);
  const steps = index < 4 ? index : 4 + (index % 4);
  return { start: steps * 2 ** doublings, width: 2 ** doublings };
}

/** Counts of two histograms together; missing ones at the end are zero. */
export const addAnswers = (a: readonly number[], b: readonly number[]): number[] =>
  Array.from({ length: Math.max(a.length, b.length) }, (_, i) => (a[i] ?? 0) + (b[i] ?? 0));

/**
 * The time in milliseconds within which this part of the answers began, as if those of a bucket were
 * spread evenly over it: off by less than a quarter, mostly by some percent. Null without answers.
 */
export function answerPercentile(counts: readonly number[], part: number): number | null {
  const rank = part * counts.reduce((sum, count) => sum + count, 0);
  if (rank <= 0) return null;
  let before = 0;
  for (const [index, count] of counts.entries()) {
    if (count > 0 && before + count >= rank) {
      const { start, width } = answerBucket(index);
      return ((start + (width * (rank - before)) / count) * answerUnitMicros) / 1000;
    }
    before += count;
  }
  return null;
}
