import { afterAll, beforeAll, expect, test } from 'vitest';
import { newInstanceId } from '../rollout/apply-rollout.ts';
import { Platform } from '../testing/platform.ts';
import { pruneHistory } from './prune.ts';

let platform: Platform;

beforeAll(async () => {
  platform = await Platform.start({ replicas: 0, nodes: 0, edges: 0 });
});
afterAll(async () => {
  await platform.stop();
});

const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000);

test('instances gone for a week, or behind a thousand later ones, are forgotten; those that are not gone never', async () => {
  const { appId, toReleaseId } = await platform.deploy('old');
  const row = (goneAt: Date | null) => ({
    id: newInstanceId(),
    tenantId: tenantId,
    appId,
    releaseId: toReleaseId ?? '',
    process: 'web',
    epoch: 0,
    state: goneAt ? ('gone' as const) : ('ready' as const),
    cpuMillis: 10,
    memoryMiB: 10,
    diskMiB: 10,
    createdAt: daysAgo(30),
    goneAt,
  });
  const { tenantId } = await platform.sql((prisma) =>
    prisma.app.findUniqueOrThrow({ where: { id: appId } }),
  );
  const recent = Array.from({ length: 1010 }, (_, index) => row(daysAgo(1 + index / 1000)));
  const data = [row(null), row(daysAgo(8)), ...recent];
  await platform.sql((prisma) => prisma.instance.createMany({ data }));
  expect(await pruneHistory(platform.db.tenancy)).toEqual({
    ...{ instances: 11, events: 0, minutes: 0 },
  });
  const left = await platform.sql((prisma) => prisma.instance.findMany());
  expect(left.filter(({ goneAt }) => goneAt === null)).toHaveLength(1);
  expect(left.filter(({ goneAt }) => goneAt !== null)).toHaveLength(1000);
  expect(left.some(({ goneAt }) => goneAt !== null && goneAt < daysAgo(7))).toBe(false);
});

test('the story of a deployment that ended long ago is forgotten, the deployment is not', async () => {
  const { id } = await platform.deploy('stories');
  await platform.db.tenancy.platform(async (tx) => {
    await tx.deployments.addEvent(id, 'something happened');
    await tx.deployments.succeed(id);
  });
  expect((await pruneHistory(platform.db.tenancy)).events).toBe(0);
  await platform.sql((prisma) =>
    prisma.deployment.update({ where: { id }, data: { finishedAt: daysAgo(31) } }),
  );
  expect((await pruneHistory(platform.db.tenancy)).events).toBeGreaterThan(0);
  expect(await platform.sql((prisma) => prisma.deployment.count({ where: { id } }))).toBe(1);
});
