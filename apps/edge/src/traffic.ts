import type { HostTraffic } from '@bulkhead/protocol';

/** A backend's counters as a HAProxy process shows them, which counts from zero. */
export interface BackendReading {
  /** Whose it is now; null: nobody's. */
  readonly host: string | null;
  readonly pid: number;
  readonly backend: string;
  readonly stat: ReadonlyMap<string, string>;
}

/** Of `show stat`. */
export const readColumns = [
  'pxname',
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
export type Totals = Counts & { waitedMs: number };

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
  readonly #seen = new Map<string, Counts>();
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

  /** All backends of all workers that there are: what is not among them is forgotten. */
  add(readings: readonly BackendReading[]): void {
    const live = new Set<string>();
    for (const { host, pid, backend, stat } of readings) {
      const key = `${pid} ${backend}`;
      live.add(key);
      const before = this.#seen.get(key);
      const now = countsOf(stat);
      // Nothing came since: most of ten thousand.
      if (before && names.every((name) => before[name] === now[name])) continue;
      this.#seen.set(key, now);
      if (!this.#began || host === null) continue;
      const news = emptyTotals();
      for (const name of names) news[name] = Math.max(0, now[name] - (before?.[name] ?? 0));
      news.waitedMs = requestsOf(news) * Number(stat.get('rtime') ?? 0);
      addTo(this.#totals, host, news);
      addTo(this.#untold, host, news);
    }
    for (const key of this.#seen.keys()) if (!live.has(key)) this.#seen.delete(key);
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
      (each) => requestsOf(each) > 0 || each.failed > 0 || each.bytesIn > 0 || each.bytesOut > 0,
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
  ...{ bytesIn: 0, bytesOut: 0, waitedMs: 0 },
});

function addTo(map: Map<string, Totals>, host: string, news: Totals): void {
  const sum = map.get(host) ?? emptyTotals();
  for (const name of [...names, 'waitedMs'] as const) sum[name] += news[name];
  map.set(host, sum);
}
