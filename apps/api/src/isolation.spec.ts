/**
 * Every operation, tried with the identity of another tenant's owner, of nobody, and of an API token
 * of the other tenant: each must be refused and change nothing. The list of operations comes from
 * the schema, so a new one without a line here fails.
 */
import { GraphQLSchemaHost } from '@nestjs/graphql';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createClient, type Client } from 'graphql-ws';
import { WebSocket } from 'ws';
import type { Caller } from '@bulkhead/tenancy';
import { makeImage, makeMember, makeNode, makeTenant } from '@bulkhead/tenancy/testing';
import { placeInstance } from './testing/instances.ts';
import { startTestApi, type TestApi } from './testing/test-api.ts';

let api: TestApi;
let victim: Caller;
let attacker: Caller;
let attackersToken: string;
let known: { deployment: string; token: string; instance: string };

beforeAll(async () => {
  api = await startTestApi();
  const { tenancy } = api;
  victim = await makeTenant(tenancy, 'demo');
  attacker = await makeTenant(tenancy, 'other');
  const { node } = await makeNode(tenancy, 'n1');
  const made = await tenancy.run(
    victim,
    { tenant: 'demo', permission: 'app.deploy' },
    async (tx) => {
      await tx.apps.create({ name: 'hello' });
      await tx.config.set({ app: 'hello', vars: [{ name: 'SECRET', value: 'of the victim' }] });
      const { token } = await tx.tokens.create({ name: 'ci', role: 'developer' });
      const { id } = await tx.deployments.deploy({ app: 'hello', image: makeImage() });
      return { deployment: id, token: token.id };
    },
  );
  known = { ...made, instance: 'ivictimvictim' };
  await tenancy.platform((tx) =>
    placeInstance(tx, { deployment: known.deployment, node: node.id, id: known.instance }),
  );
  attackersToken = await tenancy.run(
    attacker,
    { tenant: 'other', permission: 'token.create' },
    async (tx) => (await tx.tokens.create({ name: 'x', role: 'owner' })).secret,
  );
});
afterAll(() => api.close());

interface Attack {
  document: string;
  /** What the attacker must get; anything else is a leak. */
  codes: readonly string[];
}

const hidden = ['NOT_FOUND'] as const;
const on = () => `instance: "${known.instance}"`;
const operators = ['FORBIDDEN'] as const;
const onApp = (mutation: string, fields: string, codes: readonly string[] = hidden): Attack => ({
  document: `mutation { ${mutation}(input: { tenant: "demo", ${fields} }) { __typename } }`,
  codes,
});
const onNode = (mutation: string, fields = ''): Attack => ({
  document: `mutation { ${mutation}(input: { node: "n1"${fields} }) { __typename } }`,
  codes: operators,
});
const onAppFlag = (mutation: string, fields: string): Attack => ({
  document: `mutation { ${mutation}(input: { tenant: "demo", ${fields} }) }`,
  codes: hidden,
});

/** How each operation is turned against the tenant `demo`. */
const attacks = (): Record<string, Attack> => ({
  'Query.tenant': { document: '{ tenant(slug: "demo") { id } }', codes: hidden },
  'Query.app': { document: '{ app(tenant: "demo", name: "hello") { id } }', codes: hidden },
  'Query.deployment': {
    document: `{ deployment(id: "${known.deployment}") { id } }`,
    codes: hidden,
  },
  'Query.logPage': {
    document: '{ logPage(tenant: "demo", app: "hello") { end } }',
    codes: hidden,
  },
  'Query.logs': { document: '{ logs(tenant: "demo", app: "hello") { text } }', codes: hidden },
  'Query.instanceChanges': {
    document: `{ instanceChanges(tenant: "demo", app: "hello", instance: "${known.instance}") { truncated } }`,
    codes: hidden,
  },
  'Query.usage': { document: '{ usage(tenant: "demo", app: "hello") { pids } }', codes: hidden },
  'Subscription.usage': {
    document: 'subscription { usage(tenant: "demo", app: "hello") { pids } }',
    codes: hidden,
  },
  'Mutation.exec': onApp('exec', `app: "hello", ${on()}, command: ["sh"]`),
  'Mutation.copyFromInstance': onApp('copyFromInstance', `app: "hello", ${on()}, path: "/"`),
  'Mutation.copyToInstance': onApp('copyToInstance', `app: "hello", ${on()}, path: "/"`),
  'Mutation.forwardPort': onApp('forwardPort', `app: "hello", ${on()}, port: 80`),
  'Mutation.runTask': onApp('runTask', 'app: "hello", command: ["sh"]'),
  'Mutation.attachTask': onApp('attachTask', `app: "hello", ${on()}`),
  'Mutation.stopTask': onApp('stopTask', `app: "hello", ${on()}`),
  'Query.nodes': { document: '{ nodes { totalCount } }', codes: operators },
  'Query.node': { document: '{ node(name: "n1") { id } }', codes: operators },
  'Query.drainPlan': { document: '{ drainPlan(node: "n1") { to } }', codes: operators },
  'Query.resyncWaiting': { document: '{ resyncWaiting(until: "1") }', codes: operators },
  'Mutation.resync': { document: 'mutation { resync { until } }', codes: operators },
  'Query.tenants': { document: '{ tenants { totalCount } }', codes: operators },
  'Mutation.addMember': onApp('addMember', `email: "${attacker.email}", role: OWNER`),
  'Mutation.setMemberRole': onApp('setMemberRole', `email: "${victim.email}", role: VIEWER`),
  'Mutation.removeMember': onAppFlag('removeMember', `email: "${victim.email}"`),
  'Mutation.createApiToken': onApp('createApiToken', 'name: "x", role: VIEWER'),
  'Mutation.revokeApiToken': onAppFlag('revokeApiToken', `id: "${known.token}"`),
  'Mutation.createApp': onApp('createApp', 'name: "intruder"'),
  'Mutation.destroyApp': onApp('destroyApp', 'app: "hello"'),
  'Mutation.setConfig': onApp('setConfig', 'app: "hello", vars: [{ name: "A", value: "b" }]'),
  'Mutation.promote': onApp('promote', 'app: "hello"'),
  'Mutation.abort': onApp('abort', 'app: "hello"'),
  'Mutation.deploy': onApp('deploy', 'app: "hello", image: "hello:1"'),
  'Mutation.scale': onApp('scale', 'app: "hello", formation: [{ process: "web", count: 0 }]'),
  'Mutation.resize': onApp('resize', 'app: "hello", process: "web", memoryMiB: 64'),
  'Mutation.restart': onApp('restart', 'app: "hello"'),
  'Mutation.rollback': onApp('rollback', 'app: "hello"'),
  'Mutation.stopApp': onApp('stopApp', 'app: "hello"'),
  'Mutation.startApp': onApp('startApp', 'app: "hello"'),
  'Mutation.pauseApp': onApp('pauseApp', 'app: "hello"'),
  'Mutation.resumeApp': onApp('resumeApp', 'app: "hello"'),
  ...Object.fromEntries(
    ['pauseInstance', 'resumeInstance', 'restartInstance', 'deleteInstance'].map((mutation) => [
      `Mutation.${mutation}`,
      onApp(mutation, `app: "hello", instance: "${known.instance}"`),
    ]),
  ),
  'Mutation.setQuota': onApp('setQuota', 'resource: "apps", limit: 0', operators),
  'Mutation.cordonNode': onNode('cordonNode'),
  'Mutation.uncordonNode': onNode('uncordonNode'),
  'Mutation.drainNode': onNode('drainNode'),
  'Mutation.cancelDrain': onNode('cancelDrain'),
  'Mutation.labelNode': onNode('labelNode', ', labels: []'),
  'Mutation.moveNode': onNode('moveNode', ', pool: "default"'),
  'Query.pools': { document: '{ pools { name } }', codes: operators },
  'Mutation.setPool': {
    document: 'mutation { setPool(input: { name: "default" }) { name } }',
    codes: operators,
  },
  'Query.joinTokens': { document: '{ joinTokens { id } }', codes: operators },
  'Mutation.createJoinToken': {
    document: 'mutation { createJoinToken(input: {}) { secret } }',
    codes: operators,
  },
  'Mutation.revokeJoinToken': {
    document: `mutation { revokeJoinToken(input: { id: "${known.deployment}" }) }`,
    codes: operators,
  },
  'Mutation.removeNode': {
    document: 'mutation { removeNode(input: { node: "n1", force: true }) }',
    codes: operators,
  },
  'Subscription.deploymentProgress': {
    document: `subscription { deploymentProgress(id: "${known.deployment}") { id } }`,
    codes: hidden,
  },
  'Subscription.logs': {
    document: 'subscription { logs(tenant: "demo", app: "hello") { text } }',
    codes: hidden,
  },
});

/** These name no tenant: there is nothing of somebody else's to ask them for. */
const ofOneself = [
  'Query.me',
  'Mutation.signUp',
  'Mutation.signIn',
  'Mutation.signOutEverywhere',
  'Mutation.createTenant',
];

function operations(): string[] {
  const schema = api.app.get(GraphQLSchemaHost).schema;
  return [schema.getQueryType(), schema.getMutationType(), schema.getSubscriptionType()].flatMap(
    (root) => Object.keys(root?.getFields() ?? {}).map((field) => `${root?.name}.${field}`),
  );
}

/** Everything of the tenant, past row-level security, but for when a token was last used. */
async function everything(): Promise<string> {
  const database = new pg.Client({ connectionString: api.db.adminUrl });
  await database.connect();
  const tables = await database.query<{ name: string }>(
    "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%' ORDER BY 1",
  );
  const contents: unknown[] = [];
  for (const { name } of tables.rows) {
    const { rows } = await database.query<{ row: Record<string, unknown> }>(
      `SELECT to_jsonb(t) - 'lastUsedAt' AS row FROM "${name}" t ORDER BY 1`,
    );
    // What counts failed sign-ins is no tenant's.
    if (!/attempt/i.test(name)) contents.push([name, rows.map(({ row }) => row)]);
  }
  await database.end();
  return JSON.stringify(contents);
}

/** Codes of the errors, whatever way the operation travels; empty when it succeeded. */
async function codesOf(document: string, token: string | undefined): Promise<string[]> {
  if (!document.startsWith('subscription')) {
    const { body } = await api.graphql(document, {}, token);
    return (body.errors ?? []).map((error) => String(error.extensions['code']));
  }
  return overSocket(document, token);
}

async function overSocket(document: string, token: string | undefined): Promise<string[]> {
  const client: Client = createClient({
    url: `${api.url.replace('http', 'ws')}/graphql`,
    webSocketImpl: WebSocket,
    retryAttempts: 0,
    connectionParams: token === undefined ? {} : { authorization: `Bearer ${token}` },
  });
  const codes: string[] = [];
  await new Promise<void>((resolve) => {
    client.subscribe(
      { query: document },
      {
        next: ({ errors }) => {
          for (const error of errors ?? []) codes.push(String(error.extensions?.['code']));
        },
        error: (error) => {
          codes.push(JSON.stringify(error));
          resolve();
        },
        complete: () => resolve(),
      },
    );
  });
  await client.dispose();
  return codes;
}

test('no operation is untried', () => {
  const tried = [...Object.keys(attacks()), ...ofOneself].sort();
  expect(operations().sort()).toEqual(tried);
});

/** Who attacks, with what, and the one code that they get whatever they try. */
const attackers: [string, () => Promise<string | undefined>, string | null][] = [
  ['the owner of another tenant', () => api.sessionOf(attacker), null],
  ['an API token of another tenant', () => Promise.resolve(attackersToken), null],
  ['nobody', () => Promise.resolve(undefined), 'UNAUTHENTICATED'],
];

describe.each(attackers)('as %s', (_who, credential, only) => {
  test('everything is refused and nothing changes, over HTTP', async () => {
    const before = await everything();
    const token = await credential();
    const got: Record<string, string[]> = {};
    const expected: Record<string, string[]> = {};
    for (const [name, { document, codes }] of Object.entries(attacks())) {
      got[name] = await codesOf(document, token);
      expected[name] = [only ?? codes[0] ?? ''];
    }
    expect(got).toEqual(expected);
    expect(await everything()).toBe(before);
  });

  test('everything is refused over a socket too', async () => {
    const before = await everything();
    const token = await credential();
    for (const [name, { document, codes }] of Object.entries(attacks())) {
      expect(await overSocket(document, token), name).toEqual([only ?? codes[0]]);
    }
    expect(await everything()).toBe(before);
  });
});

describe('fields below an operation', () => {
  test('what a role lacks is refused field by field, with the rest still there', async () => {
    const viewer = await makeMember(api.tenancy, victim, 'demo', 'viewer');
    const { body } = await api.graphql(
      '{ app(tenant: "demo", name: "hello") { name processes { name } currentRelease { configNames } instances { nodes { id node } } } }',
      {},
      viewer,
    );
    expect(body).toMatchObject({
      data: { app: { name: 'hello', currentRelease: { configNames: ['SECRET'] } } },
    });
    for (const field of [
      'tenant(slug: "demo") { tokens { totalCount } }',
      'tenant(slug: "demo") { auditLog { totalCount } }',
      'app(tenant: "demo", name: "hello") { config { value } }',
    ]) {
      const refused = await api.graphql(`{ ${field} }`, {}, viewer);
      expect(refused.body.errors?.[0]?.extensions['code'], field).toBe('FORBIDDEN');
      expect(JSON.stringify(refused.body)).not.toContain('of the victim');
    }
  });

  test('an API token never acts above its role or outside its tenant', async () => {
    const secret = await api.tenancy.run(
      victim,
      { tenant: 'demo', permission: 'token.create' },
      async (tx) => (await tx.tokens.create({ name: 'reader', role: 'viewer' })).secret,
    );
    const { body } = await api.graphql(
      '{ me { via operator memberships { role tenant { slug } } } }',
      {},
      secret,
    );
    expect(body.data).toEqual({
      me: {
        via: 'TOKEN',
        operator: false,
        memberships: [{ role: 'VIEWER', tenant: { slug: 'demo' } }],
      },
    });
    const stop = 'mutation { stopApp(input: { tenant: "demo", app: "hello" }) { id } }';
    expect(await codesOf(stop, secret)).toEqual(['FORBIDDEN']);
    expect(
      await codesOf('mutation { createTenant(input: { slug: "mine" }) { id } }', secret),
    ).toEqual(['FORBIDDEN']);
    expect(await codesOf('mutation { signOutEverywhere }', secret)).toEqual(['FORBIDDEN']);
  });
});
