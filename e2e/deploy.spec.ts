import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { load, visit } from './support/client.ts';
import { platform, type Platform } from './support/platform.ts';
import { TenantFixture } from './support/tenant.ts';
import { until } from './support/until.ts';

// One app's life, in order: each test goes on from where the one before left it.
describe('a deploy, all the way', () => {
  let p: Platform;
  let tenant: TenantFixture;
  let image: string;
  const app = 'shop';

  beforeAll(async () => {
    p = await platform();
    tenant = await TenantFixture.create(p.apiUrl);
    image = await p.push(tenant, 'hello', 'hello:1');
  });
  afterAll(() => p.release());

  const answer = async () =>
    JSON.parse((await visit(p.edgePort, tenant.host(app), '/info')).body) as {
      instance: string;
      release: string;
      greeting: string;
    };

  test('config, image, deploy: HTTP answers through the edge', async () => {
    await tenant.createApp(app);
    expect(await tenant.setConfig(app, { GREETING: 'one' })).toBeNull();

    await tenant.succeeded(await tenant.deploy(app, image, [web({ count: 1 })]));

    const info = await until('the app answers', answer);
    expect(info).toMatchObject({ greeting: 'one', release: 'v1' });
    const [instance] = await tenant.instances(app);
    expect(instance).toMatchObject({ id: info.instance, state: 'READY', process: 'web' });
  });

  test('scaled to three, all three answer', async () => {
    await tenant.succeeded(await tenant.scale(app, 'web', 3));

    const seen = new Set<string>();
    await until('three instances answered', async () => {
      seen.add((await answer()).instance);
      return seen.size === 3;
    });
  });

  test('a config change rolls a new release out without a failed request', async () => {
    const traffic = load(p.edgePort, tenant.host(app), '/info');
    const id = await tenant.setConfig(app, { GREETING: 'two' });
    await tenant.succeeded(id!);
    await until('the new greeting is served', async () => (await answer()).greeting === 'two');
    const { requests, failures } = await traffic.stop();

    expect(failures).toEqual([]);
    expect(requests).toBeGreaterThan(50);
    expect((await tenant.serving(app)).map((i) => i.release)).toEqual([2, 2, 2]);
  });

  test('a restart replaces every instance without a failed request', async () => {
    const before = (await tenant.serving(app)).map((i) => i.id);
    const traffic = load(p.edgePort, tenant.host(app), '/info');
    await tenant.succeeded(await tenant.restart(app));
    const { failures } = await traffic.stop();

    expect(failures).toEqual([]);
    const after = (await tenant.serving(app)).map((i) => i.id);
    expect(after).toHaveLength(3);
    expect(after.filter((id) => before.includes(id))).toEqual([]);
  });

  test('a killed process comes back as the same instance, and its end is told', async () => {
    const [victim] = await tenant.serving(app);
    process.kill(await p.containerPid(victim!.id), 'SIGKILL');

    const healed = await until('the instance is ready again', async () => {
      const now = (await tenant.instances(app)).find((i) => i.id === victim!.id);
      return now?.state === 'READY' && now.restarts === 1 ? now : null;
    });
    expect(healed.release).toBe(2);
    expect((await tenant.logs(app)).join('\n')).toMatch(/signal|killed/i);
  });

  test('paused it is out of the route and says so; resumed it is what it was', async () => {
    const before = (await tenant.serving(app)).map(({ id, restarts }) => ({ id, restarts }));
    const order = (field: string) =>
      tenant.api.ask(`mutation ($input: AppInput!) { ${field}(input: $input) { id } }`, {
        input: { tenant: tenant.slug, app },
      });
    const state = (wanted: string) =>
      until(`every instance is ${wanted}`, async () =>
        (await tenant.serving(app)).every((each) => each.state === wanted),
      );
    const traffic = load(p.edgePort, tenant.host(app), '/info');
    await order('pauseApp');
    await state('PAUSED');
    const { failures } = await traffic.stop();
    // Each request was answered, by an instance or by the edge: none was sent to something frozen.
    expect(failures.filter((failure) => !failure.startsWith('503 '))).toEqual([]);
    const page = await visit(p.edgePort, tenant.host(app), '/info');
    expect(page).toMatchObject({ status: 503, body: expect.stringContaining('paused') });

    await order('resumeApp');
    await state('READY');
    await until('it serves', async () => (await answer()).greeting === 'two');
    expect((await tenant.serving(app)).map(({ id, restarts }) => ({ id, restarts }))).toEqual(
      before,
    );
  });

  test('rollback brings the first config back as a new release', async () => {
    await tenant.succeeded(await tenant.rollback(app));

    await until('the first greeting is served', async () => {
      const info = await answer();
      return info.greeting === 'one' && info.release === 'v3';
    });
  });

  test('a release that crashes never replaces the one that serves', async () => {
    const traffic = load(p.edgePort, tenant.host(app), '/info');
    const view = await tenant.finished(
      await tenant.deploy(app, image, [
        web({ count: 3, command: ['node', '-e', 'console.log("bad day"); process.exit(3)'] }),
      ]),
    );
    const { failures } = await traffic.stop();

    expect(view.status).toBe('FAILED');
    expect(view.failure).toMatchObject({ code: 'CRASHED', exitCode: 3 });
    expect(view.failure!.lastLines).toContain('bad day');
    expect(failures).toEqual([]);
    expect((await answer()).release).toBe('v3');
  });

  test('a deploy during a deploy supersedes it', async () => {
    const first = await tenant.deploy(app, image, [web({ count: 3 })]);
    const second = await tenant.deploy(app, image, [web({ count: 2 })]);

    await tenant.succeeded(second);
    expect((await tenant.finished(first)).status).toBe('SUPERSEDED');
    await until('two instances are left', async () => (await tenant.instances(app)).length === 2);
  });

  test('resized it goes on running, under its new limits', async () => {
    const before = (await tenant.serving(app)).map(({ id, restarts }) => ({ id, restarts }));
    const traffic = load(p.edgePort, tenant.host(app), '/info');
    const { resize } = await tenant.api.ask(
      'mutation ($input: ResizeInput!) { resize(input: $input) { id } }',
      { input: { tenant: tenant.slug, app, process: 'web', memoryMiB: 128, pids: 99 } },
    );
    await tenant.succeeded(resize.id);
    const { failures } = await traffic.stop();

    expect(failures).toEqual([]);
    expect((await tenant.serving(app)).map(({ id, restarts }) => ({ id, restarts }))).toEqual(
      before,
    );
    for (const { id } of before) expect(await p.cgroupFile(id, 'pids.max')).toBe('99');
  });

  test('stopped, the edge says so; started, it answers again', async () => {
    await tenant.succeeded(await tenant.stop(app));
    const stopped = await until('the edge knows', async () => {
      const answer = await visit(p.edgePort, tenant.host(app));
      return answer.status === 503 ? answer : null;
    });
    expect(stopped.body).toMatch(/stopped/i);
    expect(await tenant.serving(app)).toEqual([]);

    await tenant.succeeded(await tenant.start(app));
    await until('the app answers', answer);
  });

  test('deleted, everything is gone and the quota is returned', async () => {
    const ids = (await tenant.instances(app)).map((i) => i.id);
    await tenant.destroyApp(app);

    await until('the quota is returned', async () => {
      const used = await tenant.quota();
      return used['apps'] === 0 && used['instances'] === 0 && used['memoryMiB'] === 0;
    });
    await expect(tenant.instances(app)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect((await visit(p.edgePort, tenant.host(app))).status).toBe(404);
    for (const id of ids) {
      await until(`nothing is left of ${id}`, async () => {
        const remains = await p.remainsOf(id);
        if (remains.length > 0) throw new Error(remains.join('\n'));
        return true;
      });
    }
  });
});

function web(definition: { count: number; command?: string[] }) {
  return {
    name: 'web',
    port: 8080,
    memoryMiB: 96,
    healthCheck: { kind: 'HTTP', path: '/healthz', intervalSeconds: 0.5 },
    ...definition,
  };
}
