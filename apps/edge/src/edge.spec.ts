import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, statSync, unlinkSync } from 'node:fs';
import { Agent, get, request, type IncomingMessage } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import {
  addAnswers,
  answerPercentile,
  edgeHeartbeat,
  edgeTraffic,
  subjects,
  type HostTraffic,
} from '@bulkhead/protocol';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { initEdge } from './edge.ts';
import { edgeFiles } from './settings.ts';
import type { Echo } from './testing/backend.ts';
import { echoOf, routeOf, TestEdge } from './testing/edge.ts';
import { stopped, until } from './testing/machine.ts';

let at: TestEdge;
const controllers: ChildProcess[] = [];

describe('the edge', () => {
  beforeEach(async () => {
    at = await TestEdge.start();
  });

  afterEach(async () => {
    for (const child of controllers.splice(0)) {
      child.kill('SIGKILL');
      await stopped(child);
    }
    await at.stop();
  });

  it('makes a route appear, change and disappear', async () => {
    const [a, b] = [await at.backend('a'), await at.backend('b')];
    await at.settle(routeOf('x.localhost', [a]));
    expect(echoOf(await at.ask('x.localhost')).name).toBe('a');
    await at.settle(routeOf('x.localhost', [b]));
    expect(echoOf(await at.ask('x.localhost')).name).toBe('b');
    await at.settle(routeOf('x.localhost', [a, b]));
    const names = new Set<string>();
    for (let i = 0; i < 4; i += 1) names.add(echoOf(await at.ask('x.localhost')).name);
    expect(names).toEqual(new Set(['a', 'b']));
    await at.kv.delete('x.localhost');
    await until('the route is gone', async () => (await at.ask('x.localhost')).status === 404);
    // Back again, in another slot or the same.
    await at.settle(routeOf('x.localhost', [a]));
    expect(echoOf(await at.ask('x.localhost')).name).toBe('a');
  });

  it('splits requests by weight, and by another one with the next request', async () => {
    const [old, fresh] = [await at.backend('old'), await at.backend('fresh')];
    const split = (weight: number) => [
      { ...old.address, weight: 100 - weight },
      { ...fresh.address, weight },
    ];
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const part = async () => {
      const names = [];
      for (let n = 0; n < 100; n++) names.push(echoOf(await at.ask('x.test', '/', { agent })).name);
      return names.filter((name) => name === 'fresh').length;
    };
    await at.settle(routeOf('x.test', split(10)));
    expect(Math.abs((await part()) - 10)).toBeLessThanOrEqual(1);
    await at.settle(routeOf('x.test', split(50)));
    expect(Math.abs((await part()) - 50)).toBeLessThanOrEqual(1);
    await at.settle(routeOf('x.test', [old, fresh]));
    expect(Math.abs((await part()) - 50)).toBeLessThanOrEqual(1);
    agent.destroy();
  });

  it('refuses older revisions and acknowledges the same one again', async () => {
    const [a, b] = [await at.backend('a'), await at.backend('b')];
    const old = routeOf('x.localhost', [a]);
    const current = routeOf('x.localhost', [b]);
    await at.settle(current);
    await at.put(old);
    await until(
      'the edge answers with what it has',
      () => (at.applied.get('x.localhost')?.length ?? 0) >= 2,
    );
    expect(at.applied.get('x.localhost')).not.toContain(old.revision);
    expect(echoOf(await at.ask('x.localhost')).name).toBe('b');
    await at.put(current);
    await until('acknowledged again', () => (at.applied.get('x.localhost')?.length ?? 0) >= 3);
  });

  it('refuses routes whose text is not plain, and keeps the last good one', async () => {
    const a = await at.backend('a');
    await at.settle(routeOf('x.localhost', [a]));
    await at.put(
      routeOf('x.localhost', [
        { instance: 'i', host: '127.0.0.1 check\n  server evil 1.2.3.4', port: 80 },
      ]),
    );
    await at.put(routeOf('y.localhost', [{ instance: 'i', host: 'example.org', port: 80 }]));
    await at.settle(routeOf('z.localhost', [a]));
    expect(echoOf(await at.ask('x.localhost')).name).toBe('a');
    expect((await at.ask('y.localhost')).status).toBe(404);
  });

  it('says why an app does not answer, in HTML and JSON', async () => {
    const unknown = await at.ask('nobody.localhost');
    expect(unknown.status).toBe(404);
    expect(unknown.headers['x-bulkhead-error']).toBe('no-such-app');
    expect(unknown.body).toContain('No such app');
    for (const state of ['stopped', 'paused', 'starting', 'crashed'] as const) {
      await at.settle(routeOf('x.localhost', [], state));
      const html = await at.ask('x.localhost', '/', { headers: { accept: 'text/html,*/*' } });
      expect(html.status).toBe(503);
      expect(html.headers['content-type']).toContain('text/html');
      expect(html.headers['x-bulkhead-error']).toBe(state);
      expect(html.headers['retry-after'] !== undefined).toBe(
        !['stopped', 'paused'].includes(state),
      );
      const json = await at.ask('x.localhost', '/', { headers: { accept: 'application/json' } });
      expect(JSON.parse(json.body)).toMatchObject({ status: 503, error: state });
      expect(html.body.includes('Its owner can start it again')).toBe(state === 'stopped');
    }
    await at.settle(routeOf('x.localhost', [{ instance: 'dead', host: '127.0.0.1', port: 1 }]));
    const dead = await at.ask('x.localhost');
    expect(dead.status).toBe(503);
    expect(dead.headers['x-bulkhead-error']).toBe('unavailable');
  });

  it('tells the app who asks, whatever the client claims', async () => {
    await at.settle(routeOf('x.localhost', [await at.backend('a')]));
    const answer = await at.ask('X.LocalHost:8080', '/', {
      headers: {
        'x-forwarded-for': '6.6.6.6',
        'x-forwarded-host': 'evil',
        'x-forwarded-prefix': '/evil',
        'x-real-ip': '6.6.6.6',
        x_forwarded_for: '6.6.6.6',
        forwarded: 'for=6.6.6.6',
        'x-request-id': 'chosen',
        proxy: 'http://evil',
        connection: 'x-forwarded-for, x-request-id',
        upgrade: 'h2c',
      },
    });
    const { headers } = echoOf(answer);
    expect(headers).toMatchObject({
      host: 'X.LocalHost:8080',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': 'X.LocalHost:8080',
    });
    expect(headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
    expect(answer.headers['x-request-id']).toBe(headers['x-request-id']);
    for (const name of [
      'x-real-ip',
      'forwarded',
      'proxy',
      'x_forwarded_for',
      'x-forwarded-prefix',
      'upgrade',
    ])
      expect(headers[name]).toBeUndefined();
    expect(headers.connection ?? '').not.toContain('x-');
  });

  it('carries websockets, HTTP/2 by prior knowledge, streams and large bodies', async () => {
    await at.settle(routeOf('x.localhost', [await at.backend('a')]));
    const socket = new WebSocket(`ws://127.0.0.1:${at.port}/`, {
      headers: { host: 'x.localhost' },
    });
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    socket.terminate();

    const session = connectHttp2(`http://127.0.0.1:${at.port}`);
    const stream = session.request({ ':path': '/h2', ':authority': 'x.localhost' });
    let body = '';
    for await (const chunk of stream.setEncoding('utf8')) body += chunk;
    session.close();
    expect(JSON.parse(body)).toMatchObject({ name: 'a', url: '/h2' });

    const arrivals: number[] = [];
    await new Promise<void>((resolve, reject) => {
      get(
        { host: '127.0.0.1', port: at.port, path: '/stream', headers: { host: 'x.localhost' } },
        (response) => {
          response.on('data', () => arrivals.push(Date.now()));
          response.on('end', resolve);
        },
      ).on('error', reject);
    });
    expect(arrivals.length).toBeGreaterThan(1);

    const large = 256 * 1024 * 1024;
    const bytes = (path: string, method: string) =>
      new Promise<IncomingMessage>((resolve, reject) => {
        const headers = { host: 'x.localhost' };
        const call = request({ host: '127.0.0.1', port: at.port, path, method, headers }, resolve);
        call.on('error', reject);
        if (method === 'GET') call.end();
        else Readable.from(pieces(large)).pipe(call);
      });
    expect((await json(await bytes('/', 'POST'))) as Echo).toMatchObject({ bytes: large });
    let received = 0;
    for await (const piece of await bytes(`/bytes?${large}`, 'GET')) {
      received += (piece as Buffer).length;
    }
    expect(received).toBe(large);
  });

  it('loses no request while backends are swapped under load', async () => {
    let pair = [await at.backend('r0a'), await at.backend('r0b')];
    await at.settle(routeOf('x.localhost', pair));
    const get = at.load('x.localhost', 8);
    const post = at.load('x.localhost', 4, 'POST');
    for (let round = 1; round <= 8; round += 1) {
      const next = [await at.backend(`r${round}a`), await at.backend(`r${round}b`)];
      await at.settle(routeOf('x.localhost', next));
      for (const old of pair) {
        // The promise of the acknowledgement: nothing is on it, it may be killed.
        expect(old.active).toBe(0);
        old.kill();
      }
      pair = next;
      const [first] = next;
      await until('the new ones are asked', () => (first?.requests ?? 0) > 20);
    }
    await Promise.all([get.stop(), post.stop()]);
    expect(get.failures).toEqual([]);
    expect(post.failures).toEqual([]);
    expect(get.count() + post.count()).toBeGreaterThan(300);
  });

  it('lets a slow request end before it acknowledges, and cuts what lasts too long', async () => {
    const [a, b] = [await at.backend('a'), await at.backend('b')];
    await at.settle(routeOf('x.localhost', [a]));
    const slow = at.ask('x.localhost', '/slow?700');
    await until('it is on its way', () => a.active === 1);
    await at.settle(routeOf('x.localhost', [b]));
    expect(a.active).toBe(0);
    expect(echoOf(await slow).name).toBe('a');

    await at.restart({ drainMs: 300 });
    // A GET would be tried again on the new one.
    const endless = at.ask('x.localhost', '/slow?60000', { method: 'POST' });
    await until('it is on its way', () => b.active === 1);
    await at.settle(routeOf('x.localhost', [a]));
    expect(await endless).toMatchObject({ status: 502 });
  });

  it('hides a killed instance from clients', async () => {
    const [a, b] = [await at.backend('a'), await at.backend('b')];
    await at.settle(routeOf('x.localhost', [a, b]));
    const clients = at.load('x.localhost', 4);
    await until('both are asked', () => a.requests > 20 && b.requests > 20);
    a.kill();
    const seen = b.requests;
    await until('the other one serves', () => b.requests > seen + 200);
    await clients.stop();
    expect(clients.failures).toEqual([]);
  });

  it('keeps traffic flowing without its controller, and the controller carries on', async () => {
    const [a, b] = [await at.backend('a'), await at.backend('b')];
    await at.edge.stop();
    const main = join(import.meta.dirname, 'main.ts');
    const start = () => {
      const child = spawn(process.execPath, ['--conditions=@bulkhead/source', main], {
        stdio: ['ignore', 'ignore', 'inherit'],
        env: {
          ...process.env,
          NATS_URL: at.settings.natsUrl,
          NATS_CREDS_FILE: at.nats.edgeCreds,
          EDGE_ID: 'edge-1',
          EDGE_DIR: at.settings.dir,
          EDGE_BIND: at.settings.bind,
          EDGE_METRICS_PORT: String(at.settings.metricsPort),
          LOG_LEVEL: 'silent',
        },
      });
      controllers.push(child);
      return child;
    };
    const first = start();
    await at.settle(routeOf('x.localhost', [a]));
    const clients = at.load('x.localhost', 4);
    const slow = at.ask('x.localhost', '/slow?400');
    await until('it is on its way', () => a.active > 0);
    // Killed in the middle of a drain: the next one finishes it.
    const last = routeOf('x.localhost', [b]);
    await at.put(last);
    first.kill('SIGKILL');
    await stopped(first);
    start();
    await until('drained by the second', () =>
      at.applied.get('x.localhost')?.includes(last.revision),
    );
    expect(a.active).toBe(0);
    expect((await slow).status).toBe(200);
    await clients.stop();
    expect(clients.failures).toEqual([]);
  });

  it('brings a killed HAProxy back with the last table, also without NATS', async () => {
    await at.settle(routeOf('x.localhost', [await at.backend('a')]));
    await at.settle(routeOf('y.localhost', [], 'stopped'));
    await at.nats.stop();
    await at.haproxy.kill();
    await until('it serves again', async () => (await at.ask('x.localhost')).status === 200);
    expect((await at.ask('y.localhost')).headers['x-bulkhead-error']).toBe('stopped');
    // A change made while it starts must not get lost either.
    await at.nats.start();
    await at.watch();
    await at.haproxy.kill();
    const b = await at.backend('b');
    await at.settle(routeOf('x.localhost', [b]));
    await until(
      'the new backend serves',
      async () => echoOf(await at.ask('x.localhost')).name === 'b',
    );
  });

  it('keeps its routes when NATS lost everything, and starts from disk', async () => {
    await at.settle(routeOf('x.localhost', [await at.backend('a')]));
    await at.nats.wipe();
    await at.watch();
    const b = await at.backend('b');
    await at.settle(routeOf('y.localhost', [b]));
    expect((await at.ask('x.localhost')).status).toBe(200);
    await at.edge.stop();
    await at.nats.stop();
    await at.haproxy.stop();
    for (const file of ['config', 'map'] as const) unlinkSync(edgeFiles(at.settings.dir)[file]);
    initEdge(at.settings);
    at.haproxy.start();
    await until(
      'both serve',
      async () =>
        (await at.ask('x.localhost')).status === 200 &&
        (await at.ask('y.localhost')).status === 200,
    );
    await at.nats.start();
  });

  it('puts back what somebody changed in HAProxy', async () => {
    const a = await at.backend('a');
    await at.settle(routeOf('x.localhost', [a]));
    await haproxyCommandLine(`del map ${edgeFiles(at.settings.dir).map} x.localhost`);
    expect((await at.ask('x.localhost')).status).toBe(404);
    await until('healed', async () => (await at.ask('x.localhost')).status === 200, 20_000);
  });

  it('applies 1,000 routes and stays exact across reloads', async () => {
    const a = await at.backend('a');
    const hosts = Array.from({ length: 1000 }, (_, i) => `app-${i}.t${i % 50}.localhost`);
    const routes = hosts.map((host) => routeOf(host, [a]));
    for (const route of routes.slice(0, 1)) await at.put(route);
    await until('the first serves', async () => (await at.ask(hosts[0] ?? '')).status === 200);
    const clients = [at.load(hosts[0] ?? '', 2), at.load(hosts[0] ?? '', 2, 'POST')];
    await Promise.all(routes.slice(1).map((route) => at.put(route)));
    await until('all are applied', () => at.applied.size === 1000, 25_000);
    await Promise.all(clients.map((each) => each.stop()));
    for (const each of clients) expect(each.failures).toEqual([]);
    for (const host of [hosts[1], hosts[499], hosts[999]])
      expect((await at.ask(host ?? '')).status).toBe(200);
    const metrics = await (
      await fetch(`http://127.0.0.1:${at.settings.metricsPort}/metrics`)
    ).text();
    expect(metrics).toContain('bulkhead_edge_routes 1000');
    expect(metrics).toMatch(
      /bulkhead_edge_requests_total\{host="app-499.t49.localhost",code="2xx"\} 1/,
    );
    expect(metrics).toContain('bulkhead_edge_healed_total 0');
  });

  it('tells what it carried, also what a reload left behind', async () => {
    const told: HostTraffic[] = [];
    at.nats.api.subscribe(subjects.edgeTraffic('edge-1'), {
      callback: (_, message) => void told.push(...edgeTraffic.parse(message.json()).hosts),
    });
    await at.settle(routeOf('x.localhost', [await at.backend('a')]));
    await at.settle(routeOf('y.localhost', [{ instance: 'dead', host: '127.0.0.1', port: 1 }]));
    for (let n = 0; n < 3; n += 1) await at.ask('x.localhost', '/slow?20');
    const slow = at.ask('x.localhost', '/slow?500');
    expect((await at.ask('y.localhost')).status).toBe(503);
    const more = Array.from({ length: 100 }, (_, i) => routeOf(`more-${i}.localhost`, []));
    await Promise.all(more.map((route) => at.put({ ...route, state: 'stopped' })));
    await slow;
    await at.edge.stop();
    await at.nats.api.flush();
    const sum = (host: string, key: keyof HostTraffic) =>
      told.filter((each) => each.host === host).reduce((all, each) => all + Number(each[key]), 0);
    await until('all is told', () => sum('x.localhost', 'status2xx') === 4);
    expect(sum('x.localhost', 'waitedMs')).toBeGreaterThan(4 * 20);
    const times = told
      .filter(({ host }) => host === 'x.localhost')
      .reduce<number[]>((all, { answerTimes }) => addAnswers(all, answerTimes), []);
    expect(times.reduce((all, count) => all + count)).toBe(4);
    expect(answerPercentile(times, 0.25)).toBeGreaterThan(15);
    expect(answerPercentile(times, 1)).toBeGreaterThan(400);
    expect(sum('x.localhost', 'bytesOut')).toBeGreaterThan(100);
    expect(sum('y.localhost', 'status5xx')).toBe(1);
    expect(sum('y.localhost', 'failed')).toBeGreaterThanOrEqual(1);
  });

  it('waits for requests that a reload left in an old worker', async () => {
    const [a, b] = [await at.backend('a'), await at.backend('b')];
    await at.settle(routeOf('x.localhost', [a]));
    const slow = at.ask('x.localhost', '/slow?1500');
    await until('it is on its way', () => a.active === 1);
    const more = Array.from({ length: 100 }, (_, i) => routeOf(`more-${i}.localhost`, [b]));
    await Promise.all(more.map((route) => at.put(route)));
    await until('reloaded', () => at.applied.size === 101);
    const metrics = await (
      await fetch(`http://127.0.0.1:${at.settings.metricsPort}/metrics`)
    ).text();
    expect(metrics).toMatch(/bulkhead_edge_haproxy_reloads_total [1-9]/);
    expect(a.active).toBe(1);
    await at.settle(routeOf('x.localhost', [b]));
    expect(a.active).toBe(0);
    expect(echoOf(await slow).name).toBe('a');
  });

  it('serves a connection that idled through a reload by the new table', async () => {
    const [a, b] = [await at.backend('a'), await at.backend('b')];
    await at.settle(routeOf('x.localhost', [a]));
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    expect(echoOf(await at.ask('x.localhost', '/', { agent })).name).toBe('a');
    const more = Array.from({ length: 100 }, (_, i) => routeOf(`more-${i}.localhost`, [b]));
    await Promise.all(more.map((route) => at.put(route)));
    await until('reloaded', () => at.applied.size === 101);
    await at.settle(routeOf('x.localhost', [b]));
    a.kill();
    const answer = await at.ask('x.localhost', '/', { agent, method: 'POST', body: 'x' });
    expect(echoOf(answer)).toMatchObject({
      name: 'b',
      bytes: 1,
      headers: { 'x-forwarded-for': '127.0.0.1' },
    });
    expect(answer.headers.connection).toBe('close');
    agent.destroy();
  });

  it('survives the end of a worker alone', async () => {
    await at.settle(routeOf('x.localhost', [await at.backend('a')]));
    const children = readFileSync(
      `/proc/${at.haproxy.pid}/task/${at.haproxy.pid}/children`,
      'utf8',
    );
    for (const pid of children.trim().split(' ')) process.kill(Number(pid), 'SIGKILL');
    await until('it serves again', async () => (await at.ask('x.localhost')).status === 200);
    await at.settle(routeOf('y.localhost', [await at.backend('b')]));
  });

  it('beats once a second, answers /healthz and keeps its sockets private', async () => {
    const beats: unknown[] = [];
    at.nats.api.subscribe(subjects.edgeHeartbeat('edge-1'), {
      callback: (_, message) => void beats.push(message.json()),
    });
    await until('two heartbeats', () => beats.length >= 2);
    expect(edgeHeartbeat.parse(beats[0]).routes).toBe(0);
    const health = await fetch(`http://127.0.0.1:${at.settings.metricsPort}/healthz`);
    expect(await health.json()).toEqual({ haproxy: true, nats: true, routes: 0 });
    expect(statSync(edgeFiles(at.settings.dir).masterSocket).mode & 0o777).toBe(0o600);
    expect(statSync(edgeFiles(at.settings.dir).routes).mode & 0o777).toBe(0o600);
    expect(readFileSync(edgeFiles(at.settings.dir).config, 'utf8')).toContain(
      `bind ${at.settings.bind}`,
    );
  });
});

/** As an operator would with socat. */
async function haproxyCommandLine(command: string): Promise<void> {
  const socket = connectTcp(edgeFiles(at.settings.dir).masterSocket);
  socket.end(`@1 ${command}\n`);
  socket.resume();
  await Promise.race([new Promise((resolve) => socket.once('close', resolve)), delay(2000)]);
}

function* pieces(bytes: number): Generator<Buffer> {
  const piece = Buffer.alloc(1024 * 1024, 'x');
  for (let left = bytes; left > 0; left -= piece.length) yield piece.subarray(0, left);
}
