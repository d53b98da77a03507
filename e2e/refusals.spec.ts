import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ApiClient } from './support/client.ts';
import { platform, type Platform } from './support/platform.ts';
import { TenantFixture } from './support/tenant.ts';

describe('bad input gets a clear answer', () => {
  let p: Platform;
  let tenant: TenantFixture;
  let hello: string;

  beforeAll(async () => {
    p = await platform();
    tenant = await TenantFixture.create(p.apiUrl);
    hello = await p.push(tenant, 'hello', 'hello:1');
  });
  afterAll(() => p.release());

  const failing = async (app: string, definition: object) => {
    await tenant.createApp(app);
    const id = await tenant.deploy(app, hello, [{ name: 'web', port: 8080, ...definition }]);
    return tenant.finished(id);
  };

  test('an image that is not there', async () => {
    await tenant.createApp('noimage');
    await expect(
      tenant.deploy('noimage', `${p.registry}/${tenant.slug}/nothing:1`),
    ).rejects.toMatchObject({ code: 'NOT_FOUND', message: expect.stringContaining('nothing:1') });
  });

  test('an image without a command', async () => {
    const image = await p.push(tenant, 'probe', 'probe:1');
    await tenant.createApp('nocommand');
    await expect(tenant.deploy('nocommand', image)).rejects.toMatchObject({
      code: 'INVALID',
      message: expect.stringMatching(/command/i),
    });
  });

  test('a command that the image does not have', async () => {
    const view = await failing('nosuch', { command: ['/no/such/program'] });
    expect(view.failure).toMatchObject({ code: 'START_FAILED' });
    expect(view.failure!.message).toContain('/no/such/program');
  });

  test('a port that nobody listens on', async () => {
    const view = await failing('deaf', {
      port: 9999,
      command: ['node', '-e', 'setInterval(() => {}, 1000)'],
      healthCheck: { kind: 'TCP', intervalSeconds: 0.2, startupGraceSeconds: 2 },
    });
    expect(view.failure).toMatchObject({ code: 'HEALTH_CHECK_FAILED' });
    expect(view.failure!.message).toContain('9999');
  });

  test('a memory limit below what the app needs', async () => {
    const view = await failing('hungry', {
      memoryMiB: 64,
      command: ['node', '-e', 'const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1));'],
    });
    expect(view.failure).toMatchObject({ code: 'OUT_OF_MEMORY' });
    expect(view.failure!.message).toContain('64');
  });

  test('a disk limit below what the app writes', async () => {
    const probe = await p.push(tenant, 'probe', 'probe:1');
    await tenant.createApp('wordy');
    const command = ['/bin/sh', '-c', 'dd if=/dev/zero of=/big bs=1M'];
    const view = await tenant.finished(
      await tenant.deploy('wordy', probe, [{ name: 'worker', diskMiB: 32, command }]),
    );
    expect(view.failure).toMatchObject({ code: 'DISK_FULL' });
    expect(view.failure!.message).toContain('32 MiB');
    expect(view.failure!.lastLines.join('\n')).toMatch(/quota/i);
  });

  test('more than any node has', async () => {
    const { operator } = p;
    await operator.ask(
      `mutation ($input: SetQuotaInput!) { setQuota(input: $input) { resource } }`,
      { input: { tenant: tenant.slug, resource: 'memoryMiB', limit: 4_000_000 } },
    );
    const view = await failing('huge', { memoryMiB: 1_000_000 });
    expect(view.failure).toMatchObject({ code: 'NO_ROOM' });
    expect(view.failure!.message).toMatch(/memory/i);
  });

  test('a name that is taken', async () => {
    await tenant.createApp('twice');
    await expect(tenant.createApp('twice')).rejects.toMatchObject({ code: 'CONFLICT' });
  });

  test('a quota that is used up', async () => {
    await tenant.createApp('greedy');
    await expect(
      tenant.deploy('greedy', hello, [{ name: 'web', port: 8080, count: 1000 }]),
    ).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' });
  });

  test('a malformed query', async () => {
    await expect(tenant.api.ask('{ me { ')).rejects.toMatchObject({ code: 'GRAPHQL_PARSE_FAILED' });
    await expect(tenant.api.ask('{ nothing }')).rejects.toMatchObject({
      code: 'GRAPHQL_VALIDATION_FAILED',
    });
  });

  test('nobody, and somebody else', async () => {
    await tenant.createApp('private');
    const query = `query ($t: String!) { app(tenant: $t, name: "private") { id } }`;
    const stranger = await TenantFixture.create(p.apiUrl);

    await expect(new ApiClient(p.apiUrl).ask(query, { t: tenant.slug })).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
    await expect(stranger.api.ask(query, { t: tenant.slug })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    await expect(stranger.deploy('x', hello)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(p.push(stranger, 'hello', 'hello:1', tenant.slug)).rejects.toThrow();
    await expect(stranger.api.ask('{ nodes { totalCount } }')).rejects.toMatchObject({
      code: 'FORBIDDEN',
    });
  });
});
