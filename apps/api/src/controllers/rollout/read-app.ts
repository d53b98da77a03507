import type { PlatformTx } from '@bulkhead/tenancy';
import { moves } from '../placement/rebalance.ts';
import { storedApp } from './app-snapshot.ts';
import type { StoredApp } from './app-snapshot.ts';

/**
 * Locks an app against every other writer, in the order that all writers keep: the app's row, then
 * its instances by id. False when there is no such app any more.
 */
export async function lockApp(tx: PlatformTx, appId: string): Promise<boolean> {
  const found = await tx.prisma.$queryRaw<unknown[]>`
    SELECT 1 FROM "App" WHERE "id" = ${appId}::uuid FOR NO KEY UPDATE`;
  if (found.length === 0) return false;
  await tx.prisma.$queryRaw`
    SELECT 1 FROM "Instance" WHERE "appId" = ${appId}::uuid AND "goneAt" IS NULL
    ORDER BY "id" FOR NO KEY UPDATE`;
  return true;
}

/** One app as PostgreSQL knows it, in one round trip; null when it is gone. */
export async function readApp(tx: PlatformTx, appId: string): Promise<StoredApp | null> {
  const rows = await tx.prisma.$queryRaw<{ app: unknown }[]>`
    SELECT json_build_object(
      'now', floor(extract(epoch FROM clock_timestamp()) * 1000),
      'id', a."id", 'tenantId', a."tenantId", 'state', a."state", 'epoch', a."epoch",
      'name', a."name", 'tenantSlug', t."slug",
      'release', (
        SELECT json_build_object('id', r."id", 'family', coalesce(r."familyId", r."id"),
          'version', r."version", 'imageReference', r."imageReference", 'processes', r."processes")
        FROM "Release" r WHERE r."id" = a."currentReleaseId"),
      'from', (
        SELECT json_build_object('id', r."id", 'family', coalesce(r."familyId", r."id"),
          'version', r."version", 'imageReference', r."imageReference", 'processes', r."processes")
        FROM "Release" r WHERE r."id" = (
          SELECT d."fromReleaseId" FROM "Deployment" d WHERE d."appId" = a."id"
          ORDER BY d."createdAt" DESC, d."id" DESC LIMIT 1)),
      'formation', (
        SELECT coalesce(json_object_agg(f."process", f."count"), '{}')
        FROM "Formation" f WHERE f."appId" = a."id"),
      'instances', (
        SELECT coalesce(json_agg(json_build_object(
          'id', i."id", 'process', i."process", 'releaseId', i."releaseId", 'version', r."version",
          'family', coalesce(r."familyId", r."id"), 'outgrown', i."outgrown",
          'settled', i."seenGeneration" >= i."generation", 'resized', i."madeVersion" IS NOT NULL,
          'deploymentId', i."deploymentId", 'epoch', i."epoch",
          'nodeId', i."nodeId", 'nodeLost', n."state" IS NOT DISTINCT FROM 'lost',
          'leavesNode', coalesce(n."draining", false) OR ${moves},
          'moveTo', CASE WHEN ${moves} THEN i."moveTo" END,
          'desired', i."desired", 'paused', i."paused", 'frozen', i."frozen",
          'state', i."state", 'host', i."host", 'port', i."port",
          'http2', EXISTS (SELECT FROM jsonb_array_elements(r."processes") p
            WHERE p->>'name' = i."process" AND p->>'protocol' = 'http2'),
          'restarts', i."restarts", 'message', i."message", 'lastExit', i."lastExit",
          'drainRevision', i."drainRevision",
          'drainStartedAt', floor(extract(epoch FROM i."drainStartedAt") * 1000),
          'createdAt', floor(extract(epoch FROM i."createdAt") * 1000),
          'stateAt', floor(extract(epoch FROM i."stateAt") * 1000),
          'readyAt', floor(extract(epoch FROM i."readyAt") * 1000)
        ) ORDER BY i."createdAt", i."id"), '[]')
        FROM "Instance" i
        JOIN "Release" r ON r."id" = i."releaseId"
        LEFT JOIN "Node" n ON n."id" = i."nodeId"
        WHERE i."appId" = a."id" AND i."goneAt" IS NULL AND NOT i."oneOff"),
      'tasks', (
        SELECT coalesce(json_agg(json_build_object('id', i."id", 'nodeId', i."nodeId",
          'desired', i."desired", 'state', i."state",
          'stateAt', floor(extract(epoch FROM i."stateAt") * 1000),
          'deadlineAt', floor(extract(epoch FROM i."deadlineAt") * 1000)
        ) ORDER BY i."createdAt", i."id"), '[]')
        FROM "Instance" i WHERE i."appId" = a."id" AND i."goneAt" IS NULL AND i."oneOff"),
      'deployment', (
        SELECT json_build_object('id', d."id", 'kind', d."kind", 'status', d."status",
          'fromReleaseId', d."fromReleaseId", 'toReleaseId', d."toReleaseId",
          'createdAt', floor(extract(epoch FROM d."createdAt") * 1000),
          'strategy', d."strategy", 'step', d."step", 'progress', d."progress",
          'reachedAt', floor(extract(epoch FROM d."reachedAt") * 1000),
          'progressAt', floor(extract(epoch FROM d."progressAt") * 1000),
          'deadlineAt', floor(extract(epoch FROM d."deadlineAt") * 1000),
          'said', CASE WHEN d."status" = 'running' THEN (
            SELECT coalesce(json_agg(e."message" ORDER BY e."id"), '[]')
            FROM "DeploymentEvent" e WHERE e."deploymentId" = d."id") ELSE '[]' END)
        FROM "Deployment" d WHERE d."appId" = a."id"
        ORDER BY d."createdAt" DESC, d."id" DESC LIMIT 1),
      'routes', (
        SELECT coalesce(json_agg(json_build_object('host', o."host", 'state', o."state",
          'revision', o."revision", 'backends', o."backends", 'deleted', o."deleted")), '[]')
        FROM "Route" o WHERE o."appId" = a."id"),
      'vanished', (
        SELECT coalesce(json_object_agg(v."process", v."count"), '{}')
        FROM (
          SELECT i."process", count(*) AS "count" FROM "Instance" i
          WHERE i."appId" = a."id" AND i."goneAt" > now() - interval '1 minute'
            AND i."desired" = 'running' AND i."readyAt" IS NULL AND NOT i."oneOff"
          GROUP BY i."process") v)
    ) AS "app"
    FROM "App" a JOIN "Tenant" t ON t."id" = a."tenantId"
    WHERE a."id" = ${appId}::uuid`;
  return rows[0] ? storedApp.parse(rows[0].app) : null;
}
