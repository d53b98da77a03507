import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Caller } from '@bulkhead/tenancy';
import { makeTenant } from '@bulkhead/tenancy/testing';
import {
  TestRegistry,
  disposeLocalImages,
  freePort,
  makeLocalImage,
  skopeo,
} from '../testing/registry.ts';
import { startTestApi, type TestApi } from '../testing/test-api.ts';
import { ImageResolver } from './image-resolver.ts';

let api: TestApi;
let own: TestRegistry;
/** Somebody else's registry, with https. */
let other: TestRegistry;
let owner: Caller;
let resolver: ImageResolver;

beforeAll(async () => {
  const port = await freePort();
  api = await startTestApi({ registry: { host: `127.0.0.1:${port}`, scheme: 'http' } });
  const key = await readFile(join(api.settings.keyDir, 'registry-token.key.pem'), 'utf8');
  own = await TestRegistry.start({ port, token: { realm: `${api.url}/registry/token`, key } });
  other = await TestRegistry.start({ tls: true });
  owner = await makeTenant(api.tenancy, 'demo');
  await makeTenant(api.tenancy, 'other');
  resolver = api.app.get(ImageResolver);
});
afterAll(async () => {
  await Promise.all([own.dispose(), other.dispose()]);
  await disposeLocalImages();
  await api.close();
});

async function push(
  name: string,
  config: object,
  platform?: { os: string; architecture: string },
  format = 'v2s2',
) {
  const image = await makeLocalImage(config, platform);
  const pushed = await skopeo([
    'copy',
    `--format=${format}`,
    '--dest-tls-verify=false',
    `--dest-creds=${owner.email}:${owner.name} has a password`,
    `dir:${image.dir}`,
    `docker://${own.host}/${name}`,
  ]);
  expect(pushed).toMatchObject({ ok: true });
  return image;
}

describe("the platform's registry", () => {
  test.each(['v2s2', 'oci'])(
    'an image of format %s is read to digest, size and config',
    async (format) => {
      await push(
        `demo/full:${format}`,
        {
          Entrypoint: ['/entry'],
          Cmd: ['serve'],
          Env: ['A=b'],
          WorkingDir: '/srv',
          User: '1000',
          ExposedPorts: { '8080/tcp': {}, '53/udp': {}, '9000': {} },
          StopSignal: 'SIGINT',
        },
        undefined,
        format,
      );
      const resolved = await resolver.resolve(`full:${format}`, 'demo');
      expect(resolved).toEqual({
        reference: `full:${format}`,
        repository: `${own.host}/demo/full`,
        digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) as string,
        size: expect.any(Number) as number,
        config: {
          entrypoint: ['/entry'],
          cmd: ['serve'],
          env: ['A=b'],
          workingDir: '/srv',
          user: '1000',
          exposedPorts: [8080, 9000],
          stopSignal: 'SIGINT',
        },
      });
      const byDigest = await resolver.resolve(`${own.host}/demo/full@${resolved.digest}`, 'demo');
      expect(byDigest.digest).toBe(resolved.digest);
    },
  );

  test('what is not there says how to push it', async () => {
    await expect(resolver.resolve(`${own.host}/demo/nothing:1`, 'demo')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining(`docker push ${own.host}/demo/nothing:1`) as string,
    });
  });

  test("another tenant's image is not found, though it is there", async () => {
    await push('demo/private:1', { Cmd: ['x'] });
    await expect(resolver.resolve(`${own.host}/demo/private:1`, 'other')).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  test('an image for another machine says so', async () => {
    await push('demo/arm:1', { Cmd: ['x'] }, { os: 'linux', architecture: 'arm64' });
    await expect(resolver.resolve('arm:1', 'demo')).rejects.toMatchObject({
      code: 'INVALID',
      message: expect.stringContaining('linux/arm64') as string,
    });
  });

  test('is deployed through the API, and without a command it is refused', async () => {
    await push('demo/empty:1', {});
    await push('demo/good:1', { Cmd: ['/bin/server'] });
    await api.graphql(
      'mutation { createApp(input: { tenant: "demo", name: "hello" }) { id } }',
      {},
      owner,
    );
    const deploy = (image: string, processes?: object[]) =>
      api.graphql(
        'mutation ($input: DeployInput!) { deploy(input: $input) { kind status to { image digest processes { name port command count } } } }',
        { input: { tenant: 'demo', app: 'hello', image, ...(processes && { processes }) } },
        owner,
      );
    const refused = await deploy('empty:1');
    expect(refused.body.errors?.[0]).toMatchObject({ extensions: { code: 'INVALID' } });
    expect(
      (await deploy('empty:1', [{ name: 'web', command: ['/run'] }])).body.errors,
    ).toBeUndefined();
    const { body } = await deploy('good:1');
    expect(body).toMatchObject({
      data: {
        deploy: {
          kind: 'DEPLOY',
          status: 'RUNNING',
          to: { image: 'good:1', processes: [{ name: 'web', count: 1 }] },
        },
      },
    });
  });

  test('no registry is asked for an app that is not there or of another tenant', async () => {
    const { body } = await api.graphql(
      'mutation { deploy(input: { tenant: "other", app: "x", image: "127.0.0.1/x" }) { id } }',
      {},
      owner,
    );
    expect(body.errors?.[0]?.extensions['code']).toBe('NOT_FOUND');
  });
});

describe("other people's registries", () => {
  const open = () =>
    new ImageResolver({
      registryHost: own.host,
      ownOrigin: `http://${own.host}`,
      ownToken: () => Promise.reject(new Error('not for others')),
      isAllowed: () => true,
      ca: other.certificate,
    });

  test('are read over https', async () => {
    const image = await makeLocalImage({ Cmd: ['x'] });
    const pushed = await skopeo([
      'copy',
      '--dest-tls-verify=false',
      `dir:${image.dir}`,
      `docker://${other.host}/team/app:1`,
    ]);
    expect(pushed).toMatchObject({ ok: true });
    const resolved = await open().resolve(`${other.host}/team/app:1`, 'demo');
    expect(resolved).toMatchObject({ repository: `${other.host}/team/app`, digest: image.digest });
  });

  test('what is not there is not found there', async () => {
    await expect(open().resolve(`${other.host}/team/nothing:1`, 'demo')).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  test('a certificate that nobody vouches for is refused', async () => {
    const strict = new ImageResolver({
      registryHost: own.host,
      ownOrigin: `http://${own.host}`,
      ownToken: () => Promise.reject(new Error('not for others')),
      isAllowed: () => true,
    });
    await expect(strict.resolve(`${other.host}/team/app:1`, 'demo')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
  });

  test.each(['127.0.0.1:1/x', 'localhost/x', '10.0.0.1/x', '169.254.169.254/latest', '[::1]:80/x'])(
    'nothing private is reached: %s',
    async (reference) => {
      await expect(resolver.resolve(reference, 'demo')).rejects.toMatchObject({ code: 'INVALID' });
    },
  );
});
