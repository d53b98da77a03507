import { invalid } from '@bulkhead/protocol';
import type { TenantContext } from '../db/context.ts';

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
}

/** What the edges carried for an app, minute by minute. */
export class TrafficMinutes {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /** Oldest first, the present minute last; minutes without any are left out. INVALID for too many. */
  async list(appId: string, minutes: number): Promise<TrafficMinute[]> {
    if (!Number.isInteger(minutes) || minutes < 1 || minutes > trafficHours * 60)
      throw invalid(`minutes must be from 1 to ${trafficHours * 60}`, { field: 'minutes' });
    const { db, tenant, now } = this.#context;
    const from = new Date(now.getTime() - minutes * 60_000);
    const rows = await db.traffic.findMany({
      where: { appId, tenantId: tenant.id, minute: { gt: from } },
      orderBy: { minute: 'asc' },
    });
    return rows.map((row) => {
      const requests = row.status2xx + row.status3xx + row.status4xx + row.status5xx;
      return {
        minute: row.minute,
        ...{ status2xx: row.status2xx, status3xx: row.status3xx },
        ...{ status4xx: row.status4xx, status5xx: row.status5xx, failed: row.failed },
        ...{ bytesIn: Number(row.bytesIn), bytesOut: Number(row.bytesOut) },
        meanMs: requests === 0 ? null : Number(row.waitedMs) / requests,
      };
    });
  }
}
