import { addAnswers, answerPercentile, invalid } from '@bulkhead/protocol';
import type { TenantContext } from '../db/context.ts';
import type { Traffic } from '../generated/client.ts';

/** How long the minutes of traffic are kept. */
export const trafficHours = 48;

export interface TrafficMinute {
  readonly minute: Date;
  readonly status2xx: number;
  readonly status3xx: number;
  readonly status4xx: number;
  readonly status5xx: number;
  readonly failed: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Mean time until the app's answer began, milliseconds; null without requests. */
  readonly meanMs: number | null;
  /** Within which half, 95 and 99 of a hundred of the app's answers began; null without any. */
  readonly p50Ms: number | null;
  readonly p95Ms: number | null;
  readonly p99Ms: number | null;
}

/** What the edges carried for an app, minute by minute. */
export class TrafficMinutes {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /**
   * Oldest first, the present minute last; minutes without any are left out. `step` minutes are put
   * together, from multiples of it since 1970. INVALID for too many.
   */
  async list(appId: string, minutes: number, step: number): Promise<TrafficMinute[]> {
    const most = trafficHours * 60;
    for (const [field, value] of Object.entries({ minutes, step })) {
      if (!Number.isInteger(value) || value < 1 || value > most)
        throw invalid(`${field} must be from 1 to ${most}`, { field });
    }
    const { db, tenant, now } = this.#context;
    const from = new Date(now.getTime() - minutes * 60_000);
    const rows = await db.traffic.findMany({
      where: { appId, tenantId: tenant.id, minute: { gt: from } },
      orderBy: { minute: 'asc' },
    });
    const spans = new Map<number, Traffic[]>();
    for (const row of rows) {
      const began = Math.floor(row.minute.getTime() / (step * 60_000)) * step * 60_000;
      const span = spans.get(began);
      if (span) span.push(row);
      else spans.set(began, [row]);
    }
    return [...spans].map(([began, span]) => summary(new Date(began), span));
  }
}

function summary(minute: Date, rows: readonly Traffic[]): TrafficMinute {
  const sum = (of: (row: Traffic) => number | bigint) =>
    rows.reduce((all, row) => all + Number(of(row)), 0);
  const status = {
    status2xx: sum((row) => row.status2xx),
    status3xx: sum((row) => row.status3xx),
    status4xx: sum((row) => row.status4xx),
    status5xx: sum((row) => row.status5xx),
  };
  const requests = Object.values(status).reduce((all, count) => all + count);
  const answers = rows.reduce<number[]>((all, row) => addAnswers(all, row.answerTimes), []);
  return {
    minute,
    ...status,
    failed: sum((row) => row.failed),
    bytesIn: sum((row) => row.bytesIn),
    bytesOut: sum((row) => row.bytesOut),
    meanMs: requests === 0 ? null : sum((row) => row.waitedMs) / requests,
    p50Ms: answerPercentile(answers, 0.5),
    p95Ms: answerPercentile(answers, 0.95),
    p99Ms: answerPercentile(answers, 0.99),
  };
}
