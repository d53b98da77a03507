import type { Tenancy } from '@bulkhead/tenancy';

/**
 * Apps in the middle of something: the safety net under every nudge that was lost, with the replica
 * that held it or on its way. In the order of their ids.
 */
export async function appsInMotion(tenancy: Tenancy): Promise<string[]> {
  return tenancy.platform(async (tx) => {
    const rows = await tx.prisma.$queryRaw<{ id: string }[]>`
      SELECT "appId"::text AS "id" FROM "Deployment" WHERE "status" = 'running'
      UNION SELECT "id"::text FROM "App" WHERE "state" = 'deleting'
      UNION SELECT "appId"::text FROM "Instance" WHERE "goneAt" IS NULL AND "nodeId" IS NULL
      UNION SELECT "appId"::text FROM "Instance"
        WHERE "goneAt" IS NULL AND ("desired" = 'draining' OR "paused" <> "frozen" OR "oneOff")
          AND ("desired" = 'draining' OR ("desired" = 'running' AND ("paused" <> "frozen"
            OR ("oneOff" AND ("state" = 'ended' OR "deadlineAt" < now())))))
      UNION SELECT i."appId"::text FROM "Instance" i JOIN "Node" n ON n."id" = i."nodeId"
        WHERE (n."state" = 'lost' OR n."draining") AND i."goneAt" IS NULL AND i."desired" = 'running'`;
    return rows.map(({ id }) => id).sort();
  });
}

/**
 * The next of `apps`, which are in order, after the one at which the last turn ended: a net under
 * thousands of apps at once must not take the time of what it is a net for.
 */
export function takeTurn(apps: readonly string[], after: string, most: number): string[] {
  const from = apps.findIndex((id) => id > after);
  const ahead = from < 0 ? [] : apps.slice(from, from + most);
  return [...ahead, ...apps.slice(0, Math.min(most, apps.length) - ahead.length)];
}

/**
 * Apps with an instance whose state changed within the last `seconds`: their nudge is lost when the
 * replica that wrote a report died before it looked at the app.
 */
export async function appsJustChanged(tenancy: Tenancy, seconds: number): Promise<string[]> {
  return tenancy.platform(async (tx) => {
    const rows = await tx.prisma.$queryRaw<{ id: string }[]>`
      SELECT DISTINCT "appId"::text AS "id" FROM "Instance"
      WHERE "stateAt" > now() - make_interval(secs => ${seconds}::int)`;
    return rows.map(({ id }) => id);
  });
}

/** Every app, for the rare full round. */
export async function allApps(tenancy: Tenancy): Promise<string[]> {
  return tenancy.platform(async (tx) => {
    const rows = await tx.prisma.app.findMany({ select: { id: true }, orderBy: { id: 'asc' } });
    return rows.map(({ id }) => id);
  });
}
