import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { PlatformTx, TenantTx } from '../db/transactions.ts';
import type { Caller } from '../roles/caller.ts';
import {
  createTestDatabase,
  makeImage,
  makeMember,
  makeTenant,
  type TestDatabase,
} from '../testing.ts';
import type { StrategyRequest } from './strategy.ts';

// That another tenant's deployments are not found is proven in foreign.spec.ts.
let db: TestDatabase;
let owner: Caller;
let tenant: string;
let count = 0;
beforeAll(async () => {
  db = await createTestDatabase();
});
beforeEach(async () => {
  tenant = `g${count++}`;
  owner = await makeTenant(db.tenancy, tenant);
  await act((tx) => tx.apps.create({ name: 'shop' }));
});
afterAll(() => db.drop());

const act = <T>(work: (tx: TenantTx) => Promise<T>, caller = owner) =>
  db.tenancy.run(caller, { tenant, permission: 'tenant.read' }, work);
const platform = <T>(work: (tx: PlatformTx) => Promise<T>) => db.tenancy.platform(work);
const canary: StrategyRequest = { kind: 'canary', steps: [{ share: '10%' }, { share: '50%' }] };
const deploy = (strategy: StrategyRequest | null = null, count?: number, memoryMiB?: number) =>
  act((tx) =>
    tx.deployments.deploy({
      ...{ app: 'shop', image: makeImage(), strategy },
      processes: [
        { name: 'web', ...(count !== undefined && { count }), ...(memoryMiB && { memoryMiB }) },
      ],
    }),
  );
const get = (id: string) => act((tx) => tx.deployments.get(id));
const reach = (id: string) => platform((tx) => tx.deployments.reach(id, new Date()));
const promote = (more: { deployment?: string; step?: number; full?: boolean } = {}) =>
  act((tx) => tx.gates.promote({ app: 'shop', ...more }));
const abort = (deployment?: string) =>
  act((tx) => tx.gates.abort({ app: 'shop', deployment: deployment ?? null }));
const shop = () => act((tx) => tx.apps.get('shop'));
const used = async (resource: string) =>
  (await act((tx) => tx.quota.usage())).find((each) => each.resource === resource)?.used;

/** v1 has succeeded, v2 stands at the first gate. */
async function atGate(strategy = canary, count = 4) {
  const first = await deploy(null, count);
  await platform((tx) => tx.deployments.succeed(first.id));
  const second = await deploy(strategy);
  await reach(second.id);
  return { first, second };
}

describe('promote', () => {
  test('opens one gate however often it is asked to, and begins a new deadline', async () => {
    const { second } = await atGate();
    expect((await get(second.id)).pause).toMatchObject({ step: 1, until: null });
    await platform((tx) =>
      tx.prisma.deployment.update({
        where: { id: second.id },
        data: { progressAt: new Date(0), deadlineAt: new Date(300_000) },
      }),
    );
    await Promise.all(Array.from({ length: 5 }, () => promote({ step: 1 })));
    const view = await get(second.id);
    expect(view).toMatchObject({ step: 1, steps: 2, pause: null, status: 'running' });
    expect(view.deadlineAt.getTime()).toBeGreaterThan(Date.now() + 290_000);
    const { nodes } = await act((tx) => tx.audit.list({ first: 10 }));
    expect(nodes.filter(({ action }) => action === 'app.promote')).toMatchObject([
      { target: 'shop', actor: owner.email },
    ]);
    const events = await act((tx) => tx.deployments.events(second.id));
    expect(events.at(-1)?.message).toBe(`Promoted past step 1 of 2 by ${owner.email}`);
  });

  test('full opens all that are left', async () => {
    const { second } = await atGate();
    expect(await promote({ full: true })).toMatchObject({ step: 2, pause: null });
    await expect(promote()).rejects.toMatchObject({
      code: 'CONFLICT',
      message: 'the deployment of shop goes on by itself: it was promoted before',
    });
    expect(await promote({ deployment: second.id, step: 1 })).toMatchObject({ step: 2 });
  });

  test.each<[string, () => Promise<unknown>, string]>([
    ['without a deployment', async () => null, 'app shop has no deployment yet'],
    ['of a rolling one', () => deploy(), 'it has no steps to wait at'],
    [
      'before it is reached',
      async () => {
        await platform(async (tx) => tx.deployments.succeed((await deploy()).id));
        await deploy(canary);
      },
      'step 1 of 2 is not reached yet',
    ],
    [
      'when it is over',
      async () => {
        const { second } = await atGate();
        await platform((tx) => tx.deployments.succeed(second.id));
      },
      'nothing to promote: that deployment of shop has succeeded',
    ],
  ])('%s is a conflict that says why', async (_, before, message) => {
    await before();
    await expect(promote()).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining(message) as unknown,
    });
  });

  test('of one that was superseded is a conflict, and does nothing to the newer', async () => {
    const { second } = await atGate();
    const third = await deploy();
    await reach(third.id);
    await expect(promote({ deployment: second.id, step: 1 })).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('was superseded') as unknown,
    });
    expect((await get(third.id)).step).toBe(0);
  });

  test('is not for viewers, nor is abort', async () => {
    await atGate();
    const viewer = await makeMember(db.tenancy, owner, tenant, 'viewer');
    for (const attempt of [
      (tx: TenantTx) => tx.gates.promote({ app: 'shop' }),
      (tx: TenantTx) => tx.gates.abort({ app: 'shop' }),
    ]) {
      await expect(act(attempt, viewer)).rejects.toMatchObject({ code: 'FORBIDDEN' });
    }
  });
});

describe('abort', () => {
  test('goes back once, and gives back what was reserved for both', async () => {
    const { first, second } = await atGate();
    expect(await used('instances')).toBe(5);
    await Promise.all(Array.from({ length: 5 }, () => abort(second.id)));
    expect(await get(second.id)).toMatchObject({
      status: 'failed',
      failure: { code: 'ABORTED', message: `aborted by ${owner.email}` },
    });
    expect((await shop()).currentReleaseId).toBe(first.toReleaseId);
    expect(await used('instances')).toBe(4);
    const { nodes } = await act((tx) => tx.audit.list({ first: 10 }));
    expect(nodes.filter(({ action }) => action === 'app.abort')).toHaveLength(1);
    await expect(abort()).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(promote({ deployment: second.id, step: 1 })).rejects.toMatchObject({
      code: 'CONFLICT',
    });
  });

  test('of a scale has nothing to take back, unless it joined a canary', async () => {
    const { first } = await atGate();
    const scale = () =>
      act((tx) => tx.deployments.scale({ app: 'shop', formation: [{ process: 'web', count: 2 }] }));
    expect(await scale()).toMatchObject({ kind: 'scale', steps: 2 });
    await abort();
    expect((await shop()).currentReleaseId).toBe(first.toReleaseId);
    await scale();
    await expect(abort()).rejects.toMatchObject({
      code: 'CONFLICT',
      message: 'a scale cannot be aborted; scale again',
    });
  });
});

describe('a strategy', () => {
  const nextStrategy = async () => (await deploy()).strategy;

  test('is remembered by deploy and config, and changed in part', async () => {
    await atGate();
    expect(await nextStrategy()).toMatchObject(canary);
    await act((tx) =>
      tx.config.set({
        ...{ app: 'shop', vars: [{ name: 'A', value: 'b' }] },
        strategy: { maxSurge: '50%' },
      }),
    );
    expect(await nextStrategy()).toMatchObject({ ...canary, maxSurge: '50%' });
    await deploy({ kind: 'rolling' });
    expect(await nextStrategy()).toEqual({
      ...{ kind: 'rolling', maxSurge: '50%', maxUnavailable: '0', progressSeconds: 300 },
    });
  });

  test('of a rollback or a restart is its own, and without one it does not stop', async () => {
    const { second } = await atGate();
    await promote({ full: true });
    await platform((tx) => tx.deployments.succeed(second.id));
    const restart = (strategy?: StrategyRequest) =>
      act((tx) => tx.deployments.restart('shop', strategy));
    expect((await restart()).strategy.kind).toBe('rolling');
    expect((await restart({ kind: 'blue-green' })).strategy.kind).toBe('blue-green');
    expect((await act((tx) => tx.deployments.rollback({ app: 'shop' }))).strategy.kind).toBe(
      'rolling',
    );
    expect((await nextStrategy()).kind).toBe('canary');
  });

  test('needs something that serves to go back to', async () => {
    expect(await deploy(canary)).toMatchObject({ steps: 0, fromReleaseId: null });
    const { second } = await atGate();
    await act((tx) => tx.deployments.stop('shop'));
    expect((await get(second.id)).status).toBe('superseded');
    expect(await deploy()).toMatchObject({ steps: 0 });
  });

  test.each<[string, StrategyRequest, string]>([
    ['steps of a rolling one', { kind: 'rolling', steps: [{ share: '1' }] }, 'strategy.steps'],
    ['no steps', { kind: 'canary', steps: [] }, 'strategy.steps'],
    ['a step of nothing', { kind: 'canary', steps: [{ share: '0%' }] }, 'strategy.steps.0.share'],
    ['a surge of words', { maxSurge: 'many' }, 'strategy.maxSurge'],
    [
      'a time below a second',
      { kind: 'blue-green', keepOldSeconds: -1 },
      'strategy.keepOldSeconds',
    ],
  ])('with %s is INVALID', async (_, strategy, field) => {
    await expect(deploy(strategy)).rejects.toMatchObject({ code: 'INVALID', details: { field } });
  });
});

describe('beside a deployment before its gate', () => {
  test('a promoted release is what the next one goes back to', async () => {
    const { second } = await atGate({ kind: 'blue-green', manual: true });
    await promote();
    expect((await deploy()).fromReleaseId).toBe(second.toReleaseId);
  });

  test('one that was not promoted is not', async () => {
    const { first } = await atGate();
    expect((await deploy()).fromReleaseId).toBe(first.toReleaseId);
  });

  test('stop gives it up', async () => {
    const { first } = await atGate();
    const { id } = await act((tx) => tx.deployments.stop('shop'));
    expect((await shop()).currentReleaseId).toBe(first.toReleaseId);
    expect(await act((tx) => tx.deployments.events(id))).toMatchObject([
      { message: 'Stop every instance; v2 was not promoted' },
    ]);
  });

  test('both sets are reserved in the larger size', async () => {
    const first = await deploy(null, 2, 512);
    await platform((tx) => tx.deployments.succeed(first.id));
    await deploy({ kind: 'blue-green', manual: true }, 2, 64);
    expect(await used('instances')).toBe(4);
    expect(await used('memoryMiB')).toBe(4 * 512);
  });
});
