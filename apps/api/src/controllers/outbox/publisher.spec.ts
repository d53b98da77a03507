/** The outbox with several publishers at once, a real PostgreSQL and NATS, and faults in between. */
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { streams } from '@bulkhead/protocol';
import type { InstanceSpec } from '@bulkhead/protocol';
import { createTestDatabase } from '@bulkhead/tenancy/testing';
import type { TestDatabase } from '@bulkhead/tenancy/testing';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { NatsLink } from '../../nats/nats.ts';
import { eventually } from '../../testing/eventually.ts';
import { TestNatsServer } from '../../testing/nats-server.ts';
import { fillFleet } from '../testing/fill-fleet.ts';
import { NatsDelivery, type Delivery } from './delivery.ts';
import { Publisher } from './publisher.ts';

let db: TestDatabase;
let server: TestNatsServer;
const links: NatsLink[] = [];
beforeEach(async () => {
  db = await createTestDatabase();
  server = await TestNatsServer.start();
});
afterEach(async () => {
  await Promise.all(links.splice(0).map((link) => link.stop()));
  await server.dispose();
  await db.drop();
});

/** A replica of the API, as far as the outbox is concerned; `over` changes what its values go through. */
async function replica(over: (delivery: Delivery) => Delivery = (delivery) => delivery) {
  const nats = new NatsLink({
    ...{ url: server.url, credsFile: null, logsMaxBytes: 1_048_576, checkEveryMs: 100 },
    log: () => undefined,
  });
  links.push(nats);
  nats.start();
  await nats.whenReady();
  const errors: unknown[] = [];
  const publisher = new Publisher({
    tenancy: db.tenancy,
    delivery: over(new NatsDelivery(nats)),
    onError: (_key, error) => errors.push(error),
  });
  return { nats, publisher, errors };
}

/** Changes instances as controllers do: a new generation and its row in one transaction. */
const change = (ids: readonly string[]) =>
  db.tenancy.platform(async (tx) => {
    const rows = await tx.prisma.$queryRaw<{ key: string }[]>`
      UPDATE "Instance" SET "generation" = "generation" + 1 WHERE "id" = ANY(${ids}::text[])
      RETURNING "nodeId" || '.' || "id" AS "key"`;
    await tx.outbox.add(
      'instance',
      rows.map(({ key }) => key),
    );
  });
const waiting = () =>
  db.tenancy.platform((tx) => tx.prisma.outbox.count({ where: { kind: { not: 'app' } } }));

/** Ends the connection of whoever publishes now, as a crash does; answers how many. */
async function killPublisher(client: pg.Client): Promise<number> {
  const { rowCount } = await client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_locks
     WHERE locktype = 'advisory' AND granted AND database = (
       SELECT oid FROM pg_database WHERE datname = current_database())`,
  );
  return rowCount ?? 0;
}

/** Instances that are to end, whose specifications are no more than a generation. */
async function instances(nodes: number, onEach: number): Promise<string[]> {
  await fillFleet(db.tenancy, { nodes, placedPerNode: onEach, placesPerNode: onEach });
  return db.tenancy.platform(async (tx) => {
    await tx.prisma.$executeRaw`UPDATE "Instance" SET "desired" = 'gone'`;
    return (await tx.prisma.instance.findMany({ select: { id: true } })).map(({ id }) => id);
  });
}

/** Generations of each key, in the order in which a node would hear of them. */
async function listen(nats: NatsLink): Promise<Map<string, number[]>> {
  const heard = new Map<string, number[]>();
  const watch = await (await nats.kv(streams.desiredBucket)).watch();
  void (async () => {
    for await (const entry of watch) {
      const { generation } = entry.json<InstanceSpec>();
      heard.set(entry.key, [...(heard.get(entry.key) ?? []), generation]);
    }
  })();
  return heard;
}

/** What every key should come to. */
const generations = () =>
  db.tenancy.platform(async (tx) => {
    const rows = await tx.prisma.instance.findMany({ orderBy: { id: 'asc' } });
    return rows.map(({ id, nodeId, generation }) => [`${nodeId}.${id}`, generation] as const);
  });

/** What NATS holds now. */
async function held(nats: NatsLink): Promise<(readonly [string, number])[]> {
  const bucket = await nats.kv(streams.desiredBucket);
  return Promise.all(
    (await generations()).map(async ([key]) => {
      const entry = await bucket.get(key);
      return [key, entry?.json<InstanceSpec>().generation ?? 0] as const;
    }),
  );
}

/** Every third value or so meets a fault: refused, or taken without a word. */
function faulty(delivery: Delivery, roll: () => number): Delivery {
  return {
    putInstance: async (key, spec) => {
      const fault = roll();
      if (fault < 0.15) throw new Error('refused');
      await delivery.putInstance(key, spec);
      if (fault > 0.85) throw new Error('the acknowledgement was lost');
    },
    dropInstance: (key) => delivery.dropInstance(key),
    putRoute: (value) => delivery.putRoute(value),
    dropRoute: (host) => delivery.dropRoute(host),
    isSettled: () => delivery.isSettled(),
  };
}

/** Publishes until told to end, as the loop of a replica does. */
function publishOn({ publisher }: { publisher: Publisher }) {
  const state = { ended: false, failures: 0 };
  const running = (async () => {
    while (!state.ended) {
      const done = await publisher.publish().catch(() => null);
      if (done === null) state.failures += 1;
      if (done?.more !== true) await delay(5);
    }
  })();
  return {
    state,
    stop: async () => {
      state.ended = true;
      await running;
    },
  };
}

const chance = (seed: number) => {
  let state = seed;
  return () => (state = (state * 16_807) % 2_147_483_647) / 2_147_483_647;
};

/** Changes all of them so often, some at a time. */
async function changeOften(ids: readonly string[], times: number): Promise<void> {
  for (let round = 0; round < times; round++)
    for (let at = 0; at < ids.length; at += 250) await change(ids.slice(at, at + 250));
}

test('three publishers, 10,000 changes, values refused and acknowledgements lost: of no instance an older generation follows a newer', async () => {
  const ids = await instances(20, 50);
  const replicas = await Promise.all(
    [1, 2, 3].map((seed) => replica((d) => faulty(d, chance(seed)))),
  );
  const heard = await listen(replicas[0]!.nats);
  const loops = replicas.map(publishOn);
  await changeOften(ids, 10);
  await eventually('nothing waits', async () => (await waiting()) === 0, 60_000);
  await Promise.all(loops.map((loop) => loop.stop()));
  const wanted = await generations();
  await eventually('all is heard', () =>
    wanted.every(([key, generation]) => heard.get(key)?.at(-1) === generation),
  );
  for (const seen of heard.values()) expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  expect(await held(replicas[0]!.nats)).toEqual(wanted);
  // Each of them had a part in it, and met faults.
  for (const { errors } of replicas) expect(errors.length).toBeGreaterThan(100);
}, 120_000);

test('publishers are killed in the middle of it and NATS with them: the newest is what stays', async () => {
  const ids = await instances(20, 50);
  const replicas = await Promise.all([1, 2, 3].map(() => replica()));
  const loops = replicas.map(publishOn);
  const client = new pg.Client(db.adminUrl);
  await client.connect();
  let killed = 0;
  const over = new AbortController();
  const killing = (async () => {
    for (; !over.signal.aborted; await delay(50)) killed += await killPublisher(client);
  })();
  await changeOften(ids, 2);
  await server.stop();
  const changing = changeOften(ids, 2);
  await server.restart();
  await changing;
  over.abort();
  await killing;
  await eventually('nothing waits', async () => (await waiting()) === 0, 60_000);
  const wanted = await generations();
  await eventually(
    'NATS holds the newest of each',
    async () => JSON.stringify(await held(replicas[0]!.nats)) === JSON.stringify(wanted),
  );
  await Promise.all(loops.map((loop) => loop.stop()));
  await client.end();
  expect(killed).toBeGreaterThan(5);
  expect(loops.some(({ state }) => state.failures > 0)).toBe(true);
}, 120_000);

test('what arrives late from a publisher that was thought dead is done again', async () => {
  const [id = ''] = await instances(1, 1);
  const gate = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  const hanging = await replica((delivery) => ({
    ...faulty(delivery, () => 0.5),
    putInstance: async (key, spec) => {
      reached.resolve();
      await gate.promise;
      await delivery.putInstance(key, spec);
    },
  }));
  const other = await replica();
  await change([id]);
  const late = hanging.publisher.publish();
  await reached.promise;
  const client = new pg.Client(db.adminUrl);
  await client.connect();
  expect(await killPublisher(client)).toBe(1);
  await client.end();
  await change([id]);
  await eventually('the other publishes', async () => (await other.publisher.publish()).published);
  const [[, newest] = ['', 0]] = await generations();
  expect(await held(other.nats)).toMatchObject([[expect.anything(), newest]]);

  gate.resolve();
  await expect(late).rejects.toThrow();
  // The fault, as far as it goes: the older value came last.
  expect(await held(other.nats)).toMatchObject([[expect.anything(), newest - 1]]);
  expect(await waiting()).toBe(0);
  await hanging.publisher.publish();
  expect(await held(other.nats)).toMatchObject([[expect.anything(), newest]]);
  expect(await waiting()).toBe(0);
});
