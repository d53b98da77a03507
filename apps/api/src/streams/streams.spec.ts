/**
 * Streams through the API with real gRPC under mutual TLS, NATS and PostgreSQL. The node is one of
 * the test's own: it dials as an agent does and says what the test wants.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { connect, type NatsConnection } from 'nats';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import {
  apiServerName,
  channels,
  streamProtocol,
  subjects,
  type DialRequest,
  type OpenStream,
} from '@bulkhead/protocol';
import { issueCertificate, makeAuthority, type Credential } from '@bulkhead/protocol/certificates';
import { RelayClient, type FromNode, type ToNode } from '@bulkhead/protocol/relay';
import type { Caller } from '@bulkhead/tenancy';
import {
  makeImage,
  makeMember,
  makeNode,
  makeTenant,
  placeInstance,
} from '@bulkhead/tenancy/testing';
import { eventually } from '../testing/eventually.ts';
import { startTestApi, type TestApi } from '../testing/test-api.ts';
import { Relay } from './relay.ts';

type Call = ReturnType<RelayClient['carry']>;

let api: TestApi;
let owner: Caller;
let nodeId: string;
let authority: Credential;
let tlsDir: string;
let nats: NatsConnection;
let instance: string;
const now = new Date();

beforeAll(async () => {
  authority = await makeAuthority(now, 10);
  tlsDir = await mkdtemp(join(tmpdir(), 'bulkhead-tls-'));
  const own = await issueCertificate(authority, { kind: 'api' }, now, 10);
  await writeFile(join(tlsDir, 'ca.pem'), authority.cert);
  await writeFile(join(tlsDir, 'cert.pem'), own.cert);
  await writeFile(join(tlsDir, 'key.pem'), own.key, { mode: 0o600 });
  api = await startTestApi({
    streams: { host: '127.0.0.1', port: 0, tlsDir, advertise: null, publicUrl: null },
  });
  owner = await makeTenant(api.tenancy, 'demo');
  await makeTenant(api.tenancy, 'other');
  ({
    node: { id: nodeId },
  } = await makeNode(api.tenancy, 'n1'));
  const appId = await api.tenancy.run(
    owner,
    { tenant: 'demo', permission: 'app.deploy' },
    async (tx) => {
      const { id } = await tx.apps.create({ name: 'hello' });
      await tx.deployments.deploy({ app: 'hello', image: makeImage() });
      return id;
    },
  );
  instance = await api.tenancy.platform((tx) => placeInstance(tx, { appId, nodeId }));
  nats = await connect({ servers: api.nats.url });
});
afterAll(async () => {
  await nats?.close();
  await api?.close();
  await rm(tlsDir, { recursive: true });
});

/** A node that answers the next asking; `as` is who its certificate says it is. */
async function answer(
  work: (open: OpenStream, call: Call, next: () => Promise<ToNode | null>) => Promise<void>,
  as: { node?: string; authority?: Credential } = {},
): Promise<void> {
  const subscription = nats.subscribe(subjects.dial(nodeId), { max: 1 });
  const cert = await issueCertificate(
    as.authority ?? authority,
    { kind: 'node', node: as.node ?? nodeId },
    now,
    10,
  );
  await nats.flush();
  void (async () => {
    for await (const message of subscription) {
      const { stream, address } = message.json<DialRequest>();
      const client = new RelayClient(
        address,
        credentials.createSsl(
          Buffer.from(authority.cert),
          Buffer.from(cert.key),
          Buffer.from(cert.cert),
        ),
        { 'grpc.ssl_target_name_override': apiServerName },
      );
      const call = client.carry();
      call.on('error', () => undefined);
      call.on('close', () => client.close());
      const frames = call[Symbol.asyncIterator]() as AsyncIterator<ToNode>;
      const next = () =>
        frames.next().then(
          ({ value, done }) => (done ? null : (value as ToNode)),
          () => null,
        );
      call.write({ hello: { stream } });
      const first = await next();
      if (first?.open === undefined) continue;
      await work(JSON.parse(first.open) as OpenStream, call, next);
    }
  })();
}

const ask = async (mutation: string, fields: string, as: Caller = owner) =>
  (await api.graphql(
    `mutation { ${mutation}(input: { tenant: "demo", app: "hello", ${fields} }) { ticket instance url } }`,
    {},
    as,
  )) as unknown as {
    body: {
      data?: Record<string, { ticket: string; instance: string }>;
      errors?: { message: string; extensions: { code: string } }[];
    };
  };
const ticketFor = async (fields = 'command: ["sh", "-c", "secret word"], stdin: true') => {
  const { body } = await ask('exec', fields);
  const ticket = body.data?.['exec']?.ticket;
  if (!ticket) throw new Error(JSON.stringify(body.errors));
  return ticket;
};

interface Heard {
  out: string;
  err: string;
  controls: { kind: string; code?: number | string; message?: string }[];
  closed: { code: number; reason: string } | null;
}

async function open(ticket: string) {
  const socket = new WebSocket(`${api.url.replace('http', 'ws')}/streams`, streamProtocol);
  const heard: Heard = { out: '', err: '', controls: [], closed: null };
  socket.on('message', (data: Buffer) => {
    const rest = data.subarray(1).toString();
    if (data[0] === channels.data) heard.out += rest;
    if (data[0] === channels.errorData) heard.err += rest;
    if (data[0] === channels.control) heard.controls.push(JSON.parse(rest) as never);
  });
  socket.on('close', (code, reason) => (heard.closed = { code, reason: String(reason) }));
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('open', resolve));
  socket.send(JSON.stringify({ ticket }));
  const send = (channel: number, text: string) =>
    socket.send(Buffer.concat([Buffer.of(channel), Buffer.from(text)]));
  const closed = () => eventually('the socket is closed', () => heard.closed);
  return { socket, heard, send, closed };
}
const write = (call: Call, ...frames: FromNode[]) => {
  for (const frame of frames) call.write(frame);
};

describe('a stream', () => {
  test('passes what to do, both directions and the end', async () => {
    let told: OpenStream | null = null;
    await answer(async (what, call, next) => {
      told = what;
      write(call, { started: {} });
      const data = await next();
      const resize = await next();
      const end = await next();
      write(
        call,
        { data: Buffer.from(`got ${data?.data?.toString()} ${resize?.resize?.columns}`) },
        { errorData: Buffer.from(end?.end ? 'and the end' : 'no end') },
        { exit: { code: 7 } },
      );
      call.end();
    });
    const { send, heard, closed } = await open(await ticketFor());
    send(channels.data, 'hello');
    send(channels.control, '{"kind":"resize","size":{"columns":99,"rows":9}}');
    send(channels.control, '{"kind":"end"}');
    await closed();
    expect(told).toEqual({
      ...{ kind: 'exec', instance, command: ['sh', '-c', 'secret word'] },
      ...{ stdin: true, terminal: null },
    });
    expect(heard).toMatchObject({
      out: 'got hello 99',
      err: 'and the end',
      controls: [{ kind: 'started' }, { kind: 'exit', code: 7 }],
      closed: { code: 1000 },
    });
  });

  test('is in the audit log, without the arguments', async () => {
    await ticketFor();
    const { body } = await api.graphql(
      '{ tenant(slug: "demo") { auditLog(first: 1) { nodes { action target detail } } } }',
      {},
      owner,
    );
    const text = JSON.stringify(body);
    expect(text).toContain('instance.exec');
    expect(text).toContain(`hello/${instance}`);
    expect(text).not.toContain('secret word');
  });

  test('whose node never comes fails, and says what to do', async () => {
    const { heard, closed } = await open(await ticketFor());
    await eventually('it gives up', () => heard.controls.length > 0, 15_000);
    await closed();
    expect(heard.controls[0]).toMatchObject({
      kind: 'failure',
      code: 'UNAVAILABLE',
      message: 'The node of this instance does not answer; try again',
    });
  }, 20_000);

  test('whose node is lost midway fails', async () => {
    await answer(async (_what, call) => {
      write(call, { started: {} });
      await new Promise((resolve) => setTimeout(resolve, 50));
      call.cancel();
    });
    const { heard, closed } = await open(await ticketFor());
    await closed();
    expect(heard.controls.at(-1)).toMatchObject({ kind: 'failure', code: 'UNAVAILABLE' });
  });

  test('is ended at the node when the client goes', async () => {
    let ended = false;
    await answer(async (_what, call, next) => {
      write(call, { started: {} });
      while ((await next()) !== null);
      ended = true;
    });
    const { socket, heard } = await open(await ticketFor());
    await eventually('it has started', () => heard.controls.length > 0);
    socket.terminate();
    await eventually('the node is told', () => ended);
  });

  test('holds the node up when the client does not read', async () => {
    let sent = 0;
    let stuck = false;
    await answer(async (_what, call) => {
      const block = Buffer.alloc(64 * 1024);
      write(call, { started: {} });
      while (!call.destroyed && sent < 200 * 1024 * 1024) {
        sent += block.length;
        if (call.write({ data: block })) continue;
        stuck = true;
        await Promise.race([
          new Promise((resolve) => call.once('drain', resolve)),
          new Promise((resolve) => call.once('close', resolve)),
        ]);
      }
    });
    const { socket } = await open(await ticketFor());
    socket.pause();
    await eventually('the node waits', () => stuck);
    let before = -1;
    await eventually('nothing more is taken', async () => {
      const same = before === sent;
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return same;
    });
    expect(sent).toBeLessThan(50 * 1024 * 1024);
    socket.terminate();
  });
});

describe('nobody else gets it:', () => {
  test('a ticket is good once', async () => {
    const ticket = await ticketFor();
    await answer(async (_what, call) => write(call, { exit: { code: 0 } }));
    await (await open(ticket)).closed();
    const again = await open(ticket);
    expect(await again.closed()).toMatchObject({ code: 4401 });
    const made = await open('x'.repeat(43));
    expect(await made.closed()).toMatchObject({ code: 4401 });
  });

  test('another node, or one of another authority, is refused', async () => {
    for (const as of [{ node: 'nbbbbbbbbbbbb' }, { authority: await makeAuthority(now, 10) }]) {
      let served = false;
      await answer(async () => {
        served = true;
      }, as);
      const { socket } = await open(await ticketFor());
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(served).toBe(false);
      socket.terminate();
    }
  });

  test('a viewer may not, and who is no longer a member is cut off', async () => {
    const viewer = await makeMember(api.tenancy, owner, 'demo', 'viewer');
    const { body } = await ask('exec', 'command: ["sh"]', viewer);
    expect(body.errors?.[0]?.extensions.code).toBe('FORBIDDEN');
    const developer = await makeMember(api.tenancy, owner, 'demo', 'developer');
    const asked = await ask('exec', 'command: ["sh"]', developer);
    await answer(async (_what, call, next) => {
      write(call, { started: {} });
      while ((await next()) !== null);
    });
    const { heard, closed } = await open(asked.body.data?.['exec']?.ticket ?? '');
    await eventually('it has started', () => heard.controls.length > 0);
    await api.tenancy.run(owner, { tenant: 'demo', permission: 'member.remove' }, (tx) =>
      tx.members.remove({ email: developer.email }),
    );
    expect(await closed()).toMatchObject({ code: 4401 });
  });

  test('a ticket of somebody who lost the right since does not reach the node', async () => {
    const developer = await makeMember(api.tenancy, owner, 'demo', 'developer');
    const asked = await ask('exec', 'command: ["sh"]', developer);
    await api.tenancy.run(owner, { tenant: 'demo', permission: 'member.remove' }, (tx) =>
      tx.members.remove({ email: developer.email }),
    );
    const dials = nats.subscribe(subjects.dial(nodeId));
    await nats.flush();
    const { closed } = await open(asked.body.data?.['exec']?.ticket ?? '');
    expect(await closed()).toMatchObject({ code: 4401 });
    // Behind whatever the API may have published until now.
    await api.graphql('{ __typename }', {}, owner);
    await nats.flush();
    expect(dials.getReceived()).toBe(0);
    dials.unsubscribe();
  });

  test('who lost the right is cut off at the node though its socket ignores the close', async () => {
    const developer = await makeMember(api.tenancy, owner, 'demo', 'developer');
    const asked = await ask('exec', 'command: ["sh"], stdin: true', developer);
    let ended = false;
    await answer(async (_what, call, next) => {
      write(call, { started: {} });
      while ((await next()) !== null);
      ended = true;
    });
    const { socket, heard } = await open(asked.body.data?.['exec']?.ticket ?? '');
    await eventually('it has started', () => heard.controls.length > 0);
    // A client that reads nothing never answers the closing of its socket.
    socket.pause();
    await api.tenancy.run(owner, { tenant: 'demo', permission: 'member.remove' }, (tx) =>
      tx.members.remove({ email: developer.email }),
    );
    await eventually('the node is told', () => ended);
    socket.terminate();
  });

  test('what cannot be asked for is INVALID, and what does not run a CONFLICT', async () => {
    for (const [mutation, fields, code] of [
      ['copyFromInstance', 'path: "relative"', 'INVALID'],
      ['forwardPort', 'port: 70000', 'INVALID'],
      ['exec', 'command: []', 'INVALID'],
      ['exec', 'command: ["sh"], instance: "izzzzzzzzzzzz"', 'NOT_FOUND'],
      ['exec', 'command: ["sh"], process: "worker"', 'NOT_FOUND'],
    ] as const) {
      const { body } = await ask(mutation, fields);
      expect(body.errors?.[0]?.extensions.code).toBe(code);
    }
  });
});

test('a client that was gone before the node was asked leaves nothing open', async () => {
  await expect(
    api.app.get(Relay).open(nodeId, { kind: 'changes', instance }, AbortSignal.abort()),
  ).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});

test('a forwarded port has a socket for each connection', async () => {
  const { body } = await ask('forwardPort', 'port: 8080');
  const ticket = body.data?.['forwardPort']?.ticket ?? '';
  for (const text of ['one', 'two']) {
    await answer(async (what, call, next) => {
      write(call, { started: {} });
      const { data } = (await next()) ?? {};
      write(call, { data: Buffer.from(`${what.kind} ${data?.toString()}`) }, { end: {} });
      write(call, { exit: {} });
    });
    const { send, heard, closed } = await open(ticket);
    send(channels.data, text);
    await closed();
    expect(heard.out).toBe(`forward ${text}`);
  }
});

test('changed files and use come as answers', async () => {
  await answer(async (_what, call) => {
    write(
      call,
      { value: '{"change":"added","kind":"file","path":"/a"}' },
      { value: '{"change":"deleted","kind":"directory","path":"/b"}' },
      { exit: {} },
    );
  });
  const query = `{ instanceChanges(tenant: "demo", app: "hello", instance: "${instance}") {
    truncated changes { change kind path } } }`;
  expect((await api.graphql(query, {}, owner)).body.data).toEqual({
    instanceChanges: {
      truncated: false,
      changes: [
        { change: 'ADDED', kind: 'FILE', path: '/a' },
        { change: 'DELETED', kind: 'DIRECTORY', path: '/b' },
      ],
    },
  });
  const value = (of: string, cpuMillis: number | null) => ({
    value: JSON.stringify({
      ...{ instance: of, at: now.toISOString(), cpuMillis, cpuCapMillis: 1000, throttled: 0 },
      ...{ memoryBytes: 1, memoryLimitBytes: 2, pids: 3, pidsLimit: 4, diskBytes: null },
      ...{ readBytesPerSecond: 0, writtenBytesPerSecond: 0, receivedBytesPerSecond: 0 },
      ...{ sentBytesPerSecond: 0, diskLimitBytes: null },
    }),
  });
  await answer(async (_what, call) => {
    // A node speaks only for what it was asked of.
    write(call, value(instance, null), value('izzzzzzzzzzzz', 1), value(instance, 125.5));
  });
  const usage = await api.graphql(
    '{ usage(tenant: "demo", app: "hello") { instance process cpuMillis pids } }',
    {},
    owner,
  );
  expect(usage.body.data).toEqual({
    usage: [{ instance, process: 'web', cpuMillis: 125.5, pids: 3 }],
  });
});

test('a task’s socket waits until it runs, and tells the end of one that is over', async () => {
  const run = async () => {
    const { body } = await api.graphql(
      `mutation { runTask(input: { tenant: "demo", app: "hello", command: ["true"] }) {
        instance { id oneOff } stream { ticket } } }`,
      {},
      owner,
    );
    return body.data?.['runTask'] as unknown as {
      instance: { id: string };
      stream: { ticket: string };
    };
  };
  const become = (id: string, data: object) =>
    api.tenancy.platform((tx) => tx.prisma.instance.update({ where: { id }, data }));
  const first = await run();
  let attached = false;
  await answer(async (what, call) => {
    attached = what.kind === 'attach';
    write(call, { started: {} }, { exit: { code: 3 } });
  });
  const waiting = await open(first.stream.ticket);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(attached).toBe(false);
  await become(first.instance.id, { nodeId, state: 'running' });
  await waiting.closed();
  expect(waiting.heard.controls.at(-1)).toEqual({ kind: 'exit', code: 3 });

  const second = await run();
  const lastExit = { reason: 'exited', exitCode: 9, message: 'exited with code 9' };
  await become(second.instance.id, {
    ...{ nodeId, state: 'gone', desired: 'gone', goneAt: new Date(), lastExit },
  });
  const late = await open(second.stream.ticket);
  await late.closed();
  expect(late.heard.controls).toEqual([{ kind: 'exit', code: 9 }]);
});
