/**
 * Adds what the edges carried to the minutes of the apps it was for. Plain NATS with a queue group,
 * so that one replica takes each message: what is lost on the way is missing from a chart, and
 * nobody waits for it.
 */
import { edgeTraffic, subjects, type HostTraffic } from '@bulkhead/protocol';
import type { Tenancy } from '@bulkhead/tenancy';
import type { NatsConnection, Subscription } from 'nats';

export interface EdgeTrafficOptions {
  readonly tenancy: Tenancy;
  readonly onError: (error: unknown) => void;
}

export class EdgeTrafficWriter {
  readonly #options: EdgeTrafficOptions;
  #subscription: Subscription | null = null;
  /** One message after the other, so that a fleet of edges does not take all connections. */
  #writing: Promise<void> = Promise.resolve();

  constructor(options: EdgeTrafficOptions) {
    this.#options = options;
  }

  listen(nc: NatsConnection): void {
    this.#subscription = nc.subscribe(subjects.allEdgeTraffic, {
      queue: 'traffic',
      callback: (_error, message) => {
        let text: unknown;
        try {
          text = message.json();
        } catch {
          return;
        }
        const parsed = edgeTraffic.safeParse(text);
        if (!parsed.success) return;
        this.#writing = this.#writing
          .then(() => addTraffic(this.#options.tenancy, parsed.data.hosts))
          .catch((error: unknown) => this.#options.onError(error));
      },
    });
  }

  async stop(): Promise<void> {
    this.#subscription?.unsubscribe();
    await this.#writing;
  }
}

/** To the present minute. Hosts that nobody has (any more) are left out. */
export async function addTraffic(tenancy: Tenancy, hosts: readonly HostTraffic[]): Promise<void> {
  await tenancy.platform(
    (tx) => tx.prisma.$executeRaw`
      INSERT INTO "Traffic" AS t ("appId", "tenantId", "minute", "status2xx", "status3xx",
        "status4xx", "status5xx", "failed", "bytesIn", "bytesOut", "waitedMs",
        "answerTimes")
      SELECT r."appId", r."tenantId", date_trunc('minute', clock_timestamp()),
        sum(h."status2xx"), sum(h."status3xx"), sum(h."status4xx"), sum(h."status5xx"),
        sum(h."failed"), sum(h."bytesIn"), sum(h."bytesOut"), sum(h."waitedMs"),
        sum_counts(h."answerTimes")
      FROM jsonb_to_recordset(${JSON.stringify(hosts)}::jsonb) AS h(
        "host" text, "status2xx" int, "status3xx" int, "status4xx" int, "status5xx" int,
        "failed" int, "bytesIn" bigint, "bytesOut" bigint, "waitedMs" bigint, "answerTimes" int[])
      JOIN "Route" r ON r."host" = h."host" AND NOT r."deleted"
      GROUP BY r."appId", r."tenantId"
      ORDER BY r."appId"
      ON CONFLICT ("appId", "minute") DO UPDATE SET
        "status2xx" = t."status2xx" + EXCLUDED."status2xx",
        "status3xx" = t."status3xx" + EXCLUDED."status3xx",
        "status4xx" = t."status4xx" + EXCLUDED."status4xx",
        "status5xx" = t."status5xx" + EXCLUDED."status5xx",
        "failed" = t."failed" + EXCLUDED."failed",
        "bytesIn" = t."bytesIn" + EXCLUDED."bytesIn",
        "bytesOut" = t."bytesOut" + EXCLUDED."bytesOut",
        "waitedMs" = t."waitedMs" + EXCLUDED."waitedMs",
        "answerTimes" = add_counts(t."answerTimes", EXCLUDED."answerTimes")`,
  );
}
