import { createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeJwt } from 'jose';
import request from 'supertest';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Caller } from '@bulkhead/tenancy';
import { makeImage, makeMember, makeNode, makeTenant, makeUser } from '@bulkhead/tenancy/testing';
import {
  TestRegistry,
  disposeLocalImages,
  freePort,
  makeLocalImage,
  skopeo,
  type LocalImage,
} from '../testing/registry.ts';
import { placeInstance } from '../testing/instances.ts';
import { startTestApi, type TestApi } from '../testing/test-api.ts';
import { libtrustKeyId } from './registry-tokens.ts';
import { readScopes } from './scopes.ts';

let api: TestApi;
let registry: TestRegistry;
let image: LocalImage;
let owner: Caller;
let viewer: Caller;
const passwordOf = (caller: Caller) => `${caller.name} has a password`;

beforeAll(async () => {
  const port = await freePort();
  api = await startTestApi({ registry: { host: `127.0.0.1:${port}`, scheme: 'http' } });
  const key = await readFile(join(api.settings.keyDir, 'registry-token.key.pem'), 'utf8');
  registry = await TestRegistry.start({ port, token: { realm: `${api.url}/registry/token`, key } });
  image = await makeLocalImage({ Cmd: ['/bin/true'] });
  owner = await makeTenant(api.tenancy, 'demo');
  viewer = await makeMember(api.tenancy, owner, 'demo', 'viewer');
  await makeTenant(api.tenancy, 'other');
});
afterAll(async () => {
  await registry.dispose();
  await disposeLocalImages();
  await api.close();
});

const copy = (from: string, to: string, credentials: string, side: 'src' | 'dest') =>
  skopeo(['copy', `--${side}-tls-verify=false`, `--${side}-creds=${credentials}`, from, to]);
const push = (name: string, credentials: string) =>
  copy(`dir:${image.dir}`, `docker://${registry.host}/${name}`, credentials, 'dest');
const pull = (name: string, credentials: string) =>
  skopeo([
    'inspect',
    '--raw',
    '--tls-verify=false',
    `--creds=${credentials}`,
    `docker://${registry.host}/${name}`,
  ]);

describe('a stock client and a real registry', () => {
  test('a member pushes to and pulls from the own tenant, with email and password', async () => {
    const credentials = `${owner.email}:${passwordOf(owner)}`;
    expect(await push('demo/hello:1', credentials)).toMatchObject({ ok: true });
    expect(await pull('demo/hello:1', credentials)).toMatchObject({ ok: true });
  });

  test('the same with an API token', async () => {
    const { secret } = await api.tenancy.run(
      owner,
      { tenant: 'demo', permission: 'token.create' },
      (tx) => tx.tokens.create({ name: 'ci', role: 'developer' }),
    );
    expect(await push('demo/ci:1', `token:${secret}`)).toMatchObject({ ok: true });
    expect(await push('other/ci:1', `token:${secret}`)).toMatchObject({ ok: false });
  });

  test("another tenant's repositories can be neither pushed nor pulled", async () => {
    const stranger = await makeUser(api.tenancy, 'stranger');
    const credentials = `${stranger.email}:${passwordOf(stranger)}`;
    expect(await push('demo/hello:2', credentials)).toMatchObject({ ok: false });
    expect(await pull('demo/hello:1', credentials)).toMatchObject({ ok: false });
    expect(await push('other/hello:1', `${owner.email}:${passwordOf(owner)}`)).toMatchObject({
      ok: false,
    });
  });

  test('a viewer cannot push', async () => {
    expect(await push('demo/hello:3', `${viewer.email}:${passwordOf(viewer)}`)).toMatchObject({
      ok: false,
    });
  });

  test('nobody and wrong passwords get nothing', async () => {
    expect(await push('demo/hello:4', `${owner.email}:wrong`)).toMatchObject({ ok: false });
    const anonymous = await skopeo([
      'inspect',
      '--tls-verify=false',
      `docker://${registry.host}/demo/hello:1`,
    ]);
    expect(anonymous.ok).toBe(false);
  });

  test('nobody may delete, the owner neither', async () => {
    const credentials = `${owner.email}:${passwordOf(owner)}`;
    const deleted = await skopeo([
      'delete',
      '--tls-verify=false',
      `--creds=${credentials}`,
      `docker://${registry.host}/demo/hello:1`,
    ]);
    expect(deleted.ok).toBe(false);
    expect(await pull('demo/hello:1', credentials)).toMatchObject({ ok: true });
  });

  test('a node pulls what is placed on it and nothing else', async () => {
    const { node, registrySecret } = await makeNode(api.tenancy, 'n1');
    const credentials = `${node.id}:${registrySecret}`;
    expect(await pull('demo/hello:1', credentials)).toMatchObject({ ok: false });

    const repository = `${registry.host}/demo/hello`;
    const placed = await api.tenancy.run(
      owner,
      { tenant: 'demo', permission: 'app.deploy' },
      async (tx) => {
        await tx.apps.create({ name: 'hello' });
        return tx.deployments.deploy({
          app: 'hello',
          image: makeImage({ repository, digest: image.digest }),
        });
      },
    );
    await api.tenancy.platform((tx) =>
      placeInstance(tx, { deployment: placed.id, node: node.id, id: 'iaaaaaaaaaaaa' }),
    );
    expect(await pull('demo/hello:1', credentials)).toMatchObject({ ok: true });
    expect(await push('demo/hello:5', credentials)).toMatchObject({ ok: false });
    expect(await pull('demo/hello:1', `${node.id}:${'x'.repeat(40)}`)).toMatchObject({ ok: false });
  });
});

describe('the token endpoint', () => {
  const ask = (scope: string | string[], user = owner) =>
    request(api.url)
      .get('/registry/token')
      .auth(user.email, passwordOf(user))
      .query({ service: 'bulkhead-registry', scope });

  test('leaves out what is not to be had, and says nothing of it', async () => {
    const scopes = [
      'repository:demo/a:pull,push,delete,*',
      'repository:other/b:pull',
      'registry:catalog:*',
    ];
    const { body, status } = await ask(scopes);
    expect(status).toBe(200);
    const claims = decodeJwt<{ access: object[] }>(body.token);
    expect(claims.access).toEqual([
      { type: 'repository', name: 'demo/a', actions: ['pull', 'push'] },
    ]);
    expect(claims.aud).toBe('bulkhead-registry');
    expect(Number(claims.exp) - Number(claims.iat)).toBe(300);
    expect(body.access_token).toBe(body.token);
  });

  test('takes several scopes in one parameter', async () => {
    const { body } = await ask('repository:demo/a:pull repository:demo/b:pull');
    expect(decodeJwt<{ access: object[] }>(body.token).access).toHaveLength(2);
  });

  test('a login without scopes succeeds, and asks for credentials without them', async () => {
    expect(
      (await request(api.url).get('/registry/token').auth(owner.email, passwordOf(owner))).status,
    ).toBe(200);
    const refused = await request(api.url).get('/registry/token');
    expect(refused.status).toBe(401);
    expect(refused.headers['www-authenticate']).toContain('Basic');
  });

  test('makes no tokens for another service', async () => {
    const { status } = await request(api.url)
      .get('/registry/token')
      .auth(owner.email, passwordOf(owner))
      .query({ service: 'another' });
    expect(status).toBe(400);
  });

  test('that somebody may push now is in the audit log', async () => {
    await ask('repository:demo/audited:push');
    const log = await api.tenancy.run(owner, { tenant: 'demo', permission: 'audit.read' }, (tx) =>
      tx.audit.list({}),
    );
    expect(log.nodes[0]).toMatchObject({ action: 'registry.push', target: 'image:demo/audited' });
  });
});

test.each([
  [undefined, []],
  ['', []],
  ['repository:demo/a:pull', ['demo/a']],
  ['repository:a:pull', []],
  ['repository:../demo/a:pull', []],
  ['repository:demo/a/../../other/b:pull', []],
  ['repository:demo/a:*', []],
  ['repository(plugin):demo/a:pull', []],
  [
    ['repository:demo/a:pull', 'repository:other/b:push'],
    ['demo/a', 'other/b'],
  ],
])('scopes %j', (scope, names) => {
  expect(readScopes(scope).map(({ name }) => name)).toEqual(names);
});

test('keys have the names that docker-registry gives them', async () => {
  const key = createPrivateKey(await readFile(join(api.settings.keyDir, 'registry-token.key.pem')));
  expect(libtrustKeyId(key)).toMatch(/^([A-Z2-7]{4}:){11}[A-Z2-7]{4}$/);
});
