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

/** A few milliseconds between two lines, none of them late. */
let clock = Date.now() - 60_000;
/** Publishes as an agent does. */
async function write(
  text: string | string[],
  how: { instance?: string; node?: string; process?: string; dropped?: number } = {},
) {
  const instance = how.instance ?? web;
  const lines = [text].flat().map((line) => ({
    at: new Date((clock += 7)).toISOString(),
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
  'query ($process: String, $instance: String, $since: DateTime, $until: DateTime, $tail: Int) { logs(tenant: "demo", app: "hello", process: $process, instance: $instance, since: $since, until: $until, tail: $tail) { text process instance stream at } }';
const followQuery = query
  .replace('query (', 'subscription ($after: String, ')
  .replace('tail: $tail', 'tail: $tail, after: $after');
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
    { query: followQuery, variables: { ...variables } },
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

test('what was dropped is said once: by the agent, in a line of its own', async () => {
  await write('after a flood', { dropped: 12 });
  expect(await read({ tail: 2 })).toEqual(['honest', 'after a flood']);
});

const pageQuery = `query ($process: String, $since: DateTime, $until: DateTime, $first: Int, $last: Int, $after: String) {
  logPage(tenant: "demo", app: "hello", process: $process, since: $since, until: $until, first: $first, last: $last, after: $after) {
    end more lines { text at cursor } } }`;
interface Page {
  lines: { text: string; at: string; cursor: string }[];
  end: string;
  more: boolean;
}
async function page(variables: object = {}, as: Caller = owner): Promise<Page> {
  const { body } = await api.graphql(pageQuery, variables, as);
  if (body.errors) throw new Error(String(body.errors[0]?.extensions['code']));
  return body.data?.['logPage'] as unknown as Page;
}

test('every kept line can be read, page by page, whatever the size of the pages', async () => {
  const whole = await page();
  expect(whole.more).toBe(false);
  expect(whole.lines).toHaveLength(67);
  expect(whole.lines.map(({ cursor }) => cursor).toSorted()).toEqual(
    whole.lines.map(({ cursor }) => cursor),
  );
  for (const first of [1, 2, 66, 67]) {
    const texts: string[] = [];
    for (let at: Page | null = null; at === null || at.more;) {
      at = await page({ first, after: at?.end });
      expect(at.lines.length).toBeLessThanOrEqual(first);
      texts.push(...at.lines.map(({ text }) => text));
    }
    expect(texts).toEqual(whole.lines.map(({ text }) => text));
  }
  const { lines } = await page({ after: whole.lines[1]?.cursor, first: 2, process: 'web' });
  expect(lines.map(({ text }) => text)).toEqual(['web 1a', 'web 1b']);
  expect((await page({ after: whole.end })).lines).toEqual([]);
  await expect(page({ after: 'i made it up' })).rejects.toThrow('INVALID');
  await expect(page({ first: 1001 })).rejects.toThrow('INVALID');
});

test('lines that are newer than `until` are left out, wherever they lie', async () => {
  const { lines } = await page();
  const at = (text: string) => lines.find((line) => line.text === text)?.at;
  const [from, to] = [at('web 10b'), at('web 12a')];
  const between = ['web 10b', 'web 11a', 'web 11b', 'web 12a'];
  expect((await page({ since: from, until: to })).lines.map(({ text }) => text)).toEqual(between);
  expect(await read({ since: from, until: to })).toEqual(between);
  expect(await read({ until: to, tail: 2 })).toEqual(between.slice(-2));
  // Nothing was there yet, so there is no border to be found in the stream.
  expect(await read({ until: new Date(Date.UTC(2020, 0)).toISOString() })).toEqual([]);
  const later = new Date(Date.now() + 3_600_000).toISOString();
  expect(await read({ until: later, tail: 1 })).toEqual(['after a flood']);
});

test('the last lines come with the place behind all that there is', async () => {
  const none = await page({ last: 0, process: 'worker' });
  expect(none).toMatchObject({ lines: [], more: false });
  await write('since then', { instance: worker, process: 'worker' });
  const some = await page({ after: none.end });
  expect(some.lines.map(({ text }) => text)).toEqual(['since then']);
  const last = await page({ last: 2 });
  expect(last.lines.map(({ text }) => text)).toEqual(['after a flood', 'since then']);
  expect((await page({ after: last.end })).lines).toEqual([]);
});

test('a follower goes on after a line that it names', async () => {
  const { lines } = await page();
  const after = lines.find(({ text }) => text === 'worker 3')?.cursor;
  const { heard, end } = await follow({ after, tail: 100 });
  await eventually('what it had not read', () => heard.length === 4);
  expect(heard).toEqual(['worker 4', 'honest', 'after a flood', 'since then']);
  await end();
});

test('followers get history, then what is new, each line once', async () => {
  const { heard, end } = await follow({ tail: 1 });
  await eventually('history', () => heard.length === 1);
  await write('live 1');
  await write('live other', { instance: worker, process: 'worker' });
  await write(['live 2', 'live 3']);
  await eventually('live lines', () => heard.length >= 5);
  expect(heard).toEqual(['since then', 'live 1', 'live other', 'live 2', 'live 3']);
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
