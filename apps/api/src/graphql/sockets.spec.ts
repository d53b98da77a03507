import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { GraphQLSchemaHost } from '@nestjs/graphql';
import { createClient, type Client } from 'graphql-ws';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import type { Caller } from '@bulkhead/tenancy';
import { makeImage, makeTenant } from '@bulkhead/tenancy/testing';
import { subjects } from '@bulkhead/protocol';
import { Authenticator } from '../auth/authenticator.ts';
import { makeLogger } from '../logger.ts';
import { Metrics } from '../metrics/metrics.ts';
import { NATS, type NatsLink } from '../nats/nats.ts';
import { eventually } from '../testing/eventually.ts';
import { startTestApi, type TestApi } from '../testing/test-api.ts';
import { RequestContext } from './request-context.ts';
import { GraphqlSockets } from './sockets.ts';

let api: TestApi;
let owner: Caller;
let stranger: Caller;
let deployment: string;
const open: { dispose(): unknown }[] = [];

beforeAll(async () => {
  api = await startTestApi();
  const { tenancy } = api;
  owner = await makeTenant(tenancy, 'demo');
  stranger = await makeTenant(tenancy, 'other');
  deployment = await tenancy.run(
    owner,
    { tenant: 'demo', permission: 'app.deploy' },
    async (tx) => {
      await tx.apps.create({ name: 'hello' });
      return (await tx.deployments.deploy({ app: 'hello', image: makeImage() })).id;
    },
  );
  await api.app.get<NatsLink>(NATS).whenReady();
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.dispose()));
});
afterAll(() => api.close());

const address = () => `${api.url.replace('http', 'ws')}/graphql`;

async function clientOf(caller: Caller | null): Promise<Client> {
  const token = caller && (await api.sessionOf(caller));
  const client = createClient({
    url: address(),
    webSocketImpl: WebSocket,
    retryAttempts: 0,
    connectionParams: token === null ? {} : { authorization: `Bearer ${token}` },
  });
  open.push(client);
  return client;
}

/** A bare socket that has said nothing yet; collects what it hears. */
async function rawSocket(protocol = 'graphql-transport-ws', path = address()) {
  const socket = new WebSocket(path, protocol);
  const heard: { type: string; id?: string; payload?: never }[] = [];
  const closed = new Promise<number>((resolve) => socket.once('close', resolve));
  socket.on('message', (data) => heard.push(JSON.parse(String(data)) as never));
  await new Promise((resolve, reject) => {
    socket.once('open', resolve);
    socket.once('error', reject);
  });
  open.push({ dispose: () => socket.terminate() });
  return { socket, heard, closed, send: (message: object) => socket.send(JSON.stringify(message)) };
}

/** Everything a subscription or query gives, until it completes or fails. */
function collect(client: Client, query: string, variables: Record<string, unknown> = {}) {
  const events: {
    data?: Record<string, never> | null;
    errors?: readonly { extensions?: Record<string, unknown> }[];
  }[] = [];
  let failure: unknown;
  let end = () => undefined as void;
  const done = new Promise<void>((resolve) => {
    end = client.subscribe(
      { query, variables },
      {
        next: (event) => void events.push(event as never),
        error: (error) => {
          failure = error;
          resolve();
        },
        complete: resolve,
      },
    );
  });
  return { events, done, end: () => end(), failure: () => failure };
}

const progress =
  'subscription ($id: ID!) { deploymentProgress(id: $id) { status events { message } to { version } } }';

test('a deployment is shown at once, at each change, and the stream ends with it', async () => {
  const stream = collect(await clientOf(owner), progress, { id: deployment });
  await eventually('the snapshot', () => stream.events.length === 1);
  expect(stream.events[0]).toEqual({
    data: {
      deploymentProgress: {
        status: 'RUNNING',
        events: expect.any(Array) as never,
        to: { version: 1 },
      },
    },
  });

  const nudge = () => api.app.get<NatsLink>(NATS).nc.publish(subjects.nudge, appId);
  const appId = (
    await api.tenancy.run(owner, { tenant: 'demo', permission: 'app.read' }, (tx) =>
      tx.apps.get('hello'),
    )
  ).id;
  await api.tenancy.platform((tx) => tx.deployments.addEvent(deployment, 'web is starting'));
  nudge();
  await eventually('the event', () => JSON.stringify(stream.events).includes('web is starting'));
  await api.tenancy.platform((tx) => tx.deployments.succeed(deployment));
  nudge();
  await stream.done;
  expect(stream.events.at(-1)).toMatchObject({
    data: { deploymentProgress: { status: 'SUCCEEDED' } },
  });
});

test('a deployment that is over is shown once', async () => {
  const stream = collect(await clientOf(owner), progress, { id: deployment });
  await stream.done;
  expect(stream.events).toHaveLength(1);
});

test("another tenant's deployment is not found, and nobody is unauthenticated", async () => {
  for (const [who, code] of [
    [stranger, 'NOT_FOUND'],
    [null, 'UNAUTHENTICATED'],
  ] as const) {
    const stream = collect(await clientOf(who), progress, { id: deployment });
    await stream.done;
    expect(stream.events[0]?.errors?.[0]?.extensions?.['code']).toBe(code);
  }
});

test('queries and mutations over the socket are guarded and limited like those over HTTP', async () => {
  const client = await clientOf(stranger);
  const query = collect(client, '{ tenant(slug: "demo") { id } }');
  await query.done;
  expect(query.events[0]?.errors?.[0]?.extensions?.['code']).toBe('NOT_FOUND');

  const mutation = collect(
    client,
    'mutation { createApp(input: { tenant: "demo", name: "x" }) { id } }',
  );
  await mutation.done;
  expect(mutation.events[0]?.errors?.[0]?.extensions?.['code']).toBe('NOT_FOUND');

  const deep = 'latestDeployment { app { '.repeat(7) + 'id' + ' } }'.repeat(7);
  const limited = collect(client, `{ app(tenant: "other", name: "a") { ${deep} } }`);
  await limited.done;
  expect(JSON.stringify(limited.failure())).toContain('fields deep');

  const costly = collect(
    client,
    '{ tenant(slug: "other") { apps(first: 200) { nodes { releases(first: 200) { nodes { processes { name } } } } } } }',
  );
  await costly.done;
  expect(JSON.stringify(costly.failure())).toContain('objects');
});

test('a bad credential closes the socket with a code that says do not come back', async () => {
  const { send, closed } = await rawSocket();
  send({ type: 'connection_init', payload: { authorization: 'Bearer nonsense' } });
  expect(await closed).toBe(4401);
});

test.each([
  ['twice initialised', 4429, [{ type: 'connection_init' }, { type: 'connection_init' }]],
  [
    'subscribed before initialised',
    4401,
    [{ type: 'subscribe', id: '1', payload: { query: '{ me { id } }' } }],
  ],
  ['not a message', 4400, [{ nonsense: true }]],
])('%s: closed with %i', async (_name, code, messages) => {
  const { send, closed } = await rawSocket();
  for (const message of messages) send(message);
  expect(await closed).toBe(code);
});

test('other paths and protocols are no sockets', async () => {
  await expect(
    rawSocket('graphql-transport-ws', address().replace('/graphql', '/other')),
  ).rejects.toThrow('404');
  const old = await rawSocket('graphql-ws').catch((error: unknown) => error);
  expect(old instanceof Error || (await (old as { closed: Promise<number> }).closed) === 4406).toBe(
    true,
  );
});

test('one socket runs only so many subscriptions', async () => {
  const { tenancy } = api;
  const running = await tenancy.run(owner, { tenant: 'demo', permission: 'app.restart' }, (tx) =>
    tx.deployments.restart('hello'),
  );
  const { send, heard } = await rawSocket();
  send({
    type: 'connection_init',
    payload: { authorization: `Bearer ${await api.sessionOf(owner)}` },
  });
  await eventually('the socket is acknowledged', () =>
    heard.some(({ type }) => type === 'connection_ack'),
  );
  const subscribe = (id: number) =>
    send({
      type: 'subscribe',
      id: String(id),
      payload: { query: progress, variables: { id: running.id } },
    });
  for (let id = 0; id < 20; id += 1) subscribe(id);
  await eventually(
    'all have begun',
    () => new Set(heard.filter(({ type }) => type === 'next').map(({ id }) => id)).size === 20,
  );
  subscribe(20);
  await eventually('the next is refused', () =>
    heard.some(({ type, id }) => type === 'error' && id === '20'),
  );
  for (let id = 0; id < 20; id += 1) send({ type: 'complete', id: String(id) });
  let next = 21;
  await eventually('there is room again', () => {
    subscribe(next++);
    return heard.some(({ type, id }) => type === 'next' && Number(id) > 20);
  });
});

test('a socket ends with the credential that opened it', async () => {
  // A second face of the same API that looks at credentials more often.
  const sockets = new GraphqlSockets({
    addressOf: () => '192.0.2.1',
    path: '/graphql',
    schema: api.app.get(GraphQLSchemaHost).schema,
    messageLimit: 65_536,
    log: makeLogger('silent'),
    metrics: new Metrics(),
    identify: (authorization) => api.app.get(Authenticator).identify(authorization),
    now: api.tenancy.now,
    makeContext: (identity, from, id, again) =>
      new RequestContext(api.tenancy, identity, 'socket', from, id, makeLogger('silent'), again),
    limits: { recheckMs: 50 },
  });
  const http = createServer().listen(0, '127.0.0.1');
  await once(http, 'listening');
  sockets.attach(http);
  open.push({ dispose: () => sockets.close().then(() => http.close()) });
  const { port } = http.address() as AddressInfo;

  const leaver = await makeTenant(api.tenancy, 'leaver');
  const { socket, heard, closed, send } = await rawSocket(
    'graphql-transport-ws',
    `ws://127.0.0.1:${port}/graphql`,
  );
  send({
    type: 'connection_init',
    payload: { authorization: `Bearer ${await api.sessionOf(leaver)}` },
  });
  await eventually('the socket is acknowledged', () => heard.length > 0);
  expect(socket.readyState).toBe(WebSocket.OPEN);
  await api.tenancy.signOutEverywhere(leaver);
  expect(await closed).toBe(4401);
});

test('a socket ends at once when its credential is ended, without waiting for the next look', async () => {
  const person = await makeTenant(api.tenancy, 'at-once');
  const made = await api.tenancy.run(
    person,
    { tenant: 'at-once', permission: 'token.create' },
    (tx) => tx.tokens.create({ name: 'ci', role: 'viewer' }),
  );
  const opened = async (credential: string) => {
    const { heard, closed, send } = await rawSocket();
    send({ type: 'connection_init', payload: { authorization: `Bearer ${credential}` } });
    await eventually('the socket is acknowledged', () => heard.length > 0);
    return { closed };
  };
  const bySession = await opened(await api.sessionOf(person));
  const byToken = await opened(made.secret);
  await api.tenancy.run(person, { tenant: 'at-once', permission: 'token.revoke' }, (tx) =>
    tx.tokens.revoke({ id: made.token.id }),
  );
  expect(await byToken.closed).toBe(4401);
  await api.tenancy.signOutEverywhere(person);
  expect(await bySession.closed).toBe(4401);
}, 5000);
