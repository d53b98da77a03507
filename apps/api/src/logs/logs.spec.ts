import { createClient } from 'graphql-ws';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { subjects, type LogBatch } from '@bulkhead/protocol';
import type { Caller, DeploymentView } from '@bulkhead/tenancy';
import { makeImage, makeMember, makeNode, makeTenant } from '@bulkhead/tenancy/testing';
import { NATS, type NatsLink } from '../nats/nats.ts';
import { eventually } from '../testing/eventually.ts';
import { placeInstance } from '../testing/instances.ts';
import { startTestApi, type TestApi } from '../testing/test-api.ts';

let api: TestApi;
let nats: NatsLink;
let owner: Caller;
let deployment: DeploymentView & { tenantId: string };
let node: string;
const web = 'iaaaaaaaaaaaa';
const worker = 'ibbbbbbbbbbbb';

beforeAll(async () => {
  api = await startTestApi();
  nats = api.app.get<NatsLink>(NATS);
  await nats.whenReady();
  owner = await makeTenant(api.tenancy, 'demo');
  node = (await makeNode(api.tenancy, 'n1')).node.id;
  deployment = await api.tenancy.run(
    owner,
    { tenant: 'demo', permission: 'app.deploy' },
    async (tx) => {
      await tx.apps.create({ name: 'hello' });
      const made = await tx.deployments.deploy({ app: 'hello', image: makeImage() });
      return { ...made, tenantId: tx.tenant.id };
    },
  );
  await api.tenancy.platform(async (tx) => {
    await placeInstance(tx, { deployment: deployment.id, node, id: web });
    await placeInstance(tx, { deployment: deployment.id, node, id: worker, process: 'worker' });
  });
});
afterAll(() => api.close());

let second = 0;
/** Publishes as an agent does. */
async function write(
  text: string | string[],
  how: { instance?: string; node?: string; process?: string; dropped?: number } = {},
) {
  const instance = how.instance ?? web;
  const lines = [text].flat().map((line) => ({
    at: new Date(Date.UTC(2026, 0, 1, 0, 0, second++)).toISOString(),
    stream: 'stdout' as const,
    text: line,
  }));
  const batch: LogBatch = {
    v: 1,
    instance,
    process: how.process ?? 'web',
    lines,
    dropped: how.dropped ?? 0,
  };
  const subject = subjects.logs(deployment.tenantId, deployment.appId, how.node ?? node, instance);
  await nats.js.publish(subject, JSON.stringify(batch));
}

const query =
  'query ($process: String, $instance: String, $since: DateTime, $tail: Int) { logs(tenant: "demo", app: "hello", process: $process, instance: $instance, since: $since, tail: $tail) { text process instance stream at } }';
async function read(variables: object = {}, as: Caller = owner) {
  const { body } = await api.graphql(query, variables, as);
  return body.errors
    ? body.errors[0]?.extensions['code']
    : (body.data?.['logs'] as unknown as { text: string }[]).map(({ text }) => text);
}

/** Follows until `end` is called; reconnects by itself as the stock client does. */
async function follow(variables: object = {}, as: Caller = owner) {
  const heard: string[] = [];
  const token = await api.sessionOf(as);
  const client = createClient({
    url: `${api.url.replace('http', 'ws')}/graphql`,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
  });
  const end = client.subscribe<{ logs: { text: string } }>(
    { query: query.replace('query', 'subscription'), variables: { ...variables } },
    {
      next: ({ data }) => data && heard.push(data.logs.text),
      error: (error) => heard.push(JSON.stringify(error)),
      complete: () => undefined,
    },
  );
  return { heard, end: async () => (end(), await client.dispose()) };
}

test('an app that wrote nothing has no lines', async () => {
  expect(await read()).toEqual([]);
});

test('history is the last lines, and can be narrowed', async () => {
  for (let i = 0; i < 30; i += 1) await write([`web ${i}a`, `web ${i}b`]);
  for (let i = 0; i < 5; i += 1)
    await write(`worker ${i}`, { instance: worker, process: 'worker' });

  expect(await read({ tail: 7 })).toEqual([
    'web 29a',
    'web 29b',
    'worker 0',
    'worker 1',
    'worker 2',
    'worker 3',
    'worker 4',
  ]);
  expect(await read({ tail: 3, process: 'web' })).toEqual(['web 28b', 'web 29a', 'web 29b']);
  expect(await read({ tail: 2, instance: worker })).toEqual(['worker 3', 'worker 4']);
  expect(await read({ tail: 0 })).toEqual([]);
  expect(await read({ tail: 1000 })).toHaveLength(65);
  expect(await read({ tail: 5000 })).toBe('INVALID');
});

test('lines that are older than `since` are left out', async () => {
  expect(await read({ since: new Date(Date.now() + 3_600_000).toISOString() })).toEqual([]);
  const [{ at } = { at: '' }] = (await api.graphql(query, { tail: 2, instance: worker }, owner))
    .body.data?.['logs'] as unknown as { at: string }[];
  expect(await read({ since: at, instance: worker })).toEqual(['worker 3', 'worker 4']);
});

test('what a node writes for an instance that is not its own is not shown', async () => {
  const foreign = (await makeNode(api.tenancy, 'n2')).node.id;
  await write('forged by another node', { node: foreign });
  await write('forged instance', { instance: 'icccccccccccc' });
  await nats.js.publish(subjects.logs(deployment.tenantId, deployment.appId, node, web), 'no json');
  await write('honest');
  expect(await read({ tail: 2 })).toEqual(['worker 4', 'honest']);
});

test('what was dropped is said', async () => {
  await write('after a flood', { dropped: 12 });
  expect(await read({ tail: 2 })).toEqual([
    expect.stringContaining('12 lines were dropped'),
    'after a flood',
  ]);
});

test('followers get history, then what is new, each line once', async () => {
  const { heard, end } = await follow({ tail: 1 });
  await eventually('history', () => heard.length === 1);
  await write('live 1');
  await write('live other', { instance: worker, process: 'worker' });
  await write(['live 2', 'live 3']);
  await eventually('live lines', () => heard.length >= 5);
  expect(heard).toEqual(['after a flood', 'live 1', 'live other', 'live 2', 'live 3']);
  await end();
});

test('a follower of one process hears of no other, and lives through the loss of NATS', async () => {
  const { heard, end } = await follow({ tail: 0, process: 'worker' });
  await eventually('it follows', async () => {
    await write('knock', { instance: worker, process: 'worker' });
    return heard.length > 0;
  });
  await write('not for you');
  await api.nats.stop();
  await api.nats.wipe();
  await api.nats.restart();
  await eventually('NATS is back', () => nats.isUp());
  await eventually('lines arrive again', async () => {
    await write('after the loss', { instance: worker, process: 'worker' });
    return heard.includes('after the loss');
  });
  expect(heard).not.toContain('not for you');
  await end();
}, 60_000);

test("another tenant's logs are not found, and a wildcard is no instance", async () => {
  const stranger = await makeTenant(api.tenancy, 'other');
  expect(await read({}, stranger)).toBe('NOT_FOUND');
  expect(await read({ instance: '*' })).toBe('NOT_FOUND');
  expect(await read({ instance: '>' })).toBe('NOT_FOUND');
});

test('a follower who is no member any more hears no more', async () => {
  const member = await makeMember(api.tenancy, owner, 'demo', 'viewer');
  expect(await read({ tail: 1 }, member)).toHaveLength(1);
  const { heard, end } = await follow({ tail: 1 }, member);
  await eventually('history', () => heard.length === 1);
  await api.tenancy.run(owner, { tenant: 'demo', permission: 'member.remove' }, (tx) =>
    tx.members.remove({ email: member.email }),
  );
  expect(await read({ tail: 1 }, member)).toBe('NOT_FOUND');
  await eventually('the open one ends', () => heard.at(-1)?.includes('NOT_FOUND') === true);
  await write('not for strangers');
  expect(heard).not.toContain('not for strangers');
  await end();
}, 8000);
