import type { FastifyInstance } from 'fastify';
import request from 'supertest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTenant } from '@bulkhead/tenancy/testing';
import { NATS, type NatsLink } from '../nats/nats.ts';
import { eventually } from '../testing/eventually.ts';
import { startTestApi, type TestApi } from '../testing/test-api.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startTestApi();
  await api.app.get<NatsLink>(NATS).whenReady();
});
afterAll(() => api.close());

const get = (path: string) => request(api.url).get(path);

test('ready when the database and NATS answer; when not, it says which', async () => {
  expect(await get('/readyz')).toMatchObject({ status: 200, body: { status: 'ready' } });

  await api.nats.stop();
  const down = await eventually('it is not ready', async () => {
    const answer = await get('/readyz');
    return answer.status === 503 ? answer : null;
  });
  expect(down.body).toEqual({ status: 'not ready', parts: { database: 'up', nats: 'down' } });
  // It lives all the same, and answers what needs no NATS.
  expect(await get('/healthz')).toMatchObject({ status: 200, body: { status: 'ok' } });
  expect((await api.graphql('{ __typename }')).body.data).toEqual({ __typename: 'Query' });
  const owner = await makeTenant(api.tenancy, 'demo');
  await api.graphql(
    'mutation { createApp(input: { tenant: "demo", name: "a" }) { id } }',
    {},
    owner,
  );
  const logs = await api.graphql('{ logs(tenant: "demo", app: "a") { text } }', {}, owner);
  expect(logs.body.errors?.[0]?.extensions['code']).toBe('UNAVAILABLE');

  await api.nats.restart();
  await eventually('it is ready again', async () => (await get('/readyz')).status === 200);
});

test('numbers are shown, and name no tenant', async () => {
  await api.graphql('{ me { id } }');
  const { text, headers } = await get('/metrics');
  expect(headers['content-type']).toContain('text/plain');
  expect(text).toContain(
    'bulkhead_api_graphql_operation_seconds_count{transport="http",operation="me"}',
  );
  expect(text).toContain('bulkhead_api_graphql_errors_total{code="UNAUTHENTICATED"}');
  expect(text).toMatch(
    /bulkhead_api_http_requests_total\{method="POST",route="\/graphql",status="200"\}/,
  );
  expect(text).toContain('bulkhead_api_websocket_connections 0');
});

test('numbers are for this host only, unless told otherwise', async () => {
  const fastify: FastifyInstance = api.app.getHttpAdapter().getInstance();
  const ask = async (remoteAddress: string, headers: Record<string, string> = {}) =>
    (await fastify.inject({ url: '/metrics', remoteAddress, headers })).statusCode;
  expect(await ask('127.0.0.1')).toBe(200);
  expect(await ask('::1')).toBe(200);
  expect(await ask('::ffff:127.0.0.1')).toBe(200);
  expect(await ask('192.0.2.7')).toBe(403);
  expect(await ask('::ffff:192.0.2.7')).toBe(403);
  // A proxy on this host.
  expect(await ask('127.0.0.1', { 'x-forwarded-for': '192.0.2.7' })).toBe(403);
  expect(await ask('192.0.2.7', { 'x-forwarded-for': '127.0.0.1' })).toBe(403);

  api.settings.metricsPublic = true;
  expect(await ask('192.0.2.7')).toBe(200);
  api.settings.metricsPublic = false;
});

test('what is not there is not found, in JSON', async () => {
  expect(await get('/nothing')).toMatchObject({
    status: 404,
    body: { errors: [{ code: 'NOT_FOUND' }] },
  });
});
