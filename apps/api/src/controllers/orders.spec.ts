/** Orders for instances, from the tenant's door over rollout, edges and outbox to the node. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '../testing/eventually.ts';
import { Platform } from './testing/platform.ts';

let platform: Platform;
beforeAll(async () => {
  platform = await Platform.start({ nodes: 2 });
});
afterAll(async () => {
  await platform.stop();
});

const hostOf = (app: string) => `${app}.demo.localhost`;
const routeOf = (app: string) => platform.edge.routes.get(hostOf(app));
const web = (count: number) => [{ name: 'web', count, port: 8080 }];
const pause = (app: string) => platform.run('app.pause', (tx) => tx.orders.pauseApp(app));
const resume = (app: string) => platform.run('app.resume', (tx) => tx.orders.resumeApp(app));
const inState = (app: string, state: string) =>
  eventually(`${app} to be ${state}`, async () =>
    (await platform.instances(app)).every((each) => each.state === state),
  );
const heldBy = (id: string) =>
  platform.agents.flatMap((agent) => agent.instances.get(id) ?? []).at(0);

test('a paused app leaves the edge first, says so there, and comes back as it was', async () => {
  await platform.succeeded(await platform.deploy('still', 'hello:1', web(2)));
  const before = (await platform.instances('still')).map(({ id }) => id);
  const memory = await platform.used('memoryMiB');
  await pause('still');
  await inState('still', 'paused');
  expect(routeOf('still')).toMatchObject({ state: 'paused', backends: [] });
  for (const row of await platform.instances('still')) {
    // No node held one before the edges had said that they serve without it.
    expect(row).toMatchObject({ paused: true, frozen: true, generation: 2 });
    expect(row.drainRevision).not.toBeNull();
    expect(heldBy(row.id)?.spec.paused).toBe(true);
  }
  await pause('still');
  expect(await platform.used('memoryMiB')).toBe(memory);

  await resume('still');
  await eventually('it serves again', () => platform.edge.backends(hostOf('still')).length === 2);
  const after = await platform.instances('still');
  expect(after.map(({ id }) => id)).toEqual(before);
  expect(after.every(({ restarts, drainRevision }) => restarts === 0 && !drainRevision)).toBe(true);
});

test('the rest serves while one is paused, and scales', async () => {
  await platform.succeeded(await platform.deploy('half', 'hello:1', web(2)));
  const [one, other] = (await platform.instances('half')).map(({ id }) => id);
  await platform.run('app.pause', (tx) => tx.orders.pause({ app: 'half', instance: one ?? '' }));
  await eventually('one is held', () => heldBy(one ?? '')?.state === 'paused');
  expect(platform.edge.backends(hostOf('half'))).toEqual([other]);
  await platform.succeeded(
    await platform.run('app.scale', (tx) =>
      tx.deployments.scale({ app: 'half', formation: [{ process: 'web', count: 3 }] }),
    ),
  );
  expect(platform.edge.backends(hostOf('half'))).toHaveLength(2);
  expect(heldBy(one ?? '')?.state).toBe('paused');
});

test('a deploy to a paused app puts what runs in the place of what is held', async () => {
  await platform.succeeded(await platform.deploy('woken', 'hello:1', web(2)));
  const before = (await platform.instances('woken')).map(({ id }) => id);
  await pause('woken');
  await inState('woken', 'paused');
  const deployment = await platform.deploy('woken', 'hello:2');
  // Resumed while it goes on: what is replaced anyway does no harm.
  await resume('woken');
  await platform.succeeded(deployment);
  await eventually('two are left', async () => (await platform.instances('woken')).length === 2);
  const after = await platform.instances('woken');
  expect(after.some(({ id }) => before.includes(id))).toBe(false);
  expect(platform.edge.backends(hostOf('woken'))).toHaveLength(2);
});

test('a deploy to a paused app that fails leaves it paused', async () => {
  await platform.succeeded(await platform.deploy('asleep'));
  const [before] = await platform.instances('asleep');
  await pause('asleep');
  await inState('asleep', 'paused');
  platform.fate('bad:asleep', 'crash');
  const failed = await platform.ended((await platform.deploy('asleep', 'bad:asleep')).id);
  expect(failed).toMatchObject({ status: 'failed', failure: { code: 'CRASHED' } });
  await eventually('one is left', async () => (await platform.instances('asleep')).length === 1);
  expect((await platform.instances('asleep'))[0]).toMatchObject({
    ...{ id: before?.id, state: 'paused', frozen: true },
  });
  await eventually('the route says so', () => routeOf('asleep')?.state === 'paused');
});

test('nothing is frozen that an edge may still send to, also over a restart of the API', async () => {
  await platform.succeeded(await platform.deploy('patient'));
  const [one] = await platform.instances('patient');
  platform.edge.mute = true;
  await pause('patient');
  await eventually('it leaves the route', () => routeOf('patient')?.state === 'paused');
  await eventually('it is known to leave it', async () => {
    const [row] = await platform.instances('patient');
    return row?.drainRevision != null;
  });
  await platform.addReplica();
  await platform.replicas[0]?.stop();
  const [waiting] = await platform.instances('patient');
  expect(waiting).toMatchObject({ id: one?.id, frozen: false, state: 'ready' });
  expect(heldBy(one?.id ?? '')?.spec.paused).toBe(false);

  // The next replica asks again, and the edge says it now.
  platform.edge.mute = false;
  await inState('patient', 'paused');
});

test('a paused app can be stopped, and started again it runs', async () => {
  await platform.succeeded(await platform.deploy('off'));
  await pause('off');
  await inState('off', 'paused');
  await platform.succeeded(await platform.run('app.stop', (tx) => tx.deployments.stop('off')));
  expect(await platform.instances('off')).toEqual([]);
  expect(routeOf('off')?.state).toBe('stopped');
  await platform.succeeded(await platform.run('app.start', (tx) => tx.deployments.start('off')));
  expect(platform.edge.backends(hostOf('off'))).toHaveLength(1);
});

test('a paused instance that is deleted is replaced by one that runs', async () => {
  await platform.succeeded(await platform.deploy('gone'));
  const [one] = await platform.instances('gone');
  await pause('gone');
  await inState('gone', 'paused');
  await platform.run('instance.delete', (tx) =>
    tx.orders.remove({ app: 'gone', instance: one?.id ?? '' }),
  );
  await eventually('another serves', () => {
    const [backend] = platform.edge.backends(hostOf('gone'));
    return backend !== undefined && backend !== one?.id;
  });
  await eventually('it is gone', () => heldBy(one?.id ?? '') === undefined);
});

test('a restarted instance serves until the one in its place does', async () => {
  await platform.succeeded(await platform.deploy('fresh', 'hello:1', web(2)));
  const [one, other] = (await platform.instances('fresh')).map(({ id }) => id);
  await platform.run('app.restart', (tx) =>
    tx.orders.restart({ app: 'fresh', instance: one ?? '' }),
  );
  await eventually('it is replaced', async () => {
    const ids = (await platform.instances('fresh')).map(({ id }) => id);
    return ids.length === 2 && !ids.includes(one ?? '') && ids.includes(other ?? '');
  });
  expect(platform.edge.backends(hostOf('fresh'))).toHaveLength(2);
  const old = await platform.sql((prisma) =>
    prisma.instance.findUniqueOrThrow({ where: { id: one ?? '' } }),
  );
  const [first] = (await platform.instances('fresh')).filter(({ id }) => id !== other);
  expect(old.drainStartedAt?.getTime()).toBeGreaterThanOrEqual(first?.readyAt?.getTime() ?? NaN);
});

test('no loop met an error', () => {
  expect(platform.replicas.flatMap(({ errors }) => errors)).toEqual([]);
});
