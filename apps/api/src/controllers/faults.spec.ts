import { afterEach, expect, test } from 'vitest';
import { jetstream } from '@nats-io/jetstream';
import { streams, subjects } from '@bulkhead/protocol';
import type { InstanceSpec, Route } from '@bulkhead/protocol';
import { eventually } from '../testing/eventually.ts';
import type { Delivery } from './outbox/delivery.ts';
import { Platform } from './testing/platform.ts';

let platform: Platform;

afterEach(async () => {
  await platform.stop();
});

const hostOf = (app: string) => `${app}.demo.localhost`;
const routeOf = (app: string): Route => ({
  ...{ v: 1, host: hostOf(app), tenant: 'demo', app, state: 'stopped' },
  ...{ backends: [], revision: 1 },
});

/** Keys of the bucket `desired`, as NATS holds them now. */
/** Without those that are marked as deleted. */
async function desiredKeys(): Promise<string[]> {
  const bucket = await platform.replicas[0]?.nats.kv('desired');
  const keys: string[] = [];
  for await (const key of (await bucket?.keys()) ?? []) keys.push(key);
  return keys;
}

test('NATS loses everything: it is filled again from PostgreSQL, and nothing that ran is touched', async () => {
  platform = await Platform.start();
  await platform.succeeded(await platform.deploy('kept'));
  const [before] = await platform.instances('kept');
  await platform.natsServer.stop();
  await platform.natsServer.wipe();
  // A change while NATS is away waits for it.
  const waiting = await platform.run('app.scale', (tx) =>
    tx.deployments.scale({ app: 'kept', formation: [{ process: 'web', count: 2 }] }),
  );
  await platform.natsServer.restart();
  await platform.succeeded(waiting);
  const after = await platform.instances('kept');
  expect(after).toHaveLength(2);
  expect(after.find(({ id }) => id === before?.id)).toMatchObject({
    state: 'ready',
    generation: 1,
  });
  await eventually('every instance has its key', async () => (await desiredKeys()).length === 2);
  await eventually('the route is back', () => platform.edge.backends(hostOf('kept')).length === 2);
  expect(platform.agent.delivered.some(({ desired }) => desired === 'gone')).toBe(false);
});

test('a key that NATS lost is put back', async () => {
  platform = await Platform.start();
  await platform.succeeded(await platform.deploy('kept'));
  await eventually('its key is there', async () => (await desiredKeys()).length === 1);
  const [key] = await desiredKeys();
  const [replica] = platform.replicas;
  await replica?.nats.jsm.streams.purge('KV_desired', { filter: `$KV.desired.${key}` });
  await eventually('its key is back', async () => (await desiredKeys())[0] === key);
});

test('stale, doubled and foreign reports change nothing; strays are ordered away', async () => {
  platform = await Platform.start({ nodes: 2 });
  await platform.succeeded(await platform.deploy('honest'));
  const [instance] = await platform.instances('honest');
  const id = instance?.id ?? '';
  const owner = platform.agents.find((agent) => agent.id === instance?.nodeId);
  const other = platform.agents.find((agent) => agent.id !== instance?.nodeId);
  // Older than what is known.
  await owner?.report(id, 'failed', { seq: Number(instance?.reportSeq) - 1 });
  // The same once more.
  await owner?.report(id, 'unready', { seq: Number(instance?.reportSeq) });
  // A node speaks for an instance that is another's.
  await other?.report(id, 'gone');
  await other?.report(id, 'running');
  // What nobody knows, on a node that is ours.
  await owner?.report('iunknown00000', 'ready', { generation: 4 });
  const ordered = (agent: typeof owner, of: string) =>
    agent?.delivered.find((spec: InstanceSpec) => spec.instance === of && spec.desired === 'gone');
  const stray = await eventually('the stray is ordered away', () =>
    ordered(owner, 'iunknown00000'),
  );
  expect(stray.generation).toBe(5);
  await eventually('the other node is told to drop it', () => ordered(other, id));
  expect(ordered(owner, id)).toBeUndefined();
  expect((await platform.instances('honest'))[0]).toMatchObject({
    id,
    state: 'ready',
    desired: 'running',
    reportSeq: instance?.reportSeq,
  });
  await eventually('nothing of the strays is left in NATS', async () => {
    return (await desiredKeys()).join() === `${owner?.id}.${id}`;
  });
  expect(platform.edge.backends(hostOf('honest'))).toEqual([id]);
});

test('reports that no parser takes are dropped, and block nothing', async () => {
  platform = await Platform.start();
  const [replica] = platform.replicas;
  const js = jetstream(replica?.nats.nc as never);
  await js.publish(subjects.report(platform.agent.id, 'iaaaaaaaaaaaa'), 'not JSON');
  await js.publish(subjects.report(platform.agent.id, 'iaaaaaaaaaaaa'), '{"v":1}');
  await platform.succeeded(await platform.deploy('after'));
});

test('what a killed replica took of the reports is soon another one’s, also where an older release said otherwise', async () => {
  platform = await Platform.start();
  const jsm = platform.replicas[0]!.nats.jsm;
  const patience = async () =>
    (await jsm.consumers.info(streams.reports, 'controllers')).config.ack_wait;
  const seconds = 1e9;
  await eventually('the reports are taken', async () => (await patience()) === 5 * seconds);
  await jsm.consumers.update(streams.reports, 'controllers', { ack_wait: 30 * seconds });
  await platform.addReplica();
  await eventually('it has changed it', async () => (await patience()) === 5 * seconds);
  await platform.succeeded(await platform.deploy('after'));
});

test('three replicas at once double nothing', async () => {
  platform = await Platform.start({ replicas: 3, nodes: 2 });
  const names = ['a', 'b', 'c', 'd'];
  const processes = [{ name: 'web', count: 2, port: 8080 }];
  const deployments = await Promise.all(
    names.map((name) => platform.deploy(name, 'hello:1', processes)),
  );
  for (const { appId } of deployments) {
    for (const { controllers } of platform.replicas) controllers.nudge(appId);
  }
  const ended = await Promise.all(deployments.map((each) => platform.succeeded(each)));
  for (const { events } of ended) {
    const story = events.map(({ message }) => message);
    expect(new Set(story).size).toBe(story.length);
  }
  const made = await platform.sql((prisma) => prisma.instance.count());
  expect(made).toBe(8);
  // Many changes at once, and again no instance too many.
  const again = await Promise.all(names.map((name) => platform.deploy(name, 'hello:2')));
  await Promise.all(again.map((each) => platform.succeeded(each)));
  await eventually('only the new ones are left', async () => {
    const left = await Promise.all(names.map((name) => platform.instances(name)));
    return left.every((instances) => instances.length === 2);
  });
  expect(await platform.sql((prisma) => prisma.instance.count())).toBe(16);
  expect(await platform.used('instances')).toBe(8);
});

test('replicas that place at once never overfill a node', async () => {
  platform = await Platform.start({ replicas: 3 });
  platform.agent.capacity = { ...platform.agent.capacity, maxInstances: 5 };
  await eventually('the node is small', async () => {
    const node = await platform.sql((prisma) => prisma.node.findFirst());
    return node?.maxInstances === 5;
  });
  const processes = [{ name: 'web', count: 2, port: 8080 }];
  await Promise.all(
    ['a', 'b', 'c', 'd'].map((name) => platform.deploy(name, 'hello:1', processes)),
  );
  const placed = () =>
    platform.sql((prisma) =>
      prisma.instance.count({ where: { nodeId: { not: null }, goneAt: null } }),
    );
  await eventually('five are placed and three refused', async () => {
    const refused = await platform.sql((prisma) =>
      prisma.instance.count({ where: { message: { startsWith: 'no room: needs 1 place' } } }),
    );
    expect(await placed()).toBeLessThanOrEqual(5);
    return refused === 3;
  });
  expect(await placed()).toBe(5);
});

test('a replica that dies between commit and publish: the next one publishes', async () => {
  platform = await Platform.start({ replicas: 0, nodes: 0 });
  const refuse = () => Promise.reject(new Error('killed'));
  const dying: Delivery = {
    putInstance: refuse,
    dropInstance: refuse,
    putRoute: refuse,
    dropRoute: refuse,
    isSettled: () => Promise.resolve(true),
  };
  const first = await platform.addReplica({ delivery: dying });
  const agent = await platform.addNode();
  const deployment = await platform.deploy('survivor');
  await eventually('it is placed', async () => {
    return (await platform.instances('survivor'))[0]?.nodeId === agent.id;
  });
  await eventually('it tried to publish', () => first.errors.length > 0);
  await first.stop();
  expect(agent.delivered).toEqual([]);
  await platform.addReplica();
  await platform.succeeded(deployment);
});

test('an edge that does not say so holds a drain until it is asked again', async () => {
  platform = await Platform.start({ edges: 2 });
  await platform.succeeded(await platform.deploy('drained'));
  const [old] = await platform.instances('drained');
  const silent = platform.edges[1];
  if (!silent) throw new Error('no second edge');
  silent.mute = true;
  const deployment = await platform.deploy('drained', 'hello:2');
  await eventually('the old one drains', async () => {
    const rows = await platform.instances('drained');
    return rows.find(({ id }) => id === old?.id)?.desired === 'draining';
  });
  await eventually('it is out of the route', () => {
    return !platform.edge.backends(hostOf('drained')).includes(old?.id ?? '');
  });
  const row = (await platform.instances('drained')).find(({ id }) => id === old?.id);
  expect(row?.desired).toBe('draining');
  silent.mute = false;
  await platform.succeeded(deployment);
});

test('an edge that died is not waited for', async () => {
  platform = await Platform.start({ edges: 2 });
  await platform.succeeded(await platform.deploy('served'));
  await platform.edges[1]?.stop();
  await platform.succeeded(await platform.deploy('served', 'hello:2'));
  await eventually('one is left', async () => (await platform.instances('served')).length === 1);
});

test('a node that falls silent: its instances serve again elsewhere, and it drops them when it is back', async () => {
  platform = await Platform.start({ nodes: 3 });
  await platform.succeeded(await platform.deploy('moved'));
  const [before] = await platform.instances('moved');
  const lost = platform.agents.find(({ id }) => id === before?.nodeId);
  if (!lost) throw new Error('no agent');
  lost.silent = true;
  const age = (seconds: number) =>
    platform.sql((prisma) =>
      prisma.node.updateMany({
        where: { id: lost.id },
        data: { state: 'suspect', lastSeenAt: new Date(Date.now() - seconds * 1000) },
      }),
    );
  // As if it had been silent for long already; that the replica listens long enough is the planner's test.
  await age(60);
  await platform.sql((prisma) =>
    prisma.node.update({ where: { id: lost.id }, data: { state: 'lost' } }),
  );
  const [replica] = platform.replicas;
  replica?.controllers.nudge(before?.appId ?? '');
  await eventually('another serves', () => {
    const [backend] = platform.edge.backends(hostOf('moved'));
    return backend !== undefined && backend !== before?.id;
  });
  await eventually('the old one is ordered gone', async () => {
    return (
      (await platform.instances('moved')).find(({ id }) => id === before?.id)?.desired === 'gone'
    );
  });
  lost.silent = false;
  await lost.reportAll();
  await lost.report(before?.id ?? '', 'gone');
  await eventually('it is gone', async () => (await platform.instances('moved')).length === 1);
});

test('a resync puts back what is missing and takes away what is stale, also twice at once and while a deploy goes on', async () => {
  platform = await Platform.start({ replicas: 2 });
  await platform.succeeded(await platform.deploy('kept'));
  const [instance] = await platform.instances('kept');
  const key = `${platform.agent.id}.${instance?.id ?? ''}`;
  const [first, second] = platform.replicas;
  const spec = (await (await first?.nats.kv('desired'))?.get(key))?.json<InstanceSpec>();
  const put = (name: string, value: object) =>
    first?.nats.js.publish(`$KV.${name}`, JSON.stringify(value));
  // What the node was never to run, what belongs to a node that is not ours, and a route of no app.
  const stray = { ...spec, instance: 'istray0000000', generation: 3 };
  await put(`desired.${platform.agent.id}.istray0000000`, stray);
  await put('desired.nforeign00000.iforeign00000', { ...stray, instance: 'iforeign00000' });
  await put('routes.nobody.demo.localhost', routeOf('nobody'));
  await eventually('the node runs the stray', () => platform.agent.instances.has('istray0000000'));
  await first?.nats.jsm.streams.purge('KV_routes', { filter: `$KV.routes.${hostOf('kept')}` });
  const deployment = await platform.deploy('kept', 'hello:2');
  const [started, other] = await Promise.all([
    first?.controllers.resync.start(),
    second?.controllers.resync.start(),
  ]);
  expect(started).toMatchObject({ routes: 1, left: 1 });
  // Which of the two finds it is not said: the other may have seen to it already.
  expect((started?.stale ?? 0) + (other?.stale ?? 0)).toBeGreaterThanOrEqual(1);
  await eventually('all of it is delivered', async () => {
    const until = [started?.until ?? 0n, other?.until ?? 0n];
    const waiting = await Promise.all(until.map((at) => first?.controllers.resync.waiting(at)));
    return waiting.every((count) => count === 0);
  });
  await platform.succeeded(deployment);
  await eventually('the stray ended, and its key went with it', async () => {
    const keys = await desiredKeys();
    return !platform.agent.instances.has('istray0000000') && keys.length === 2;
  });
  const [now] = await platform.instances('kept');
  expect((await desiredKeys()).sort()).toEqual(
    [`${platform.agent.id}.${now?.id ?? ''}`, 'nforeign00000.iforeign00000'].sort(),
  );
  const routes = await first?.nats.kv('routes');
  const hosts: string[] = [];
  for await (const host of (await routes?.keys()) ?? []) hosts.push(host);
  expect(hosts).toEqual([hostOf('kept')]);
});

test('an empty database takes no route away, and without NATS a resync says so', async () => {
  platform = await Platform.start({ nodes: 0 });
  const [replica] = platform.replicas;
  await replica?.nats.js.publish('$KV.routes.kept.demo.localhost', JSON.stringify(routeOf('kept')));
  expect(await replica?.controllers.resync.start()).toMatchObject({ stale: 0, left: 1 });
  await platform.natsServer.stop();
  await expect(replica?.controllers.resync.start()).rejects.toThrow(/NATS cannot be reached/);
});

test('one bucket alone is lost: it is filled again', async () => {
  platform = await Platform.start();
  await platform.succeeded(await platform.deploy('kept'));
  const [replica] = platform.replicas;
  await replica?.nats.jsm.streams.delete('KV_routes');
  await eventually('the route is back', async () => {
    const entry = await (await replica?.nats.kv('routes'))?.get(hostOf('kept')).catch(() => null);
    return entry?.operation === 'PUT';
  });
  expect(platform.agent.delivered.some(({ desired }) => desired === 'gone')).toBe(false);
});

test('what makes room for a higher priority leaves, and comes back where there is room', async () => {
  platform = await Platform.start();
  platform.agent.capacity = { ...platform.agent.capacity, memoryMiB: 600 };
  const web = (over: object) => [{ name: 'web', memoryMiB: 256, diskMiB: 100, ...over }];
  await platform.succeeded(
    await platform.deploy('cheap', 'hello:1', web({ priority: 'low', count: 2 })),
  );
  await platform.succeeded(await platform.deploy('dear', 'hello:1', web({})));
  const [kept, waiting] = (await platform.instances('cheap')).sort((a, b) =>
    a.nodeId === null ? 1 : b.nodeId === null ? -1 : 0,
  );
  expect(kept?.state).toBe('ready');
  expect(waiting).toMatchObject({ nodeId: null, state: 'pending' });
  expect(waiting?.message).toContain('no room');
  // Not one request was sent to what was ordered to go: it left its route first.
  expect(platform.edge.backends(hostOf('cheap'))).toHaveLength(1);

  await platform.addNode();
  await eventually('it runs elsewhere', async () =>
    (await platform.instances('cheap')).every(({ state }) => state === 'ready'),
  );
});
