import { extraOf, type ProcessDefinition } from '@bulkhead/protocol';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PlatformTx, TenantTx } from '../db/transactions.ts';
import type { StrategyRequest } from '../deployments/strategy.ts';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeImage,
  makeTenant,
  makeUser,
  placeInstance,
  removeInstance,
  type TestDatabase,
} from '../testing.ts';
import type { QuotaResource } from './resources.ts';

let db: TestDatabase;
let operator: Caller;
beforeAll(async () => {
  db = await createTestDatabase();
  operator = await makeUser(db.tenancy, 'operator', { operator: true });
});
afterAll(() => db.drop());

const act = <T>(caller: Caller, tenant: string, work: (tx: TenantTx) => Promise<T>) =>
  db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, work);

async function used(caller: Caller, tenant: string): Promise<Record<QuotaResource, number>> {
  const usage = await act(caller, tenant, (tx) => tx.quota.usage());
  return Object.fromEntries(usage.map((u) => [u.resource, u.used])) as Record<
    QuotaResource,
    number
  >;
}

const limit = (tenant: string, resource: string, value: number) =>
  db.tenancy.asOperator(operator, { permission: 'quota.set' }, (tx) =>
    tx.quota.setLimit({ tenant, resource, limit: value }),
  );

describe('the ledger', () => {
  test('holds when twenty reserve at once', async () => {
    const owner = await makeTenant(db.tenancy, 'race');
    await limit('race', 'apps', 7);
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        act(owner, 'race', (tx) => tx.apps.create({ name: `a${i}` })),
      ),
    );
    const refused = results.filter((r) => r.status === 'rejected');
    expect(results.length - refused.length).toBe(7);
    for (const { reason } of refused) {
      expect(reason).toMatchObject({
        code: 'QUOTA_EXCEEDED',
        details: { resource: 'apps', used: 7, limit: 7, wanted: 1 },
      });
    }
    expect((await used(owner, 'race')).apps).toBe(7);
    expect((await act(owner, 'race', (tx) => tx.apps.list({}))).totalCount).toBe(7);
  });

  test('holds when many scale different apps at once', async () => {
    const owner = await makeTenant(db.tenancy, 'scales');
    const names = ['a', 'b', 'c', 'd'];
    for (const name of names) {
      await act(owner, 'scales', async (tx) => {
        await tx.apps.create({ name });
        await tx.deployments.deploy({ app: name, image: makeImage() });
      });
    }
    await Promise.allSettled(
      names.flatMap((app) =>
        [4, 9, 6].map((count) =>
          act(owner, 'scales', (tx) =>
            tx.deployments.scale({ app, formation: [{ process: 'web', count }] }),
          ),
        ),
      ),
    );
    const { instances, memoryMiB } = await used(owner, 'scales');
    expect(instances).toBeLessThanOrEqual(20);
    expect(memoryMiB).toBe(instances * 128);
  });

  test('says which resource, what is used, allowed and wanted', async () => {
    const owner = await makeTenant(db.tenancy, 'words');
    const deploying = act(owner, 'words', async (tx) => {
      await tx.apps.create({ name: 'big' });
      await tx.deployments.deploy({
        app: 'big',
        image: makeImage(),
        processes: [{ name: 'web', memoryMiB: 5000 }],
      });
    });
    await expect(deploying).rejects.toMatchObject({
      code: 'QUOTA_EXCEEDED',
      message:
        'quota exceeded for memoryMiB: 0 of 4096 MiB in use, this needs 5000 more; free some, or ask an operator to raise the limit',
      details: { resource: 'memoryMiB', used: 0, limit: 4096, wanted: 5000 },
    });
    // All or nothing.
    expect(await used(owner, 'words')).toMatchObject({ apps: 0, instances: 0 });
  });

  test('above a lowered limit lets go but takes nothing new', async () => {
    const owner = await makeTenant(db.tenancy, 'lowered');
    await act(owner, 'lowered', async (tx) => {
      await tx.apps.create({ name: 'a' });
      await tx.deployments.deploy({
        app: 'a',
        image: makeImage(),
        processes: [{ name: 'web', count: 5 }],
      });
    });
    await limit('lowered', 'instances', 2);
    const scale = (count: number) =>
      act(owner, 'lowered', (tx) =>
        tx.deployments.scale({ app: 'a', formation: [{ process: 'web', count }] }),
      );
    await scale(3);
    await expect(scale(6)).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' });
    const usage = await limit('lowered', 'instances', 100);
    expect(usage.find(({ resource }) => resource === 'instances')?.limit).toBe(100);
    await scale(6);
  });

  test.each([
    ['resource', 'ponies', 1],
    ['limit', 'apps', -1],
    ['limit', 'apps', 1.5],
  ])('a limit with a bad %s is INVALID', async (field, resource, value) => {
    await expect(limit('race', resource, value)).rejects.toMatchObject({
      code: 'INVALID',
      details: { field },
    });
  });
});

describe('settle', () => {
  /** An app with `count` ready instances of 128 MiB. */
  async function running(slug: string, count: number) {
    const owner = await makeTenant(db.tenancy, slug);
    const [appId, deployment] = await act(owner, slug, async (tx) => {
      const { id } = await tx.apps.create({ name: 'a' });
      const processes = [{ name: 'web', count }];
      const made = await tx.deployments.deploy({ app: 'a', image: makeImage(), processes });
      return [id, made.id];
    });
    const instances = await db.tenancy.platform(async (tx) => {
      await tx.deployments.succeed(deployment);
      return Promise.all(Array.from({ length: count }, () => placeInstance(tx, { appId })));
    });
    return { owner, appId, instances };
  }
  const settle = (appId: string) => db.tenancy.platform((tx) => tx.quota.settle(appId));
  const remove = (id: string | undefined) =>
    db.tenancy.platform((tx) => removeInstance(tx, id ?? ''));

  test('gives back instance by instance what was scaled away', async () => {
    const { owner, appId, instances } = await running('settles', 3);
    await act(owner, 'settles', (tx) =>
      tx.deployments.scale({ app: 'a', formation: [{ process: 'web', count: 1 }] }),
    );
    expect(await used(owner, 'settles')).toMatchObject({ instances: 3, memoryMiB: 384 });
    await settle(appId);
    expect(await used(owner, 'settles')).toMatchObject({ instances: 3 });
    await remove(instances[0]);
    await settle(appId);
    expect(await used(owner, 'settles')).toMatchObject({ instances: 2, memoryMiB: 256 });
    await remove(instances[1]);
    await remove(instances[2]);
    await settle(appId);
    // One is still wanted, though it is gone now.
    expect(await used(owner, 'settles')).toMatchObject({ instances: 1, memoryMiB: 128 });
  });

  test('gives everything back of a stopped app whose instances are gone', async () => {
    const { owner, appId, instances } = await running('stopper', 1);
    await act(owner, 'stopper', (tx) => tx.deployments.stop('a'));
    await settle(appId);
    expect(await used(owner, 'stopper')).toMatchObject({ instances: 1 });
    await remove(instances[0]);
    await settle(appId);
    expect(await used(owner, 'stopper')).toMatchObject({ instances: 0, memoryMiB: 0, apps: 1 });
  });

  test('keeps enough to go back while a deployment with smaller processes runs', async () => {
    const { owner, appId, instances } = await running('smaller', 2);
    const deployment = await act(owner, 'smaller', (tx) =>
      tx.deployments.deploy({
        app: 'a',
        image: makeImage(),
        processes: [{ name: 'web', memoryMiB: 16 }],
      }),
    );
    for (const id of instances) await remove(id);
    await settle(appId);
    expect(await used(owner, 'smaller')).toMatchObject({ memoryMiB: 256 });
    await db.tenancy.platform(async (tx) => {
      await tx.deployments.succeed(deployment.id);
      await tx.quota.settle(appId);
    });
    expect(await used(owner, 'smaller')).toMatchObject({ memoryMiB: 32 });
  });

  test('of an app that is no more does nothing', async () => {
    await settle('00000000-0000-7000-8000-000000000000');
  });

  test('whatever happens, the ledger covers what is wanted and what exists, and nothing else', async () => {
    let run = 0;
    const step = fc.oneof(
      fc.record({ act: fc.constant('scale' as const), count: fc.integer({ min: 0, max: 6 }) }),
      fc.record({ act: fc.constantFrom('stop', 'start', 'place', 'remove', 'finish', 'fail') }),
      fc.record({
        act: fc.constant('deploy' as const),
        memoryMiB: fc.constantFrom(16, 64, 256),
        count: fc.integer({ min: 0, max: 4 }),
        strategy: fc.constantFrom<StrategyRequest>(
          { kind: 'rolling', maxSurge: '25%' },
          { kind: 'rolling', maxSurge: '100%' },
          { kind: 'canary' },
          { kind: 'blue-green', manual: true },
        ),
      }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const slug = `prop-${run++}`;
        const { owner, appId } = await running(slug, 1);
        const live = () =>
          db.tenancy.platform((tx) =>
            tx.prisma.instance.findMany({ where: { appId, goneAt: null } }),
          );
        const sum = async (tx: PlatformTx, resource: QuotaResource) => {
          const { _sum } = await tx.prisma.quotaEntry.aggregate({
            where: { subject: `process:${appId}/web`, resource },
            _sum: { amount: true },
          });
          return Number(_sum.amount ?? 0);
        };
        /** Whether one more instance of the current release is covered by the ledger. */
        const fits = async (tx: PlatformTx) => {
          const app = await tx.prisma.app.findUniqueOrThrow({ where: { id: appId } });
          const release = await tx.prisma.release.findUniqueOrThrow({
            where: { id: app.currentReleaseId ?? '' },
          });
          const [web] = release.processes as unknown as ProcessDefinition[];
          const existing = await tx.prisma.instance.findMany({ where: { appId, goneAt: null } });
          const memory = existing.reduce((total, i) => total + i.memoryMiB, 0);
          return (
            existing.length < (await sum(tx, 'instances')) &&
            memory + (web?.resources.memoryMiB ?? 0) <= (await sum(tx, 'memoryMiB'))
          );
        };
        for (const one of steps) {
          if (
            one.act === 'scale' ||
            one.act === 'deploy' ||
            one.act === 'stop' ||
            one.act === 'start'
          ) {
            await act(owner, slug, (tx): Promise<unknown> => {
              if (one.act === 'scale') {
                return tx.deployments.scale({
                  app: 'a',
                  formation: [{ process: 'web', count: one.count }],
                });
              }
              if (one.act === 'deploy') {
                const { count, memoryMiB, strategy } = one;
                return tx.deployments.deploy({
                  app: 'a',
                  ...{ image: makeImage(), strategy },
                  processes: [{ name: 'web', count, memoryMiB }],
                });
              }
              return one.act === 'stop' ? tx.deployments.stop('a') : tx.deployments.start('a');
            });
          } else {
            const [oldest] = await live();
            await db.tenancy.platform(async (tx) => {
              const app = await tx.prisma.app.findUniqueOrThrow({
                where: { id: appId },
                include: { formations: true },
              });
              const wanted = app.state === 'active' ? (app.formations[0]?.count ?? 0) : 0;
              const running = await tx.prisma.deployment.findFirst({
                where: { appId, status: 'running' },
              });
              // Without the surge of a rollout, which is not on the tenant's account.
              if (one.act === 'place' && wanted > 0 && (await fits(tx))) {
                await placeInstance(tx, { appId });
              }
              if (one.act === 'remove' && oldest) await removeInstance(tx, oldest.id);
              if (one.act === 'finish' && running) await tx.deployments.succeed(running.id);
              if (one.act === 'fail' && running) {
                await tx.deployments.fail(running.id, {
                  code: 'CRASHED',
                  message: 'x',
                  process: null,
                  instance: null,
                  exitCode: 1,
                  lastLines: [],
                });
              }
              await tx.quota.settle(appId);
            });
          }
          const { id } = await act(owner, slug, (tx) => tx.apps.get('a'));
          const status = (await act(owner, slug, (tx) => tx.apps.statuses([id]))).get(id);
          const web = status?.processes[0];
          const count = status?.health === 'stopped' ? 0 : (web?.count ?? 0);
          const last = (await act(owner, slug, (tx) => tx.deployments.latest([id]))).get(id);
          // What may stand beside what is wanted while it runs is held from its first moment.
          const beside = last?.status === 'running' ? extraOf(last.strategy, count) : 0;
          const existing = await live();
          const memory = existing.reduce((sum, i) => sum + i.memoryMiB, 0);
          const ledger = await used(owner, slug);
          expect(ledger.instances).toBeGreaterThanOrEqual(
            Math.max(count + beside, existing.length),
          );
          expect(ledger.memoryMiB).toBeGreaterThanOrEqual(
            Math.max((count + beside) * (web?.memoryMiB ?? 0), memory),
          );
        }
        // Stopped, all gone, the last deployment ended: nothing is left.
        await act(owner, slug, (tx) => tx.deployments.stop('a'));
        await db.tenancy.platform(async (tx) => {
          for (const { id } of await tx.prisma.instance.findMany({
            where: { appId, goneAt: null },
          })) {
            await removeInstance(tx, id);
          }
          await tx.quota.settle(appId);
        });
        expect(await used(owner, slug)).toMatchObject({
          instances: 0,
          cpuMillis: 0,
          memoryMiB: 0,
          diskMiB: 0,
        });
      }),
      { numRuns: 15 },
    );
  }, 60_000);
});
