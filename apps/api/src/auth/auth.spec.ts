import { createClient } from 'graphql-ws';
import { SignJWT, UnsecuredJWT } from 'jose';
import request from 'supertest';
import { WebSocket } from 'ws';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeTenant, makeUser } from '@bulkhead/tenancy/testing';
import { startTestApi, type TestApi } from '../testing/test-api.ts';
import { Authenticator } from './authenticator.ts';
import { SessionTokens } from './session-tokens.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startTestApi();
});
afterAll(() => api.close());

const signIn =
  'mutation ($input: SignInInput!) { signIn(input: $input) { token expiresAt viewer { email memberships { role } } } }';
const me = '{ me { email via operator } }';
const codeOf = async (query: string, variables?: object, as?: string) =>
  (await api.graphql(query, variables, as)).body.errors?.[0]?.extensions['code'];

describe('signing up and in', () => {
  test('a new user is signed in and can begin', async () => {
    const { body } = await api.graphql(
      'mutation { signUp(input: { email: "New@Example.org", name: "New", password: "long enough 1" }) { token viewer { email name operator via memberships { role } } } }',
    );
    const session = body.data?.['signUp'] as unknown as { token: string; viewer: object };
    expect(session.viewer).toEqual({
      email: 'new@example.org',
      name: 'New',
      operator: false,
      via: 'SESSION',
      memberships: [],
    });
    const made = await api.graphql(
      'mutation { createTenant(input: { slug: "fresh" }) { slug name } }',
      {},
      session.token,
    );
    expect(made.body.data).toEqual({ createTenant: { slug: 'fresh', name: 'fresh' } });
    const { body: again } = await api.graphql(signIn, {
      input: { email: 'new@example.org', password: 'long enough 1' },
    });
    expect(again.data).toMatchObject({ signIn: { viewer: { memberships: [{ role: 'OWNER' }] } } });
  });

  test('a short password is INVALID, a taken email a CONFLICT', async () => {
    const signUp = (email: string, password: string) =>
      codeOf('mutation ($i: SignUpInput!) { signUp(input: $i) { token } }', {
        i: { email, password },
      });
    await makeUser(api.tenancy, 'taken');
    expect(await signUp('short@example.org', 'short')).toBe('INVALID');
    expect(await signUp('taken@example.org', 'long enough 1')).toBe('CONFLICT');
  });

  test('a wrong password and an unknown email are told apart by nothing', async () => {
    await makeUser(api.tenancy, 'known');
    const answer = async (email: string) =>
      (
        await api.graphql(signIn, { input: { email, password: 'wrong password' } })
      ).body.errors?.map(({ message, extensions }) => ({ message, extensions }));
    const wrong = await answer('known@example.org');
    expect(wrong?.[0]?.extensions['code']).toBe('UNAUTHENTICATED');
    expect(await answer('unknown@example.org')).toEqual(wrong);
    expect(await codeOf(signIn, { input: { email: '', password: '' } })).toBe('UNAUTHENTICATED');
  });

  test('after many failures even the right password waits', async () => {
    await makeUser(api.tenancy, 'target');
    const attempt = (password: string) =>
      codeOf(signIn, { input: { email: 'target@example.org', password } });
    const codes: unknown[] = [];
    for (let i = 0; i < 30 && codes.at(-1) !== 'UNAVAILABLE'; i += 1)
      codes.push(await attempt(`wrong ${i}`));
    expect(codes.at(-1)).toBe('UNAVAILABLE');
    expect(await attempt('target has a password')).toBe('UNAVAILABLE');
  });

  test('behind a trusted proxy the limit is of each client, by HTTP and by socket', async () => {
    const behind = await startTestApi({ trustedProxies: ['127.0.0.1'] });
    try {
      await makeUser(behind.tenancy, 'shared');
      const post = async (client: string, password: string) => {
        const response = await request(behind.url)
          .post('/graphql')
          .set('x-forwarded-for', client)
          .send({ query: signIn, variables: { input: { email: 'shared@example.org', password } } });
        const { errors } = response.body as { errors?: { extensions: { code: string } }[] };
        return errors?.[0]?.extensions.code ?? 'in';
      };
      for (let i = 0; i < 10; i += 1) {
        // What a client itself writes in front is not believed.
        expect(await post(`198.51.100.${i}, 203.0.113.9`, 'wrong')).toBe('UNAUTHENTICATED');
      }
      expect(await post('203.0.113.9', 'shared has a password')).toBe('UNAVAILABLE');
      expect(await post('203.0.113.10', 'shared has a password')).toBe('in');

      const socket = (client: string) =>
        new Promise<string>((resolve, reject) => {
          const ws = createClient({
            url: `${behind.url.replace('http', 'ws')}/graphql`,
            webSocketImpl: class extends WebSocket {
              constructor(url: string, protocols: string) {
                super(url, protocols, { headers: { 'x-forwarded-for': client } });
              }
            },
          });
          ws.subscribe<Record<string, unknown>>(
            {
              query: signIn,
              variables: {
                input: { email: 'shared@example.org', password: 'shared has a password' },
              },
            },
            {
              next: ({ errors }) => {
                resolve(String(errors?.[0]?.extensions?.['code'] ?? 'in'));
                void ws.dispose();
              },
              error: reject,
              complete: () => undefined,
            },
          );
        });
      expect(await socket('203.0.113.9')).toBe('UNAVAILABLE');
      expect(await socket('203.0.113.11')).toBe('in');
    } finally {
      await behind.close();
    }
  });

  test('who is not named as a proxy cannot give itself another address', async () => {
    await makeUser(api.tenancy, 'spoofed');
    const codes: unknown[] = [];
    for (let i = 0; i < 11; i += 1) {
      const { body } = await request(api.url)
        .post('/graphql')
        .set('x-forwarded-for', `203.0.113.${i}`)
        .send({
          query: signIn,
          variables: { input: { email: 'spoofed@example.org', password: 'wrong' } },
        });
      codes.push(
        (body as { errors: { extensions: { code: string } }[] }).errors[0]?.extensions.code,
      );
    }
    expect(codes.at(-1)).toBe('UNAVAILABLE');
  });

  test('sign-up can be closed', async () => {
    const closed = await startTestApi({ signUpOpen: false });
    const { body } = await closed.graphql(
      'mutation { signUp(input: { email: "a@example.org", password: "long enough 1" }) { token } }',
    );
    expect(body.errors?.[0]?.extensions['code']).toBe('FORBIDDEN');
    await closed.close();
  });
});

describe('session tokens', () => {
  test('end when the user signs out everywhere', async () => {
    const token = await api.sessionOf(await makeTenant(api.tenancy, 'leaving'));
    expect(await codeOf(me, {}, token)).toBeUndefined();
    expect((await api.graphql('mutation { signOutEverywhere }', {}, token)).body.data).toEqual({
      signOutEverywhere: true,
    });
    expect(await codeOf(me, {}, token)).toBe('UNAUTHENTICATED');
  });

  test('end after 12 hours', async () => {
    const jwk = { kty: 'oct', k: Buffer.alloc(32, 7).toString('base64url') };
    let now = new Date('2026-01-01T00:00:00Z');
    const sessions = await SessionTokens.fromJwk(jwk, () => now);
    const { token, expiresAt } = await sessions.issue({ userId: 'u', epoch: 3 });
    expect(expiresAt.toISOString()).toBe('2026-01-01T12:00:00.000Z');
    now = new Date('2026-01-01T11:59:59Z');
    expect(await sessions.read(token)).toMatchObject({ userId: 'u', epoch: 3 });
    now = new Date('2026-01-01T12:00:01Z');
    await expect(sessions.read(token)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  test('of another key, another algorithm, another audience or none are refused', async () => {
    const caller = await makeUser(api.tenancy, 'forged');
    const claims = { epoch: 0, sub: caller.userId, iss: 'bulkhead', aud: 'bulkhead-api' };
    const signed = (key: Uint8Array, audience = 'bulkhead-api', alg = 'HS256') =>
      new SignJWT({ ...claims, aud: audience })
        .setProtectedHeader({ alg })
        .setExpirationTime('1h')
        .sign(key);
    const other = Buffer.alloc(64, 1);
    const good = await api.sessionOf(caller);
    const [header, , signature] = good.split('.');
    const raised = Buffer.from(JSON.stringify({ ...claims, exp: 9_999_999_999 })).toString(
      'base64url',
    );
    for (const token of [
      await signed(other),
      await signed(other, 'bulkhead-api', 'HS512'),
      new UnsecuredJWT(claims).setExpirationTime('1h').encode(),
      `${header}.${raised}.${signature}`,
    ]) {
      expect(await codeOf(me, {}, token)).toBe('UNAUTHENTICATED');
    }
    expect(await codeOf(me, {}, good)).toBeUndefined();
  });

  test('keys that are too short are refused', async () => {
    await expect(
      SessionTokens.fromJwk({ kty: 'oct', k: 'c2hvcnQ' }, () => new Date()),
    ).rejects.toThrow('256 bits');
  });
});

describe('the Authorization header', () => {
  test.each([
    'Basic abc',
    'Bearer',
    'Bearer ',
    'nonsense',
    `Bearer ${'x'.repeat(5000)}`,
    'Bearer bh_unknown',
    'bearer a.b.c',
  ])('%j is refused, but public operations still work with it', async (header) => {
    const send = (query: string) =>
      request(api.url).post('/graphql').set('authorization', header).send({ query });
    expect((await send(me)).body.errors[0].extensions.code).toBe('UNAUTHENTICATED');
    const { body } = await send(
      'mutation { signIn(input: { email: "nobody@example.org", password: "x" }) { token } }',
    );
    expect(body.errors[0].path).toEqual(['signIn']);
  });

  test('an API token proves its user, in its tenant', async () => {
    const owner = await makeTenant(api.tenancy, 'scripted');
    const { secret, token } = await api.tenancy.run(
      owner,
      { tenant: 'scripted', permission: 'token.create' },
      (tx) => tx.tokens.create({ name: 'ci', role: 'developer' }),
    );
    expect((await api.graphql(me, {}, secret)).body.data).toEqual({
      me: { email: owner.email, via: 'TOKEN', operator: false },
    });
    const authenticator = api.app.get(Authenticator);
    expect(await authenticator.basic('token', secret, '192.0.2.9')).toMatchObject({
      userId: owner.userId,
      via: 'token',
    });
    await api.graphql(
      'mutation ($id: ID!) { revokeApiToken(input: { tenant: "scripted", id: $id }) }',
      { id: token.id },
      await api.sessionOf(owner),
    );
    expect(await codeOf(me, {}, secret)).toBe('UNAUTHENTICATED');
  });
});
