import { trafficHours, type Tenancy } from '@bulkhead/tenancy';

/** How long instances that are gone can be looked up: as long as their logs, which are shown only with them. */
const instanceDays = 7;
/** Of one app, however young: one that crashes all day must not fill the table. */
const instancesKept = 1000;
/** How long the story of a finished deployment is kept; the deployment itself stays. */
const eventDays = 30;

/** Forgets old history, so that tables grow with what runs and not with what ran. */
export async function pruneHistory(
  tenancy: Tenancy,
): Promise<{ instances: number; events: number; minutes: number }> {
  return tenancy.platform(async (tx) => {
    // The agent's proof is in by then; the key of a pruned instance was purged when it was gone.
    const instances = await tx.prisma.$executeRaw`
      DELETE FROM "Instance" WHERE "id" IN (
        SELECT "id" FROM (
          SELECT "id", "goneAt", row_number() OVER (
            PARTITION BY "appId" ORDER BY "goneAt" DESC, "id") AS "place"
          FROM "Instance" WHERE "goneAt" IS NOT NULL) AS gone
        WHERE "place" > ${instancesKept}
          OR "goneAt" < now() - make_interval(days => ${instanceDays}::int))`;
    const events = await tx.prisma.$executeRaw`
      DELETE FROM "DeploymentEvent" e USING "Deployment" d
      WHERE d."id" = e."deploymentId"
        AND d."finishedAt" < now() - make_interval(days => ${eventDays}::int)`;
    const minutes = await tx.prisma.$executeRaw`
      DELETE FROM "Traffic" WHERE "minute" < now() - make_interval(hours => ${trafficHours}::int)`;
    return { instances, events, minutes };
  });
}
