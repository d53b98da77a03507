import type { DeploymentFailure } from '@bulkhead/protocol';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { PlatformTx, TenantTx } from '../db/transactions.ts';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeImage,
  makeImageConfig,
  makeMember,
  makeTenant,
  placeInstance,
  type TestDatabase,
} from '../testing.ts';

// That another tenant's apps cannot be touched is proven for every method in foreign.spec.ts.
let db: TestDatabase;
let owner: Caller;
let tenant: string;
let count = 0;
beforeAll(async () => {
  db = await createTestDatabase();
});
beforeEach(async () => {
  tenant = `t${count++}`;
  owner = await makeTenant(db.tenancy, tenant);
  await act((tx) => tx.apps.create({ name: 'shop' }));
});
afterAll(() => db.drop());

const act = <T>(work: (tx: TenantTx) => Promise<T>, caller = owner) =>
  db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, work);
const platform = <T>(work: (tx: PlatformTx) => Promise<T>) => db.tenancy.platform(work);
const deploy = (
  values: Omit<Parameters<TenantTx['deployments']['deploy']>[0], 'app' | 'image'> = {},
) => act((tx) => tx.deployments.deploy({ app: 'shop', image: makeImage(), ...values }));
const succeed = (id: string) => platform((tx) => tx.deployments.succeed(id));
const shop = () => act((tx) => tx.apps.get('shop'));
const releases = async () =>
  (await act(async (tx) => tx.releases.list((await tx.apps.get('shop')).id, {}))).nodes;
const counts = async () => {
  const { id } = await shop();
  const status = (await act((tx) => tx.apps.statuses([id]))).get(id);
  return Object.fromEntries(status?.processes.map((p) => [p.name, p.count]) ?? []);
};
const failure: DeploymentFailure = {
  code: 'CRASHED',
  message: 'web exited with 1',
  process: 'web',
  instance: null,
  exitCode: 1,
  lastLines: ['boom'],
};

describe('deploy', () => {
  test('makes a release, a deployment, counts, a reservation, a nudge and an audit entry', async () => {
    const deployment = await deploy({ processes: [{ name: 'web', count: 2 }, { name: 'worker' }] });
    expect(deployment).toMatchObject({
      kind: 'deploy',
      status: 'running',
      fromReleaseId: null,
      createdBy: owner.email,
      finishedAt: null,
    });
    const [release] = await releases();
    expect(release).toMatchObject({
      id: deployment.toReleaseId,
      version: 1,
      image: 'hello:1',
      description: 'Deploy hello:1',
      createdBy: owner.email,
      configNames: [],
      current: true,
    });
    expect(await counts()).toEqual({ web: 2, worker: 1 });
    const usage = await act((tx) => tx.quota.usage());
    expect(Object.fromEntries(usage.map((u) => [u.resource, u.used]))).toEqual({
      apps: 1,
      instances: 3,
      highPriority: 0,
      cpuMillis: 300,
      memoryMiB: 384,
      diskMiB: 1536,
      tokens: 0,
    });
    const { id } = await shop();
    const outbox = await platform((tx) => tx.prisma.outbox.findMany({ where: { key: id } }));
    expect(outbox).toMatchObject([{ kind: 'app', key: id }]);
    expect(await act((tx) => tx.deployments.events(deployment.id))).toMatchObject([
      { message: 'v1: Deploy hello:1' },
    ]);
    const audit = await act((tx) => tx.audit.list({ first: 1 }));
    expect(audit.nodes).toMatchObject([
      { action: 'app.deploy', target: 'shop', actor: owner.email },
    ]);
  });

  test('at once from many sides makes versions without gaps and one running deployment', async () => {
    await Promise.all(Array.from({ length: 8 }, () => deploy()));
    expect((await releases()).map(({ version }) => version)).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
    const { id } = await shop();
    const { nodes } = await act((tx) => tx.deployments.list(id, {}));
    expect(nodes.map(({ status }) => status).sort()).toEqual([
      'running',
      ...Array(7).fill('superseded'),
    ]);
    const running = nodes.find(({ status }) => status === 'running');
    expect(running?.toReleaseId).toBe((await shop()).currentReleaseId);
    expect(
      nodes.every(({ status, finishedAt }) => (status === 'running') === (finishedAt === null)),
    ).toBe(true);
  });

  test('that waited for the lock is the latest, though it began before the one it waited for', async () => {
    const other = await deploy();
    const createdAt = new Date(Date.now() + 1000);
    await platform((tx) =>
      tx.prisma.deployment.update({ where: { id: other.id }, data: { createdAt } }),
    );
    const late = await deploy();
    const { nodes } = await act(async (tx) => tx.deployments.list((await shop()).id, {}));
    expect(nodes.map(({ id }) => id)).toEqual([late.id, other.id]);
    expect(late.status).toBe('running');
  });

  test('that fails leaves no gap and no trace', async () => {
    await deploy();
    await expect(deploy({ processes: [{ name: 'web', count: 21 }] })).rejects.toMatchObject({
      code: 'QUOTA_EXCEEDED',
      details: { resource: 'instances', used: 1, limit: 20, wanted: 20 },
    });
    await deploy();
    expect((await releases()).map(({ version }) => version)).toEqual([2, 1]);
    expect(await counts()).toEqual({ web: 1 });
  });

  test.each([
    ['digest', makeImage({ digest: 'sha256:short' })],
    ['command', makeImage({ config: makeImageConfig({ cmd: [] }) })],
  ])('of an image with a bad %s is INVALID', async (_, image) => {
    await expect(act((tx) => tx.deployments.deploy({ app: 'shop', image }))).rejects.toMatchObject({
      code: 'INVALID',
    });
  });

  test('is not for viewers', async () => {
    const viewer = await makeMember(db.tenancy, owner, tenant, 'viewer');
    await expect(
      act((tx) => tx.deployments.deploy({ app: 'shop', image: makeImage() }), viewer),
    ).rejects.toMatchObject({ code: 'FORBIDDEN' });
  });

  test('starts a stopped app', async () => {
    await deploy();
    await act((tx) => tx.deployments.stop('shop'));
    expect((await shop()).state).toBe('stopped');
    await deploy();
    expect((await shop()).state).toBe('active');
  });
});

describe('the end of a deployment', () => {
  test('is told once', async () => {
    const { id } = await deploy();
    expect(await succeed(id)).toBe(true);
    expect(await succeed(id)).toBe(false);
    expect(await platform((tx) => tx.deployments.fail(id, failure))).toBe(false);
    expect(await act((tx) => tx.deployments.get(id))).toMatchObject({
      status: 'succeeded',
      failure: null,
    });
  });

  test('in failure goes back to the last release that was not on trial', async () => {
    await succeed((await deploy()).id);
    const trusted = (await shop()).currentReleaseId;
    await deploy();
    // The second is superseded before its verdict: nothing to go back to.
    const third = await deploy();
    expect(third.fromReleaseId).toBe(trusted);
    expect(await platform((tx) => tx.deployments.fail(third.id, failure))).toBe(true);
    expect((await shop()).currentReleaseId).toBe(trusted);
    const { status, failure: why } = await act((tx) => tx.deployments.get(third.id));
    expect({ status, why }).toEqual({ status: 'failed', why: failure });
    const events = await act((tx) => tx.deployments.events(third.id));
    expect(events.map(({ message }) => message)).toEqual([
      'v3: Deploy hello:1',
      'Failed: web exited with 1',
      'Going back to v1',
    ]);
  });

  test('in failure of the first release has nothing to go back to', async () => {
    const { id, toReleaseId } = await deploy();
    await platform((tx) => tx.deployments.fail(id, failure));
    expect((await shop()).currentReleaseId).toBe(toReleaseId);
  });

  test('keeps at most 500 events', async () => {
    const { id } = await deploy();
    await platform(async (tx) => {
      for (let i = 0; i < 502; i++) await tx.deployments.addEvent(id, `event ${i}`);
    });
    const events = await act((tx) => tx.deployments.events(id));
    expect(events).toHaveLength(200);
    expect(events.at(-1)?.message).toBe('event 498');
  });
});

describe('rollback', () => {
  test('makes a new release with image, processes and config of the old one', async () => {
    await act((tx) => tx.config.set({ app: 'shop', vars: [{ name: 'A', value: 'old' }] }));
    await deploy({ processes: [{ name: 'web', memoryMiB: 64, count: 2 }] });
    await act((tx) => tx.config.set({ app: 'shop', vars: [{ name: 'A', value: 'new' }] }));
    const image = makeImage({ reference: 'hello:2', digest: `sha256:${'b'.repeat(64)}` });
    await act((tx) =>
      tx.deployments.deploy({ app: 'shop', image, processes: [{ name: 'web', memoryMiB: 128 }] }),
    );
    const deployment = await act((tx) => tx.deployments.rollback({ app: 'shop', version: 1 }));
    expect(deployment.kind).toBe('rollback');
    const [latest] = await releases();
    expect(latest).toMatchObject({
      version: 4,
      image: 'hello:1',
      description: 'Roll back to v1',
      processes: [{ resources: { memoryMiB: 64 } }],
      current: true,
    });
    expect(await act((tx) => tx.config.list('shop'))).toEqual([{ name: 'A', value: 'old' }]);
    expect(await counts()).toEqual({ web: 2 });
  });

  test('without a version goes to the one before the current', async () => {
    for (let i = 0; i < 3; i++) await deploy();
    await act((tx) => tx.deployments.rollback({ app: 'shop' }));
    expect((await releases())[0]).toMatchObject({ version: 4, description: 'Roll back to v2' });
  });

  test('brings back a process with the count it had', async () => {
    await deploy({ processes: [{ name: 'web' }, { name: 'worker', count: 3 }] });
    await deploy({ processes: [{ name: 'web' }] });
    expect(await counts()).toEqual({ web: 1 });
    await act((tx) => tx.deployments.rollback({ app: 'shop' }));
    expect(await counts()).toEqual({ web: 1, worker: 3 });
  });

  test('is refused to where nothing is', async () => {
    const rollback = (version?: number) =>
      act((tx) => tx.deployments.rollback({ app: 'shop', version: version ?? null }));
    await expect(rollback()).rejects.toMatchObject({ code: 'CONFLICT' });
    await deploy();
    await expect(rollback()).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(rollback(1)).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(rollback(9)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(rollback(9e9)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('scale, restart, stop and start', () => {
  const scale = (process: string, n: number) =>
    act((tx) => tx.deployments.scale({ app: 'shop', formation: [{ process, count: n }] }));

  test('need a release first', async () => {
    for (const attempt of [
      () => scale('web', 1),
      () => act((tx) => tx.deployments.restart('shop')),
      () => act((tx) => tx.deployments.stop('shop')),
      () => act((tx) => tx.deployments.start('shop')),
    ]) {
      await expect(attempt()).rejects.toMatchObject({
        code: 'CONFLICT',
        message: 'app shop has no release yet; deploy an image first',
      });
    }
  });

  test('scale: to zero too; an unknown process is INVALID and the known ones are named', async () => {
    await deploy({ processes: [{ name: 'web' }, { name: 'worker' }] });
    const deployment = await scale('web', 0);
    expect(deployment).toMatchObject({ kind: 'scale', fromReleaseId: null });
    expect(await counts()).toEqual({ web: 0, worker: 1 });
    await expect(scale('wbe', 1)).rejects.toMatchObject({
      code: 'INVALID',
      message: 'app shop has no process wbe; it has web, worker',
    });
    await expect(scale('web', -1)).rejects.toMatchObject({ code: 'INVALID' });
    expect(await releases()).toHaveLength(1);
  });

  test('restart raises the epoch, and is refused when stopped', async () => {
    await deploy();
    await act((tx) => tx.deployments.restart('shop'));
    expect((await shop()).epoch).toBe(1);
    await act((tx) => tx.deployments.stop('shop'));
    await expect(act((tx) => tx.deployments.restart('shop'))).rejects.toMatchObject({
      code: 'CONFLICT',
    });
  });

  test('stop keeps the counts for the next start', async () => {
    await deploy({ processes: [{ name: 'web', count: 3 }] });
    await act((tx) => tx.deployments.stop('shop'));
    await scale('web', 4);
    expect((await shop()).state).toBe('stopped');
    await act((tx) => tx.deployments.start('shop'));
    expect(await shop()).toMatchObject({ state: 'active' });
    expect(await counts()).toEqual({ web: 4 });
  });
});

describe('resize', () => {
  const resize = (sizes: object, process = 'web') =>
    act((tx) => tx.deployments.resize({ app: 'shop', process, ...sizes }));
  const used = async () =>
    (await act((tx) => tx.quota.usage())).find(({ resource }) => resource === 'memoryMiB')?.used;

  test('makes a release of the same family with the config of the current one', async () => {
    await act((tx) => tx.config.set({ app: 'shop', vars: [{ name: 'A', value: '1' }] }));
    const first = await deploy({
      processes: [{ name: 'web', count: 2, memoryMiB: 64 }, { name: 'worker' }],
    });
    await succeed(first.id);
    const before = (await used()) ?? NaN;
    const deployment = await resize({ memoryMiB: 96, cpuMillis: 200, pids: null });
    expect(deployment).toMatchObject({ kind: 'resize', status: 'running' });
    expect(await used()).toBe(before + 2 * 32);
    await resize({ memoryMiB: 100 });
    const [third, second, one] = await platform((tx) =>
      tx.prisma.release.findMany({ where: { appId: first.appId }, orderBy: { version: 'desc' } }),
    );
    expect([third?.familyId, second?.familyId, one?.familyId]).toEqual([one?.id, one?.id, null]);
    expect(second).toMatchObject({ version: 2, imageDigest: one?.imageDigest });
    const sizes = (second?.processes as { name: string; resources: object }[]).map(
      ({ name, resources }) => ({ name, ...resources }),
    );
    expect(sizes).toMatchObject([
      { name: 'web', memoryMiB: 96, cpuMillis: 200 },
      { name: 'worker', memoryMiB: 128 },
    ]);
    expect((await releases())[0]).toMatchObject({ configNames: ['A'] });
    expect(await counts()).toEqual({ web: 2, worker: 1 });
    // A deploy begins a family of its own.
    await deploy();
    const [fourth] = await platform((tx) =>
      tx.prisma.release.findMany({ where: { appId: first.appId, version: 4 } }),
    );
    expect(fourth?.familyId).toBeNull();
  });

  test('needs something to change, a process that is there, and quota', async () => {
    await expect(resize({ memoryMiB: 64 })).rejects.toMatchObject({ code: 'CONFLICT' });
    const { id } = await deploy({ processes: [{ name: 'web', memoryMiB: 64 }] });
    await succeed(id);
    for (const [sizes, process] of [
      [{}, 'web'],
      [{ memoryMiB: 64 }, 'web'],
      [{ memoryMiB: 1 }, 'web'],
      [{ cpuMillis: 500, cpuCapMillis: 100 }, 'web'],
      [{ memoryMiB: 96 }, 'worker'],
    ] as const) {
      await expect(resize(sizes, process)).rejects.toMatchObject({ code: 'INVALID' });
    }
    const before = await used();
    await expect(resize({ memoryMiB: 1_000_000 })).rejects.toMatchObject({
      code: 'QUOTA_EXCEEDED',
    });
    expect(await used()).toBe(before);
    expect(await releases()).toHaveLength(1);
    const viewer = await makeMember(db.tenancy, owner, tenant, 'viewer');
    await expect(
      act((tx) => tx.deployments.resize({ app: 'shop', process: 'web', memoryMiB: 96 }), viewer),
    ).rejects.toMatchObject({ code: 'FORBIDDEN' });
  });
});

describe('destroy', () => {
  test('refuses every change from then on, and ends when all instances are gone', async () => {
    const { id: deployment } = await deploy();
    const { id } = await shop();
    await platform((tx) => placeInstance(tx, { appId: id }));
    expect(await act((tx) => tx.apps.destroy('shop'))).toMatchObject({ state: 'deleting' });
    await act((tx) => tx.apps.destroy('shop'));
    expect(await act((tx) => tx.deployments.get(deployment))).toMatchObject({
      status: 'superseded',
    });
    await expect(deploy()).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(act((tx) => tx.apps.create({ name: 'shop' }))).rejects.toMatchObject({
      code: 'CONFLICT',
    });
    await expect(platform((tx) => tx.apps.finishDestroy(id))).rejects.toMatchObject({
      code: 'CONFLICT',
    });

    await platform(async (tx) => {
      await tx.prisma.instance.updateMany({
        where: { appId: id },
        data: { state: 'gone', goneAt: new Date() },
      });
      await tx.quota.settle(id);
      expect(await tx.apps.finishDestroy(id)).toBe(true);
      expect(await tx.apps.finishDestroy(id)).toBe(false);
    });
    await expect(shop()).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const usage = await act((tx) => tx.quota.usage());
    expect(usage.filter(({ used }) => used > 0)).toEqual([]);
    await act((tx) => tx.apps.create({ name: 'shop' }));
  });

  test('is not for developers, and not finished unless asked for', async () => {
    const developer = await makeMember(db.tenancy, owner, tenant, 'developer');
    await expect(act((tx) => tx.apps.destroy('shop'), developer)).rejects.toMatchObject({
      code: 'FORBIDDEN',
    });
    const { id } = await shop();
    await expect(platform((tx) => tx.apps.finishDestroy(id))).rejects.toMatchObject({
      code: 'CONFLICT',
    });
  });
});
