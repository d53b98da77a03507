import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { RuntimeError } from '@bulkhead/runtime';
import { expect, onTestFinished, test } from 'vitest';
import { serveMetrics } from './metrics.ts';
import { gone } from './spec-fixtures.ts';
import { ControlPlane, eventually, Host, NatsServer, node } from './testing.ts';

const one = 'iaaaaaaaaaaaa';
const two = 'ibbbbbbbbbbbb';

async function platform() {
  const nats = await NatsServer.start();
  const plane = await ControlPlane.on(nats);
  const host = await Host.on(nats);
  return { nats, plane, host };
}

async function metric(host: Host, name: string): Promise<string | undefined> {
  const text = await host.agent?.metrics.registry.metrics();
  return text?.split('\n').find((line) => line.startsWith(name));
}

test('what is wanted runs, with its config opened, and is reported until ready', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec({ port: null }, { GREETING: 'hi', BULKHEAD_APP: 'mine' }));

  const report = await plane.state(one, 'ready');
  expect(report).toMatchObject({ generation: 1, restarts: 0, address: null, exit: null });
  expect(host.runtime.containers.get(one)?.spec).toMatchObject({
    tenantId: '11111111-1111-4111-8111-111111111111',
    env: {
      HOSTNAME: one,
      GREETING: 'hi',
      BULKHEAD_APP: 'mine',
      BULKHEAD_TENANT: 'demo',
      BULKHEAD_RELEASE: 'v3',
    },
  });
  const states = plane.reports.map((r) => r.state);
  expect(states.indexOf('pulling')).toBeLessThan(states.indexOf('ready'));
  // The state on disk holds the config sealed only.
  const stored = await readFile(join(host.nodeDir, 'desired', `${one}.json`), 'utf8');
  expect(stored).not.toContain('GREETING');
});

test('a process with a port is ready when it listens, at the address told', async () => {
  const { plane, host } = await platform();
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  await host.startAgent();
  await plane.want(await host.spec({ port }));

  const report = await plane.state(one, 'ready');
  expect(report.address).toEqual({ host: '127.0.0.1', port });
  expect(host.runtime.containers.get(one)?.spec.env['PORT']).toBe(String(port));
});

test('a port on which nobody listens is said so, and nothing is restarted for it', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec({ port: 1 }));

  const report = await eventually('the message', () => {
    const latest = plane.latest(one);
    return latest?.message != null && latest;
  });
  expect(report).toMatchObject({ state: 'running', restarts: 0 });
  expect(report.message).toContain('nothing listens on port 1');
});

test('the image, command or config at fault is named, and only a new generation is tried at once', async () => {
  const { plane, host } = await platform();
  const spec = await host.spec();
  const broken = new RuntimeError(
    'image-not-found',
    'demo/hello@sha256:aaa is not in the registry',
  );
  host.runtime.brokenImages.set(spec.image.digest, broken);
  await host.startAgent();
  await plane.want(spec);

  const failed = await plane.state(one, 'failed');
  expect(failed.exit).toMatchObject({ reason: 'image-not-found', message: broken.message });
  expect(host.runtime.calls.ensureImage).toBe(1);

  host.runtime.brokenImages.clear();
  await plane.want({ ...spec, generation: 2 });
  expect(await plane.state(one, 'ready')).toMatchObject({ generation: 2, exit: null });
});

test('config sealed for another node fails with a reason and no secret', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want({ ...(await host.spec({}, { SECRET: 'x' })), sealedEnv: 'no such thing' });
  const report = await plane.state(one, 'failed');
  expect(report.message).toBe('its config cannot be opened on this node: deploy again');
});

test('a crash is restarted after a while and tells its last lines', async () => {
  const { plane, host } = await platform();
  host.runtime.behaviour = () => ({
    lines: Array.from({ length: 30 }, (_, i) => `line ${i}`),
    exitCode: 3,
  });
  await host.startAgent();
  await plane.want(await host.spec());

  const report = await eventually('three restarts', () => {
    const latest = plane.latest(one);
    return (latest?.restarts ?? 0) >= 3 && latest?.state === 'backoff' && latest;
  });
  expect(report.exit).toMatchObject({
    reason: 'exited',
    exitCode: 3,
    message: 'exited with code 3',
  });
  expect(report.exit?.lastLines).toEqual(Array.from({ length: 20 }, (_, i) => `line ${i + 10}`));
  await eventually('the platform line', () =>
    plane
      .lines(one)
      .some((line) => line.startsWith('platform: exited with code 3; starts again in')),
  );

  host.runtime.behaviour = () => ({ lines: ['fine'], exitCode: -1 });
  expect((await plane.state(one, 'ready')).exit).toBeNull();
});

test('what ended with its host is started at once, as no crash of its own', async () => {
  const { plane, host } = await platform();
  await host.startAgent({ firstDelay: 60_000, longestDelay: 60_000 });
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  await host.stopAgent();
  host.runtime.exit(one, { rebooted: true });
  await host.startAgent({ firstDelay: 60_000, longestDelay: 60_000 });
  await eventually('it runs again', () => plane.latest(one)?.restarts === 1);
  expect(await plane.state(one, 'ready')).toMatchObject({ restarts: 1 });
  expect(host.runtime.calls.start).toBe(2);
});

test('out of memory is told apart', async () => {
  const { plane, host } = await platform();
  await host.startAgent({ firstDelay: 60_000, longestDelay: 60_000 });
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  host.runtime.exit(one, { signal: 'SIGKILL', oomKilled: true });
  const report = await plane.state(one, 'backoff');
  expect(report.exit).toMatchObject({ reason: 'oom', signal: 'SIGKILL' });
  expect(report.message).toContain('128 MiB');
});

test('a full disk is told apart', async () => {
  const { plane, host } = await platform();
  await host.startAgent({ firstDelay: 60_000, longestDelay: 60_000 });
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  host.runtime.exit(one, { exitCode: 1, diskFull: true });
  const report = await plane.state(one, 'backoff');
  expect(report.exit).toMatchObject({ reason: 'disk-full', exitCode: 1 });
  expect(report.message).toContain('512 MiB');
});

test('a failing health check takes it out of service and then restarts it', async () => {
  const { plane, host } = await platform();
  let healthy = true;
  const server = createServer((_, response) => response.writeHead(healthy ? 200 : 503).end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const health = {
    kind: 'http' as const,
    path: '/up',
    intervalSeconds: 0.1,
    timeoutSeconds: 1,
    failureThreshold: 3,
    successThreshold: 1,
    startupGraceSeconds: 0,
  };
  await host.startAgent();
  await plane.want(await host.spec({ port, health }));
  await plane.state(one, 'ready');

  healthy = false;
  const ill = await eventually('the exit', () => plane.reports.find((r) => r.exit !== null));
  expect(plane.reports.some((r) => r.state === 'unready')).toBe(true);
  expect(ill.exit).toMatchObject({
    reason: 'health',
    message: 'its health check failed 3 times in a row: GET /up answered 503',
  });
  healthy = true;
  expect((await plane.state(one, 'ready')).restarts).toBeGreaterThan(0);
});

test('older generations are refused, garbage is skipped, both are counted', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec({ generation: 5 }));
  await plane.state(one, 'ready');

  await plane.want(gone({ generation: 4 }));
  await plane.wantGarbage(two, '{"v":1,"desired":"running"');
  await plane.wantGarbage('icccccccccccc', JSON.stringify(gone({ instance: two })));
  await plane.want(await host.spec({ instance: 'idddddddddddd' }));
  await plane.state('idddddddddddd', 'ready');

  expect(host.runtime.containers.get(one)?.status.state).toBe('running');
  expect(await metric(host, 'bulkhead_agent_specs_refused_total{why="stale"}')).toMatch(/ 1$/);
  expect(await metric(host, 'bulkhead_agent_specs_refused_total{why="malformed"}')).toMatch(/ 2$/);
});

test('another generation of the same replaces nothing, of something else it does', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec({ generation: 1 }, { A: '1', B: '2' }));
  await plane.state(one, 'ready');
  await plane.want(await host.spec({ generation: 2 }, { B: '2', A: '1' }));
  await eventually('generation 2', () => plane.latest(one)?.generation === 2);
  expect(host.runtime.calls).toMatchObject({ start: 1, stop: 0 });

  await plane.want(await host.spec({ generation: 3 }, { A: 'changed' }));
  await eventually(
    'the new config',
    () => host.runtime.containers.get(one)?.spec.env['A'] === 'changed',
  );
  expect(await plane.state(one, 'ready')).toMatchObject({ generation: 3, restarts: 0, exit: null });
});

test('gone is removed, reported, and forgotten when its key is; twice is no harm', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');

  await plane.want(gone({ generation: 2 }));
  const first = await plane.state(one, 'gone');
  expect(host.runtime.containers.size).toBe(0);
  await plane.want(gone({ generation: 2 }));
  await eventually('being told again', () => (plane.latest(one)?.seq ?? 0) > first.seq);
  expect(host.runtime.calls.remove).toBe(1);

  await plane.dropKey(one);
  await eventually('forgetting', () => host.agent?.health().instances === 0);
  await plane.want(gone({ generation: 3 }));
  expect(await plane.state(one, 'gone')).toBeTruthy();
  await eventually('being told of generation 3', () => plane.latest(one)?.generation === 3);
});

test('an agent that starts again carries on with what runs', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  const pid = host.runtime.containers.get(one)?.status.pid;

  await host.stopAgent();
  expect(host.runtime.containers.get(one)?.status.state).toBe('running');
  const before = plane.reports.length;
  await host.startAgent();
  await eventually('a report', () => plane.reports.length > before);

  // It was ready and is told so at once: no edge takes it out of service for our restart.
  expect(plane.reports.slice(before).map((r) => r.state)).toEqual(
    plane.reports.slice(before).map(() => 'ready'),
  );
  expect(host.runtime.containers.get(one)?.status.pid).toBe(pid);
  const sequence = plane.reports.map((r) => r.seq);
  expect(sequence).toEqual([...sequence].sort((a, b) => a - b));

  host.runtime.exit(one, { exitCode: 1 });
  await eventually('the restart', () => (plane.latest(one)?.restarts ?? 0) === 1);
});

test('what a host must stop that was away comes before anything it is to start', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  await host.stopAgent();
  const others = Array.from({ length: 5 }, (_, n) => `i${String(n).padStart(12, 'a')}`);
  host.runtime.slow = one;
  for (const instance of others) await plane.want(await host.spec({ instance }));
  await plane.want(gone({ generation: 2 }));

  await host.startAgent();
  await plane.state(one, 'gone');
  for (const instance of others) await plane.state(instance, 'ready');
  expect(host.runtime.order.slice(0, 2)).toEqual([`start ${one}`, `stop ${one}`]);
});

test('without NATS the last desired state runs, and changes come when NATS does', async () => {
  const { nats, plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  await host.stopAgent();
  await nats.down();

  // The host restarts meanwhile: its containers are gone.
  host.runtime.containers.clear();
  await host.startAgent();
  await eventually('the container', () => host.runtime.containers.has(one));
  host.runtime.exit(one, { exitCode: 1 });
  await eventually(
    'its restart',
    () => host.runtime.containers.get(one)?.status.state === 'running',
  );

  await nats.up();
  await eventually('a report', () => (plane.latest(one)?.restarts ?? 0) === 2);
  await plane.want(await host.spec({ instance: two }));
  await plane.state(two, 'ready');
});

test('a wiped NATS stops nothing, and what it missed is reported when it can be', async () => {
  const { nats, plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  await nats.down();
  await nats.wipe();
  host.runtime.exit(one, { exitCode: 9 });
  await nats.up();

  // Streams are missing at first, then empty.
  await eventually('the streams', () =>
    plane.makeStreams().then(
      () => true,
      () => false,
    ),
  );
  await eventually('the report', () => plane.latest(one)?.restarts === 1);
  await plane.want(await host.spec({ instance: two }));
  await plane.state(two, 'ready');
  expect(host.runtime.containers.get(one)?.status.state).toBe('running');
  expect(host.runtime.calls).toMatchObject({ stop: 0, remove: 0 });
});

test('a lost consumer is made anew, and nothing is missed', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  await plane.manager.consumers.delete('KV_desired', `desired-${node}`);
  await plane.want(await host.spec({ instance: two }));
  await plane.state(two, 'ready');
});

test("another node's consumer pointed at our inbox changes nothing", async () => {
  const { plane, host } = await platform();
  let inbox: string | undefined;
  plane.connection.subscribe(`$JS.API.CONSUMER.MSG.NEXT.KV_desired.desired-${node}`, {
    callback: (_, message) => void (inbox = message.reply),
  });
  await host.startAgent();
  const reply = await eventually('the inbox', () => inbox);
  await plane.manager.consumers.add('KV_desired', {
    name: 'desired-nbbbbbbbbbbbb',
    filter_subject: '$KV.desired.nbbbbbbbbbbbb.>',
  });
  const foreign = JSON.stringify(await host.spec({ instance: two }));
  plane.connection.publish('$KV.desired.nbbbbbbbbbbbb.ibbbbbbbbbbbb', foreign);
  plane.connection.publish(
    '$JS.API.CONSUMER.MSG.NEXT.KV_desired.desired-nbbbbbbbbbbbb',
    JSON.stringify({ batch: 1 }),
    { reply },
  );
  await plane.want(await host.spec());
  await plane.state(one, 'ready');
  expect([...host.runtime.containers.keys()]).toEqual([one]);
});

test('many at once run, and one that cannot stops none', async () => {
  const { plane, host } = await platform();
  const ids = Array.from({ length: 40 }, (_, i) => `i${String(i).padStart(12, 'x')}`);
  const bad = ids[7] ?? '';
  host.runtime.brokenStarts.set(bad, new Error('the kernel says no: /host/path'));
  for (const instance of ids) await plane.want(await host.spec({ instance }));
  await host.startAgent();
  for (const instance of ids) if (instance !== bad) await plane.state(instance, 'ready');
  const report = await plane.state(bad, 'backoff');
  expect(report.exit?.reason).toBe('start-failed');
  expect(JSON.stringify(report)).not.toContain('/host/path');
});

test('health and metrics are served, and health waits for the start', async () => {
  const { plane, host } = await platform();
  const agent = await host.startAgent();
  const server = await serveMetrics(0, agent.metrics, () => agent.health());
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const get = (path: string) => fetch(`http://127.0.0.1:${port}${path}`);
  await plane.want(await host.spec());
  await plane.state(one, 'ready');

  expect(await (await get('/healthz')).json()).toMatchObject({ status: 'ok', nats: 'connected' });
  const metrics = await (await get('/metrics')).text();
  expect(metrics).toContain('bulkhead_agent_instances{state="ready"} 1');
  expect(metrics).toContain('bulkhead_agent_starts_total{outcome="started"} 1');
  expect(metrics).toContain('bulkhead_agent_verb_seconds_count{verb="start",outcome="done"} 1');
  expect(metrics).toContain('bulkhead_agent_containers_processes 0');
  expect(metrics).toMatch(/^bulkhead_agent_slots\{kind="used"\} \d+$/m);
  expect(metrics).toMatch(/^bulkhead_agent_image_bytes \d+$/m);
  expect((await get('/other')).status).toBe(404);
});

test('heartbeats tell capacity, facts and images', async () => {
  const { plane, host } = await platform();
  const beats: unknown[] = [];
  plane.connection.subscribe(`heartbeat.${node}`, {
    callback: (_, message) => void beats.push(message.json()),
  });
  await host.startAgent();
  const beat = await eventually('a heartbeat', () => beats[0]);
  expect(beat).toMatchObject({
    capacity: { maxInstances: 1500, cpuMillis: expect.any(Number) },
    facts: { hostname: 'fake', missingWalls: ['io-limit'] },
  });
});

test('changed limits are applied to what runs, and survive a restart of the agent', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  const spec = await host.spec();
  await plane.want(spec);
  await plane.state(one, 'ready');
  const resources = { ...spec.resources, memoryMiB: 256, cpuCapMillis: 2000 };
  await plane.want({ ...spec, generation: 2, resources });
  await eventually('generation 2', () => plane.latest(one)?.generation === 2);
  expect(host.runtime.calls).toMatchObject({ start: 1, update: 1, stop: 0 });
  expect(host.runtime.containers.get(one)?.spec.resources).toEqual(resources);

  await host.stopAgent();
  await host.startAgent();
  await plane.want({ ...spec, generation: 3, resources });
  await eventually('generation 3', () => plane.latest(one)?.generation === 3);
  expect(host.runtime.calls).toMatchObject({ start: 1, update: 1, stop: 0 });
});

test('limits that cannot be changed while it runs start it anew', async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  const spec = await host.spec();
  await plane.want(spec);
  await plane.state(one, 'ready');
  host.runtime.brokenUpdates.set(one, new RuntimeError('limit-refused', 'It uses more memory.'));
  const resources = { ...spec.resources, memoryMiB: 32 };
  await plane.want({ ...spec, generation: 2, resources });
  await eventually(
    'generation 2',
    () =>
      plane.latest(one)?.generation === 2 &&
      plane.latest(one)?.state === 'ready' &&
      host.runtime.calls.start === 2,
  );
  expect(host.runtime.calls).toMatchObject({ start: 2, update: 1, stop: 1 });
  expect(host.runtime.containers.get(one)?.spec.resources).toEqual(resources);
  expect(plane.latest(one)).toMatchObject({ restarts: 0, exit: null });
});

test("the youngest word on a tenant's limits counts for all its instances", async () => {
  const { plane, host } = await platform();
  await host.startAgent();
  const older = await host.spec();
  const limited = (cpuCapMillis: number, asOf: number) => ({
    ...older.tenant,
    limits: { cpuWeight: 100, cpuCapMillis, pids: null, asOf },
  });
  await plane.want({ ...(await host.spec({ instance: two })), tenant: limited(3000, 20) });
  await plane.state(two, 'ready');
  await plane.want({ ...older, tenant: limited(2000, 10) });
  await plane.state(one, 'ready');
  const limitsOf = (id: string) => host.runtime.containers.get(id)?.spec.tenantLimits.cpuCapMillis;
  expect([limitsOf(one), limitsOf(two)]).toEqual([3000, 3000]);
  await plane.want({ ...older, generation: 2, tenant: limited(1000, 30) });
  await eventually('the update', () => limitsOf(one) === 1000);
  expect(host.runtime.calls).toMatchObject({ start: 2, update: 1, stop: 0 });
});
