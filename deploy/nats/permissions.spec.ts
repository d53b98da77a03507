import { subjects } from '@bulkhead/protocol';
import { jetstream, jetstreamManager, DeliverPolicy, AckPolicy } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { credsAuthenticator, type Msg, type NatsConnection } from 'nats';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { issueNatsCreds, makeNatsSeeds, makeUserSeed } from './identity.ts';
import { apiPermissions, edgePermissions, nodePermissions } from '@bulkhead/protocol/bus-access';
import { PlatformNats } from './testing.ts';

const a = 'naaaaaaaaaaaa';
const b = 'nbbbbbbbbbbbb';

test('an id that would widen a subject is refused', () => {
  for (const id of ['*', '>', 'a.b', '', 'a b', 'x'.repeat(65)]) {
    expect(() => nodePermissions(id)).toThrow('cannot be part');
    expect(() => edgePermissions(id)).toThrow('cannot be part');
  }
});

test('credentials are kept while they grant the same, and made anew when they do not', async () => {
  const seeds = makeNatsSeeds();
  const user = { name: a, seed: makeUserSeed(), permissions: nodePermissions(a) };
  const creds = await issueNatsCreds(seeds, user);
  expect(await issueNatsCreds(seeds, user, creds)).toBe(creds);
  expect(await issueNatsCreds(seeds, { ...user, permissions: edgePermissions(a) }, creds)).not.toBe(
    creds,
  );
  expect(await issueNatsCreds(seeds, { ...user, seed: makeUserSeed() }, creds)).not.toBe(creds);
  expect(await issueNatsCreds(makeNatsSeeds(), user, creds)).not.toBe(creds);
  expect(await issueNatsCreds(seeds, user, 'not credentials')).toContain('NATS USER JWT');
});

describe('on a real server', () => {
  let server: PlatformNats;
  let api: NatsConnection;

  beforeAll(async () => {
    server = await PlatformNats.start();
    api = await server.connectAs('api', apiPermissions());
    const kvm = new Kvm(jetstream(api));
    const desired = await kvm.create('desired');
    await desired.put(subjects.desiredKey(a, 'i1'), 'for a');
    await desired.put(subjects.desiredKey(b, 'i1'), 'for b');
    await (await kvm.create('routes')).put('hello.demo.localhost', 'a route');
    const manager = await jetstreamManager(api);
    await manager.streams.add({ name: 'reports', subjects: ['report.>'] });
  });
  afterAll(() => server.stop());

  /** A raw JetStream request; resolves with the answer or rejects with "permissions violation" or a time-out. */
  async function ask(
    nc: NatsConnection,
    subject: string,
    body: object = {},
  ): Promise<Record<string, unknown>> {
    const answer = await nc.request(subject, JSON.stringify(body), { timeout: 1_500 });
    return answer.json<Record<string, unknown>>();
  }

  /** One message of the node's consumer; it comes under the key's own subject, so not by `request`. */
  async function next(nc: NatsConnection, node: string): Promise<string> {
    const inbox = nc.subscribe(`_INBOX_${node}.next`, { max: 1, timeout: 1_500 });
    nc.publish(`$JS.API.CONSUMER.MSG.NEXT.KV_desired.desired-${node}`, '{"batch":1}', {
      reply: `_INBOX_${node}.next`,
    });
    for await (const message of inbox) return message.string();
    throw new Error('the subscription ended without a message');
  }

  /** The error that the server sends back for a publish outside the allow-list. */
  async function refused(nc: NatsConnection, subject: string): Promise<boolean> {
    const status = nc.status()[Symbol.asyncIterator]();
    nc.publish(subject, 'forged');
    await nc.flush();
    for (;;) {
      const { value } = await status.next();
      if (value?.type === 'error')
        return String(value.error).toLowerCase().includes('permissions violation');
    }
  }

  const consumer = (node: string, filter: string, more: object = {}) => ({
    stream_name: 'KV_desired',
    config: {
      name: `desired-${node}`,
      filter_subject: filter,
      deliver_policy: DeliverPolicy.LastPerSubject,
      ack_policy: AckPolicy.None,
      inactive_threshold: 60_000_000_000,
      mem_storage: true,
      ...more,
    },
    action: '',
  });
  const create = (node: string, filter: string) =>
    `$JS.API.CONSUMER.CREATE.KV_desired.desired-${node}.${filter}`;

  test('a node reads its own keys through its own consumer, and reports', async () => {
    const nc = await server.connectAs(a, nodePermissions(a));
    const own = subjects.desiredOfNode(a);
    const created = await ask(nc, create(a, own), consumer(a, own));
    expect(created).not.toHaveProperty('error');
    expect(await ask(nc, `$JS.API.CONSUMER.INFO.KV_desired.desired-${a}`)).toMatchObject({
      num_pending: 1,
    });

    expect(await next(nc, a)).toBe('for a');
    expect(await ask(nc, subjects.report(a, 'i1'), { v: 1 })).toMatchObject({ stream: 'reports' });
    expect(await ask(nc, `$JS.API.CONSUMER.DELETE.KV_desired.desired-${a}`)).toMatchObject({
      success: true,
    });
  });

  test("a node cannot make, read, replace or end another's consumer", async () => {
    const victim = await server.connectAs(b, nodePermissions(b));
    const theirs = subjects.desiredOfNode(b);
    await ask(victim, create(b, theirs), consumer(b, theirs));

    const attempts: [string, object][] = [
      [create(b, theirs), consumer(b, theirs)],
      [create(b, subjects.desiredOfNode(a)), consumer(b, subjects.desiredOfNode(a))],
      [create(a, theirs), consumer(a, theirs)],
      [create(a, '$KV.desired.>'), consumer(a, '$KV.desired.>')],
      [`$JS.API.CONSUMER.CREATE.KV_desired.desired-${a}`, consumer(a, theirs)],
      [`$JS.API.CONSUMER.CREATE.KV_desired`, consumer(a, theirs)],
      [`$JS.API.CONSUMER.DURABLE.CREATE.KV_desired.desired-${a}`, consumer(a, theirs)],
      [`$JS.API.CONSUMER.INFO.KV_desired.desired-${b}`, {}],
      [`$JS.API.CONSUMER.DELETE.KV_desired.desired-${b}`, {}],
      [`$JS.API.CONSUMER.MSG.NEXT.KV_desired.desired-${b}`, { batch: 1 }],
    ];
    for (const [subject, body] of attempts) {
      const nc = await server.connectAs(a, nodePermissions(a));
      await expect(ask(nc, subject, body), subject).rejects.toThrow(/permissions violation/i);
    }
    expect(await ask(victim, `$JS.API.CONSUMER.INFO.KV_desired.desired-${b}`)).toMatchObject({
      num_pending: 1,
    });
  });

  test('the allowed request with another body gets a node its own consumer or nothing', async () => {
    const own = subjects.desiredOfNode(a);
    const theirs = subjects.desiredOfNode(b);
    const bodies = {
      "another's filter": consumer(a, theirs),
      'no filter': consumer(a, ''),
      'two filters': consumer(a, '', { filter_subjects: [own, theirs] }),
      'a filter and more filters': consumer(a, own, { filter_subjects: [theirs] }),
      "another's name": consumer(b, own),
      "another's durable name": consumer(a, own, { name: undefined, durable_name: `desired-${b}` }),
      'another stream': { ...consumer(a, own), stream_name: 'KV_routes' },
    };
    for (const [what, body] of Object.entries(bodies)) {
      const nc = await server.connectAs(a, nodePermissions(a));
      const answer = await ask(nc, create(a, own), body);
      if ('error' in answer) continue;
      expect(answer, what).toMatchObject({
        name: `desired-${a}`,
        stream_name: 'KV_desired',
        config: { filter_subject: own },
      });
      expect(answer['config'], what).not.toHaveProperty('filter_subjects');
      await ask(nc, `$JS.API.CONSUMER.DELETE.KV_desired.desired-${a}`);
    }
  });

  test('a node cannot see streams, other keys or the account', async () => {
    const subjectsToTry = [
      '$JS.API.INFO',
      '$JS.API.STREAM.INFO.KV_desired',
      '$JS.API.STREAM.NAMES',
      '$JS.API.STREAM.LIST',
      '$JS.API.CONSUMER.NAMES.KV_desired',
      '$JS.API.CONSUMER.LIST.KV_desired',
      '$JS.API.STREAM.MSG.GET.KV_desired',
      `$JS.API.DIRECT.GET.KV_desired.$KV.desired.${b}.i1`,
      '$JS.API.DIRECT.GET.KV_desired',
      '$JS.API.STREAM.CREATE.mine',
      '$JS.API.STREAM.DELETE.KV_desired',
      '$JS.API.STREAM.PURGE.KV_desired',
      '$SYS.REQ.SERVER.PING',
      '$SYS.REQ.USER.INFO',
    ];
    for (const subject of subjectsToTry) {
      const nc = await server.connectAs(a, nodePermissions(a));
      await expect(ask(nc, subject), subject).rejects.toThrow(/permissions violation/i);
    }
  });

  test('a node cannot speak for another, write desired state, or hear what is not its own inbox', async () => {
    const forged = [
      subjects.report(b, 'i1'),
      subjects.heartbeat(b),
      subjects.logs('t', 'app', b, 'i1'),
      `$KV.desired.${b}.i1`,
      `$KV.desired.${a}.i1`,
      '$KV.routes.evil.localhost',
      subjects.nudge,
      subjects.edgeApplied('edge-1'),
      `_INBOX_${b}.x`,
      '_INBOX_api.x',
    ];
    for (const subject of forged) {
      const nc = await server.connectAs(a, nodePermissions(a));
      expect(await refused(nc, subject), subject).toBe(true);
    }
    for (const subject of [
      '>',
      `_INBOX_${b}.>`,
      '_INBOX_*.>',
      'heartbeat.*',
      '$KV.>',
      'report.>',
      `$JS.>`,
    ]) {
      const nc = await server.connectAs(a, nodePermissions(a));
      const error = new Promise<Error | null>((resolve) =>
        nc.subscribe(subject, { callback: (e: Error | null, _: Msg) => resolve(e) }),
      );
      expect(String(await error), subject).toMatch(/permissions violation/i);
    }
  });

  test('an edge reads routes by its own consumer and nothing of the nodes', async () => {
    const nc = await server.connectAs('edge-1', edgePermissions('edge-1'));
    const routes = '$JS.API.CONSUMER.CREATE.KV_routes.routes-edge-1.$KV.routes.>';
    const body = {
      ...consumer(a, '$KV.routes.>', { name: 'routes-edge-1' }),
      stream_name: 'KV_routes',
    };
    expect(await ask(nc, routes, body)).toMatchObject({ num_pending: 1 });
    for (const subject of [
      create(a, subjects.desiredOfNode(a)),
      routes.replace('edge-1', 'edge-2'),
      '$JS.API.STREAM.INFO.KV_routes',
    ])
      await expect(
        ask(await server.connectAs('edge-1', edgePermissions('edge-1')), subject, body),
      ).rejects.toThrow(/permissions violation/i);
  });

  test('nobody comes in without credentials of this platform', async () => {
    await expect(server.connectWith({})).rejects.toThrow(/authorization/i);
    await expect(server.connectWith({ user: 'api', pass: 'api' })).rejects.toThrow(
      /authorization/i,
    );
    const stranger = await issueNatsCreds(makeNatsSeeds(), {
      name: 'api',
      seed: makeUserSeed(),
      permissions: apiPermissions(),
    });
    const authenticator = credsAuthenticator(new TextEncoder().encode(stranger));
    await expect(server.connectWith({ authenticator })).rejects.toThrow(/authorization/i);
  });
});
