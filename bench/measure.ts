/** Milliseconds that `work` takes. */
export async function time(work: () => Promise<unknown>): Promise<number> {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** One line of RESULTS.md: ours, the rival's and the ratio ours / rival's, of medians. */
export interface Result {
  bench: string;
  work: string;
  rival: string;
  unit: string;
  ours: readonly number[];
  theirs: readonly number[];
}

export function format(result: Result): string {
  const [ours, theirs] = [median(result.ours), median(result.theirs)];
  const spread = (values: readonly number[]) =>
    `${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)}`;
  return [
    result.bench,
    result.work,
    result.rival,
    `${ours.toFixed(1)} ${result.unit} (${spread(result.ours)}, n=${result.ours.length})`,
    `${theirs.toFixed(1)} ${result.unit} (${spread(result.theirs)}, n=${result.theirs.length})`,
    `**${(ours / theirs).toFixed(3)}**`,
  ].join(' | ');
}
