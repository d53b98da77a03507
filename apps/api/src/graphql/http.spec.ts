import { serverAudits } from 'graphql-http';
import request from 'supertest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeTenant } from '@bulkhead/tenancy/testing';
import type { Caller } from '@bulkhead/tenancy';
import { startTestApi, type TestApi } from '../testing/test-api.ts';
import { negotiate } from './http.ts';

let api: TestApi;
let owner: Caller;

beforeAll(async () => {
  api = await startTestApi();
  owner = await makeTenant(api.tenancy, 'demo');
});
afterAll(() => api.close());

const http = () => request(api.url);

describe('the GraphQL-over-HTTP specification', () => {
  for (const audit of serverAudits({ url: () => `${api.url}/graphql` })) {
    test(`${audit.id}: ${audit.name}`, async () => {
      const result = await audit.fn();
      expect(result).toMatchObject({ status: 'ok' });
    });
  }
});

describe('ways to ask', () => {
  test('a query by GET with variables', async () => {
    const token = await api.sessionOf(owner);
    const answer = await http().get('/graphql').set('authorization', `Bearer ${token}`).query({
      query: 'query ($slug: String!) { tenant(slug: $slug) { slug } }',
      variables: '{"slug":"demo"}',
    });
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({ data: { tenant: { slug: 'demo' } } });
  });

  test('a mutation by GET is refused with 405 and not done', async () => {
    const token = await api.sessionOf(owner);
    const answer = await http()
      .get('/graphql')
      .set('authorization', `Bearer ${token}`)
      .query({ query: 'mutation { createTenant(input: { slug: "by-get" }) { id } }' });
    expect(answer.status).toBe(405);
    expect(answer.headers['allow']).toBe('POST');
    const { body } = await api.graphql('{ me { memberships { tenant { slug } } } }', {}, owner);
    expect(JSON.stringify(body.data)).not.toContain('by-get');
  });

  test.each(['text/plain', 'application/x-www-form-urlencoded', 'application/graphql'])(
    'a body of type %s, which a page elsewhere could send, is refused',
    async (type) => {
      const answer = await http()
        .post('/graphql')
        .set('content-type', type)
        .send(JSON.stringify({ query: '{ __typename }' }));
      expect(answer.status).toBe(415);
      expect(answer.body.errors[0].extensions.code).toBe('BAD_REQUEST');
    },
  );

  test('no page of another origin is told that it may read the answer', async () => {
    const answer = await http()
      .post('/graphql')
      .set('origin', 'https://evil.example')
      .send({ query: '{ __typename }' });
    expect(answer.headers['access-control-allow-origin']).toBeUndefined();
  });

  test('several operations at once are refused', async () => {
    const answer = await http()
      .post('/graphql')
      .send([{ query: '{ __typename }' }]);
    expect(answer.status).toBe(400);
    expect(answer.body.errors[0].message).toContain('one operation at a time');
  });

  test('a body over the limit is refused', async () => {
    const answer = await http()
      .post('/graphql')
      .send({ query: '#'.repeat(1_100_000) });
    expect(answer.status).toBe(413);
  });

  test('a media type that we do not speak is refused with 406', async () => {
    const answer = await http()
      .post('/graphql')
      .set('accept', 'text/html')
      .send({ query: '{ __typename }' });
    expect(answer.status).toBe(406);
  });

  test('a subscription is sent to the WebSocket', async () => {
    const { body } = await api.graphql(
      'subscription { logs(tenant: "demo", app: "a") { text } }',
      {},
      owner,
    );
    expect(body.errors?.[0]?.message).toContain('WebSocket');
  });

  test('a syntax tree as JSON, which would pass the limit on tokens, is refused', async () => {
    const tree = JSON.stringify({ kind: 'Document', definitions: [] });
    for (const query of [tree, ` \n${tree}`, '{}', '[]', '12', '"x"', 'true']) {
      const { body } = await api.graphql(query);
      expect(body.errors?.[0]?.extensions['code'], query).toBe('GRAPHQL_PARSE_FAILED');
    }
  });

  test('an operation name that the document lacks is an error of the request', async () => {
    const answer = await http()
      .post('/graphql')
      .set('accept', 'application/graphql-response+json')
      .send({ query: 'query A { __typename } query B { __typename }', operationName: 'C' });
    expect(answer.status).toBe(400);
    expect(answer.body).not.toHaveProperty('data');
  });
});

describe('codes of errors', () => {
  const codes = async (query: string, variables?: object, as?: Caller | string) =>
    (await api.graphql(query, variables, as)).body.errors?.map((error) => error.extensions['code']);

  test('of the request', async () => {
    expect(await codes('{')).toEqual(['GRAPHQL_PARSE_FAILED']);
    expect(await codes('{ nothing }')).toEqual(['GRAPHQL_VALIDATION_FAILED']);
    expect(await codes('query ($s: String!) { tenant(slug: $s) { id } }', {}, owner)).toEqual([
      'BAD_USER_INPUT',
    ]);
    expect(
      await codes(
        'query ($d: DateTime) { logs(tenant: "a", app: "b", since: $d) { text } }',
        { d: 'soon' },
        owner,
      ),
    ).toEqual(['BAD_USER_INPUT']);
  });

  test('of the caller', async () => {
    expect(await codes('{ me { id } }')).toEqual(['UNAUTHENTICATED']);
    expect(await codes('{ me { id } }', {}, 'x.y.z')).toEqual(['UNAUTHENTICATED']);
    expect(await codes('{ me { id } }', {}, 'bh_nothing')).toEqual(['UNAUTHENTICATED']);
    expect(await codes('{ nodes { totalCount } }', {}, owner)).toEqual(['FORBIDDEN']);
    expect(await codes('{ tenant(slug: "nobodys") { id } }', {}, owner)).toEqual(['NOT_FOUND']);
    expect(
      await codes('mutation { createTenant(input: { slug: "demo" }) { id } }', {}, owner),
    ).toEqual(['CONFLICT']);
    expect(
      await codes('mutation { createTenant(input: { slug: "-" }) { id } }', {}, owner),
    ).toEqual(['INVALID']);
  });

  test('a failure inside shows a reference and nothing else', async () => {
    // The pool of a test of its own, broken on purpose.
    const broken = await startTestApi();
    const token = await broken.sessionOf(await makeTenant(broken.tenancy, 'demo'));
    const { Logs } = await import('../logs/logs.ts');
    broken.app.get(Logs).read = () => Promise.reject(new Error('secret inner text'));
    const { body } = await broken.graphql('{ logs(tenant: "demo", app: "a") { text } }', {}, token);
    expect(body.errors?.[0]?.extensions).toEqual({
      code: 'INTERNAL',
      reference: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
    });
    expect(JSON.stringify(body)).not.toContain('secret inner text');
    await broken.close();
  });
});

describe('limits', () => {
  const message = async (query: string, variables?: object) =>
    (await api.graphql(query, variables, owner)).body.errors?.[0]?.message;

  test('depth', async () => {
    const deep = (levels: number): string =>
      levels === 0 ? 'name' : `latestDeployment { app { ${deep(levels - 1)} } }`;
    expect(await message(`{ app(tenant: "demo", name: "a") { ${deep(6)} } }`)).toContain(
      'fields deep',
    );
  });

  test('depth hidden in fragments', async () => {
    const fragments = Array.from(
      { length: 8 },
      (_, i) =>
        `fragment F${i} on App { latestDeployment { app { ${i === 7 ? 'name' : `...F${i + 1}`} } } }`,
    );
    expect(
      await message(`{ app(tenant: "demo", name: "a") { ...F0 } } ${fragments.join(' ')}`),
    ).toContain('fields deep');
  });

  test('a fragment that spreads itself is an error, not an endless loop', async () => {
    expect(await message('{ me { ...F } } fragment F on Viewer { ...F }')).toContain(
      'Cannot spread',
    );
  });

  test('aliases, root fields, tokens', async () => {
    const many = (count: number, field: (i: number) => string) =>
      `{ ${Array.from({ length: count }, (_, i) => field(i)).join(' ')} }`;
    const aliases = many(31, (i) => `a${i}: name`);
    expect(await message(`{ tenant(slug: "demo") ${aliases} }`)).toContain('aliases');
    expect(await message(many(25, () => '__typename'))).toContain('at once');
    expect(await message(many(1100, () => '__typename'))).toContain('tokens');
  });

  test('cost, also when `first` is a variable', async () => {
    const query =
      'query ($n: Int) { tenant(slug: "demo") { apps(first: $n) { nodes { deployments(first: $n) { nodes { to { id } } } } } } }';
    expect(await message(query, { n: 200 })).toContain('objects');
    expect(await message(query, { n: 10 })).toBeUndefined();
  });

  test('many tries of a password in one request', async () => {
    const tries = Array.from(
      { length: 12 },
      (_, i) => `a${i}: signIn(input: { email: "x@example.org", password: "${i}" }) { token }`,
    );
    expect(await message(`mutation { ${tries.join(' ')} }`)).toContain('objects');
  });

  test('what stock clients ask to learn the schema is within them', async () => {
    const { getIntrospectionQuery } = await import('graphql');
    const { body } = await api.graphql(getIntrospectionQuery());
    expect(body.errors).toBeUndefined();
  });
});

test('negotiation follows what the client prefers', () => {
  expect(negotiate(undefined)).toBe('application/json');
  expect(negotiate('*/*')).toBe('application/json');
  expect(negotiate('application/json;q=0.5, application/graphql-response+json')).toBe(
    'application/graphql-response+json',
  );
  expect(negotiate('application/graphql-response+json, application/json')).toBe(
    'application/graphql-response+json',
  );
  expect(negotiate('application/json;q=0')).toBeNull();
  expect(negotiate('text/html')).toBeNull();
});
