import { addAnswers, answerBuckets, type HostTraffic } from '@bulkhead/protocol';
import { answerKeys } from './haproxy/config.ts';

/** A backend's counters as a HAProxy process shows them, which counts from zero. */
export interface BackendReading {
  /** Whose it is now; null: nobody's. */
  readonly host: string | null;
  readonly pid: number;
  readonly backend: string;
  readonly stat: ReadonlyMap<string, string>;
  /** Answers by the time until they began, or a sample of them (`answerKeys`); those without news may be missing. */
  readonly buckets: readonly (readonly [bucket: number, count: number])[];
}

/** Of `show stat`. */
export const readColumns = [
  'pxname',
  'iid',
  'hrsp_2xx',
  'hrsp_3xx',
  'hrsp_4xx',
  'hrsp_5xx',
  'econ',
  'eresp',
  'bin',
  'bout',
  'rtime',
];
export const statusClasses = ['2xx', '3xx', '4xx', '5xx'] as const;
type Counts = Record<
  `status${(typeof statusClasses)[number]}` | 'failed' | 'bytesIn' | 'bytesOut',
  number
>;
export type Totals = Counts & { waitedMs: number; answerTimes: number[] };

const columns: Readonly<Record<keyof Counts, readonly string[]>> = {
  status2xx: ['hrsp_2xx'],
  status3xx: ['hrsp_3xx'],
  status4xx: ['hrsp_4xx'],
  status5xx: ['hrsp_5xx'],
  // No connection to any instance, or no valid answer on it.
  failed: ['econ', 'eresp'],
  bytesIn: ['bin'],
  bytesOut: ['bout'],
};
const names = Object.keys(columns) as (keyof Counts)[];

/**
 * What was carried for each host, added up over workers and their restarts. HAProxy tells times as
 * the mean of the last 1,024 requests; counted once for each new request they give a sum that can
 * be added to others.
 */
export class TrafficMeter {
  /** By process and backend: a backend goes from host to host, its counters go on. */
  readonly #seen = new Map<string, { counts: Counts; buckets: Map<number, number> }>();
  #processes: ReadonlySet<number> = new Set();
  /** What was counted before this process began was told by another. */
  #began = false;
  readonly #totals = new Map<string, Totals>();
  #untold = new Map<string, Totals>();

  /** Since the start of this process, by host. */
  get totals(): ReadonlyMap<string, Totals> {
    return this.#totals;
  }

  /** What is read from now on came after this process began. */
  begin(): void {
    this.#began = true;
  }

  /** Whether this worker's counters were among those added last. */
  knows(pid: number): boolean {
    return this.#processes.has(pid);
  }

  /** All backends of all workers that there are: what is not among them is forgotten. */
  add(readings: readonly BackendReading[]): void {
    const live = new Set<string>();
    for (const { host, pid, backend, stat, buckets } of readings) {
      const key = `${pid} ${backend}`;
      live.add(key);
      const seen = this.#seen.get(key);
      const before = seen?.counts;
      const now = countsOf(stat);
      const answerTimes = answersSince(seen?.buckets, buckets);
      // Nothing came since: most of ten thousand.
      if (before && names.every((name) => before[name] === now[name]) && !answerTimes.length)
        continue;
      this.#seen.set(key, {
        counts: now,
        buckets: new Map([...(seen?.buckets ?? []), ...buckets]),
      });
      if (!this.#began || host === null) continue;
      const news = { ...emptyTotals(), answerTimes };
      for (const name of names) news[name] = Math.max(0, now[name] - (before?.[name] ?? 0));
      news.waitedMs = requestsOf(news) * Number(stat.get('rtime') ?? 0);
      addTo(this.#totals, host, news);
      addTo(this.#untold, host, news);
    }
    for (const key of this.#seen.keys()) if (!live.has(key)) this.#seen.delete(key);
    this.#processes = new Set(readings.map(({ pid }) => pid));
    this.#began = true;
  }

  /** Forgets the totals of hosts that are no more. */
  keepOnly(isKnown: (host: string) => boolean): void {
    for (const host of this.#totals.keys()) if (!isKnown(host)) this.#totals.delete(host);
  }

  /** What came since the last time. */
  take(): HostTraffic[] {
    const taken = [...this.#untold].map(([host, totals]) => ({ host, ...totals }));
    this.#untold = new Map();
    return taken.filter(
      (each) =>
        requestsOf(each) > 0 ||
        each.failed > 0 ||
        each.bytesIn > 0 ||
        each.bytesOut > 0 ||
        each.answerTimes.length > 0,
    );
  }
}

export const requestsOf = (totals: Readonly<Totals>): number =>
  statusClasses.reduce((sum, each) => sum + totals[`status${each}`], 0);

function countsOf(stat: ReadonlyMap<string, string>): Counts {
  const counts = emptyTotals();
  for (const name of names) {
    for (const column of columns[name]) counts[name] += Number(stat.get(column) ?? 0);
  }
  return counts;
}

const emptyTotals = (): Totals => ({
  ...{ status2xx: 0, status3xx: 0, status4xx: 0, status5xx: 0, failed: 0 },
  ...{ bytesIn: 0, bytesOut: 0, waitedMs: 0, answerTimes: [] },
});

/** A bucket that HAProxy's table had no room for begins again from zero. */
function answersSince(
  before: ReadonlyMap<number, number> | undefined,
  now: BackendReading['buckets'],
): number[] {
  const news: number[] = [];
  for (const [key, count] of now) {
    const seen = before?.get(key) ?? 0;
    const came = count < seen ? count : count - seen;
    const bucket = key % answerKeys.sampled;
    if (came === 0 || bucket >= answerBuckets) continue;
    while (news.length <= bucket) news.push(0);
    news[bucket]! += key < answerKeys.sampled ? came : came * answerKeys.sampleOf;
  }
  return news;
}

function addTo(map: Map<string, Totals>, host: string, news: Totals): void {
  const sum = map.get(host) ?? emptyTotals();
  for (const name of [...names, 'waitedMs'] as const) sum[name] += news[name];
  sum.answerTimes = addAnswers(sum.answerTimes, news.answerTimes);
  map.set(host, sum);
}
