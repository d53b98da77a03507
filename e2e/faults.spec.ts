import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { visit } from './support/client.ts';
import { platform, type Platform } from './support/platform.ts';
import { TenantFixture } from './support/tenant.ts';
import { until } from './support/until.ts';

describe('every process killed in turn', () => {
  let p: Platform;
  let tenant: TenantFixture;
  let image: string;
  const app = 'steady';

  beforeAll(async () => {
    p = await platform();
    tenant = await TenantFixture.create(p.apiUrl);
    image = await p.push(tenant, 'hello', 'hello:1');
    await tenant.createApp(app);
    await tenant.succeeded(
      await tenant.deploy(app, image, [
        { name: 'web', port: 8080, memoryMiB: 96, healthCheck: { kind: 'HTTP', path: '/healthz' } },
      ]),
    );
  });
  afterAll(() => p.release());

  const answers = async () => (await visit(p.edgePort, tenant.host(app))).status === 200;

  test('the agent: containers live on, and the next agent carries on with them', async () => {
    const [instance] = await tenant.serving(app);
    const pid = await p.containerPid(instance!.id);
    await p.kill('agent');
    expect(await answers()).toBe(true);

    await tenant.succeeded(await tenant.scale(app, 'web', 2));
    expect(await p.containerPid(instance!.id)).toBe(pid);
    expect((await tenant.serving(app)).find((i) => i.id === instance!.id)?.restarts).toBe(0);
  });

  test.each(['edge', 'nats', 'registry', 'postgres', 'api'] as const)(
    '%s: apps keep answering, and the next change goes through',
    async (service) => {
      const pids = new Map<string, number>();
      for (const { id } of await tenant.serving(app)) pids.set(id, await p.containerPid(id));
      await p.kill(service);
      expect(await answers()).toBe(true);

      // The next change, asked for again until the platform takes it.
      const id = await until('a restart is accepted', () => tenant.restart(app));
      await tenant.succeeded(id);
      await until('the app answers', answers);
      for (const { id } of await tenant.serving(app)) expect(pids.has(id)).toBe(false);
    },
  );

  test('HAProxy: it is back with the same table', async () => {
    await p.kill('haproxy');
    await until('the app answers', answers);
  });

  test('NATS wiped: nothing stops, and everything is delivered again', async () => {
    const before = (await tenant.serving(app)).map((i) => i.id);
    await p.wipeNats();
    expect(await answers()).toBe(true);

    const id = await until('a scale is accepted', () => tenant.scale(app, 'web', 3));
    await tenant.succeeded(id);
    const after = (await tenant.serving(app)).map((i) => i.id);
    expect(after).toEqual(expect.arrayContaining(before));
  });
});
