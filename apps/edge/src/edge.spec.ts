import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, unlinkSync } from 'node:fs';
import { Agent, get, request } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  edgeApplied,
  edgeHeartbeat,
  subjects,
  type Route,
  type RouteBackend,
} from '@bulkhead/protocol';
import type { KV } from '@nats-io/kv';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { Edge, initEdge } from './edge.ts';
import { edgeFiles, type EdgeSettings } from './settings.ts';
import { TestBackend, type Echo } from './testing/backend.ts';
import { freePort, stopped, TestHaproxy, until } from './testing/machine.ts';
import { TestNats } from './testing/nats.ts';

let dir: string;
let settings: EdgeSettings;
let edge: Edge;
let haproxy: TestHaproxy;
let nats: TestNats;
let kv: KV;
let port: number;
let revision = 0;
let applied: Map<string, number[]>;
const backends: TestBackend[] = [];
const controllers: ChildProcess[] = [];

const log = pino({ level: process.env['LOG_LEVEL'] ?? 'silent' });

async function backend(name: string): Promise<TestBackend> {
  const made = await TestBackend.start(name);
  backends.push(made);
  return made;
}

function routeOf(
  host: string,
  to: readonly TestBackend[] | readonly RouteBackend[],
  state: Route['state'] = 'serving',
): Route {
  revision += 1;
  const addresses = to.map((each) => (each instanceof TestBackend ? each.address : each));
  return { v: 1, host, tenant: 'demo', app: 'a', state, backends: addresses, revision };
}

async function put(route: Route): Promise<Route> {
  await nats.put(kv, route);
  return route;
}

/** Publishes the route and waits until the edge says that it serves by it. */
async function settle(route: Route, deadlineMs = 10_000): Promise<void> {
  await put(route);
  await until(
    `${route.host} is applied`,
    () => applied.get(route.host)?.includes(route.revision),
    deadlineMs,
  );
}

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

function ask(
  host: string,
  path = '/',
  options: { headers?: Record<string, string>; method?: string; body?: string; agent?: Agent } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request(
      {
        host: '127.0.0.1',
        port,
        path,
        method: options.method ?? 'GET',
        agent: options.agent ?? new Agent(),
        headers: { host, ...options.headers },
      },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
        );
        response.on('error', reject);
      },
    );
    call.on('error', reject);
    call.end(options.body);
  });
}

const echoOf = (answer: Answer): Echo => JSON.parse(answer.body) as Echo;

/** Raw bytes in, raw answer out; the connection is ours to abuse. */
function raw(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp(port, '127.0.0.1');
    let answer = '';
    socket.on('data', (chunk) => (answer += chunk.toString('latin1')));
    socket.on('close', () => resolve(answer));
    socket.on('error', reject);
    socket.end(text);
  });
}

/** Clients that keep their connections and ask without pause. */
function load(host: string, clients: number, method = 'GET') {
  const failures: string[] = [];
  const names = new Map<string, number>();
  let running = true;
  let count = 0;
  const loops = Array.from({ length: clients }, async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    while (running) {
      try {
        const answer = await ask(host, '/slow?2', {
          agent,
          method,
          ...(method === 'POST' ? { body: 'x' } : {}),
        });
        count += 1;
        if (answer.status !== 200) failures.push(`${answer.status}`);
        else names.set(echoOf(answer).name, (names.get(echoOf(answer).name) ?? 0) + 1);
      } catch (error) {
        failures.push(String(error));
      }
    }
    agent.destroy();
  });
  return {
    failures,
    names,
    count: () => count,
    stop: async () => {
      running = false;
      await Promise.all(loops);
    },
  };
}

async function watchEdge(): Promise<void> {
  applied = new Map();
  nats.api.subscribe(subjects.allEdgeApplied, {
    callback: (_, message) => {
      const { host, revision: at } = edgeApplied.parse(message.json());
      applied.set(host, [...(applied.get(host) ?? []), at]);
    },
  });
  await nats.api.flush();
}

describe('the edge', () => {
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'edge-'));
    nats = await TestNats.make(dir, 'edge-1');
    await nats.start();
    kv = await nats.bucket();
    await watchEdge();
    port = await freePort();
    settings = {
      natsUrl: nats.url,
      natsCredsFile: nats.edgeCreds,
      id: 'edge-1',
      dir: join(dir, 'e'),
      bind: `127.0.0.1:${port}`,
      metricsPort: await freePort(),
      haproxyUser: process.getuid?.() === 0 ? 'haproxy' : null,
      drainMs: 30_000,
      accessLog: 'errors',
      logLevel: 'silent',
    };
    initEdge(settings);
    haproxy = new TestHaproxy(settings.dir);
    haproxy.start();
    edge = new Edge(settings, log);
    await edge.start();
    const ours = async () => (await ask('nobody')).headers['x-bulkhead-error'] === 'no-such-app';
    await until('haproxy serves', ours);
  });

  afterEach(async () => {
    for (const child of controllers.splice(0)) {
      child.kill('SIGKILL');
      await stopped(child);
    }
    await edge.stop();
    await haproxy.stop();
    await nats.stop();
    for (const each of backends.splice(0)) each.kill();
    rmSync(dir, { recursive: true, force: true });
  });

  it('makes a route appear, change and disappear', async () => {
    const [a, b] = [await backend('a'), await backend('b')];
    await settle(routeOf('x.localhost', [a]));
    expect(echoOf(await ask('x.localhost')).name).toBe('a');
    await settle(routeOf('x.localhost', [b]));
    expect(echoOf(await ask('x.localhost')).name).toBe('b');
    await settle(routeOf('x.localhost', [a, b]));
    const names = new Set<string>();
    for (let i = 0; i < 4; i += 1) names.add(echoOf(await ask('x.localhost')).name);
    expect(names).toEqual(new Set(['a', 'b']));
    await kv.delete('x.localhost');
    await until('the route is gone', async () => (await ask('x.localhost')).status === 404);
    // Back again, in another slot or the same.
    await settle(routeOf('x.localhost', [a]));
    expect(echoOf(await ask('x.localhost')).name).toBe('a');
  });

  it('splits requests by weight, and by another one with the next request', async () => {
    const [old, fresh] = [await backend('old'), await backend('fresh')];
    const split = (weight: number) => [
      { ...old.address, weight: 100 - weight },
      { ...fresh.address, weight },
    ];
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const part = async () => {
      const names = [];
      for (let n = 0; n < 100; n++) names.push(echoOf(await ask('x.test', '/', { agent })).name);
      return names.filter((name) => name === 'fresh').length;
    };
    await settle(routeOf('x.test', split(10)));
    expect(Math.abs((await part()) - 10)).toBeLessThanOrEqual(1);
    await settle(routeOf('x.test', split(50)));
    expect(Math.abs((await part()) - 50)).toBeLessThanOrEqual(1);
    await settle(routeOf('x.test', [old, fresh]));
    expect(Math.abs((await part()) - 50)).toBeLessThanOrEqual(1);
    agent.destroy();
  });

  it('refuses older revisions and acknowledges the same one again', async () => {
    const [a, b] = [await backend('a'), await backend('b')];
    const old = routeOf('x.localhost', [a]);
    const current = routeOf('x.localhost', [b]);
    await settle(current);
    await put(old);
    await until(
      'the edge answers with what it has',
      () => (applied.get('x.localhost')?.length ?? 0) >= 2,
    );
    expect(applied.get('x.localhost')).not.toContain(old.revision);
    expect(echoOf(await ask('x.localhost')).name).toBe('b');
    await put(current);
    await until('acknowledged again', () => (applied.get('x.localhost')?.length ?? 0) >= 3);
  });

  it('refuses routes whose text is not plain, and keeps the last good one', async () => {
    const a = await backend('a');
    await settle(routeOf('x.localhost', [a]));
    await put(
      routeOf('x.localhost', [
        { instance: 'i', host: '127.0.0.1 check\n  server evil 1.2.3.4', port: 80 },
      ]),
    );
    await put(routeOf('y.localhost', [{ instance: 'i', host: 'example.org', port: 80 }]));
    await settle(routeOf('z.localhost', [a]));
    expect(echoOf(await ask('x.localhost')).name).toBe('a');
    expect((await ask('y.localhost')).status).toBe(404);
  });

  it('says why an app does not answer, in HTML and JSON', async () => {
    const unknown = await ask('nobody.localhost');
    expect(unknown.status).toBe(404);
    expect(unknown.headers['x-bulkhead-error']).toBe('no-such-app');
    expect(unknown.body).toContain('No such app');
    for (const state of ['stopped', 'paused', 'starting', 'crashed'] as const) {
      await settle(routeOf('x.localhost', [], state));
      const html = await ask('x.localhost', '/', { headers: { accept: 'text/html,*/*' } });
      expect(html.status).toBe(503);
      expect(html.headers['content-type']).toContain('text/html');
      expect(html.headers['x-bulkhead-error']).toBe(state);
      expect(html.headers['retry-after'] !== undefined).toBe(
        !['stopped', 'paused'].includes(state),
      );
      const json = await ask('x.localhost', '/', { headers: { accept: 'application/json' } });
      expect(JSON.parse(json.body)).toMatchObject({ status: 503, error: state });
      expect(html.body.includes('Its owner can start it again')).toBe(state === 'stopped');
    }
    await settle(routeOf('x.localhost', [{ instance: 'dead', host: '127.0.0.1', port: 1 }]));
    const dead = await ask('x.localhost');
    expect(dead.status).toBe(503);
    expect(dead.headers['x-bulkhead-error']).toBe('unavailable');
  });

  it('tells the app who asks, whatever the client claims', async () => {
    await settle(routeOf('x.localhost', [await backend('a')]));
    const { headers } = echoOf(
      await ask('X.LocalHost:8080', '/', {
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
      }),
    );
    expect(headers).toMatchObject({
      host: 'X.LocalHost:8080',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': 'X.LocalHost:8080',
    });
    expect(headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
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

  it('matches the host exactly and refuses bad requests', async () => {
    await settle(routeOf('x.localhost', [await backend('a')]));
    for (const host of [
      'evil.x.localhost',
      'x.localhost.evil',
      'xx.localhost',
      'x.localhos',
      'b0',
      'none',
      '',
    ]) {
      expect((await ask(host)).status, host).toBe(404);
    }
    const status = async (text: string) => (await raw(text)).split(' ')[1];
    expect(await status('GET / HTTP/1.1\r\nHost: x.localhost\r\nHost: y.localhost\r\n\r\n')).toBe(
      '400',
    );
    expect(await status('GET http://y.localhost/ HTTP/1.1\r\nHost: x.localhost\r\n\r\n')).toBe(
      '400',
    );
    expect(await status('GET /#x HTTP/1.1\r\nHost: x.localhost\r\n\r\n')).toBe('400');
    expect(await status('GET / HTTP/1.1\r\nHost: x.localhost:80\r\n\r\n')).toBe('200');
    for (const host of [
      'y.localhost,x.localhost',
      'x.localhost\0',
      'x.localhost:a',
      'y@x.localhost',
    ]) {
      expect(await status(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`), host).toBe('400');
    }
    expect(await status('GET / HTTP/1.1\r\n\r\n')).toBe('400');
    expect(await status('GET / HTTP/1.1\r\nHost: x.localhost\r\nbad header: 1\r\n\r\n')).toBe(
      '400',
    );
    expect(
      await status(
        'GET / HTTP/1.1\r\nHost: x.localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
      ),
    ).toBe('400');
    expect(
      await status(`GET / HTTP/1.1\r\nHost: x.localhost\r\nX: ${'a'.repeat(40_000)}\r\n\r\n`),
    ).toBe('400');
    // Both lengths: chunks decide, nothing of it becomes a second request.
    const smuggled = await raw(
      'POST / HTTP/1.1\r\nHost: x.localhost\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x.localhost\r\n\r\n',
    );
    expect(smuggled).not.toContain('/smuggled');
  });

  it('carries websockets, HTTP/2 by prior knowledge, streams and large bodies', async () => {
    await settle(routeOf('x.localhost', [await backend('a')]));
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { host: 'x.localhost' } });
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    socket.terminate();

    const session = connectHttp2(`http://127.0.0.1:${port}`);
    const stream = session.request({ ':path': '/h2', ':authority': 'x.localhost' });
    let body = '';
    for await (const chunk of stream.setEncoding('utf8')) body += chunk;
    session.close();
    expect(JSON.parse(body)).toMatchObject({ name: 'a', url: '/h2' });

    const pieces: number[] = [];
    await new Promise<void>((resolve, reject) => {
      get(
        { host: '127.0.0.1', port, path: '/stream', headers: { host: 'x.localhost' } },
        (response) => {
          response.on('data', () => pieces.push(Date.now()));
          response.on('end', resolve);
        },
      ).on('error', reject);
    });
    expect(pieces.length).toBeGreaterThan(1);

    const large = 'x'.repeat(8 * 1024 * 1024);
    expect(echoOf(await ask('x.localhost', '/', { method: 'POST', body: large })).bytes).toBe(
      large.length,
    );
  });

  it('loses no request while backends are swapped under load', async () => {
    let pair = [await backend('r0a'), await backend('r0b')];
    await settle(routeOf('x.localhost', pair));
    const get = load('x.localhost', 8);
    const post = load('x.localhost', 4, 'POST');
    for (let round = 1; round <= 8; round += 1) {
      const next = [await backend(`r${round}a`), await backend(`r${round}b`)];
      await settle(routeOf('x.localhost', next));
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
    const [a, b] = [await backend('a'), await backend('b')];
    await settle(routeOf('x.localhost', [a]));
    const slow = ask('x.localhost', '/slow?700');
    await until('it is on its way', () => a.active === 1);
    await settle(routeOf('x.localhost', [b]));
    expect(a.active).toBe(0);
    expect(echoOf(await slow).name).toBe('a');

    await edge.stop();
    edge = new Edge({ ...settings, drainMs: 300 }, log);
    await edge.start();
    // A GET would be tried again on the new one.
    const endless = ask('x.localhost', '/slow?60000', { method: 'POST' });
    await until('it is on its way', () => b.active === 1);
    await settle(routeOf('x.localhost', [a]));
    expect(await endless).toMatchObject({ status: 502 });
  });

  it('hides a killed instance from clients', async () => {
    const [a, b] = [await backend('a'), await backend('b')];
    await settle(routeOf('x.localhost', [a, b]));
    const clients = load('x.localhost', 4);
    await until('both are asked', () => a.requests > 20 && b.requests > 20);
    a.kill();
    const seen = b.requests;
    await until('the other one serves', () => b.requests > seen + 200);
    await clients.stop();
    expect(clients.failures).toEqual([]);
  });

  it('keeps traffic flowing without its controller, and the controller carries on', async () => {
    const [a, b] = [await backend('a'), await backend('b')];
    await edge.stop();
    const main = join(import.meta.dirname, 'main.ts');
    const start = () => {
      const child = spawn(process.execPath, ['--conditions=@bulkhead/source', main], {
        stdio: ['ignore', 'ignore', 'inherit'],
        env: {
          ...process.env,
          NATS_URL: settings.natsUrl,
          NATS_CREDS_FILE: nats.edgeCreds,
          EDGE_ID: 'edge-1',
          EDGE_DIR: settings.dir,
          EDGE_BIND: settings.bind,
          EDGE_METRICS_PORT: String(settings.metricsPort),
          LOG_LEVEL: 'silent',
        },
      });
      controllers.push(child);
      return child;
    };
    const first = start();
    await settle(routeOf('x.localhost', [a]));
    const clients = load('x.localhost', 4);
    const slow = ask('x.localhost', '/slow?400');
    await until('it is on its way', () => a.active > 0);
    // Killed in the middle of a drain: the next one finishes it.
    await put(routeOf('x.localhost', [b]));
    first.kill('SIGKILL');
    await stopped(first);
    start();
    await until('drained by the second', () => applied.get('x.localhost')?.includes(revision));
    expect(a.active).toBe(0);
    expect((await slow).status).toBe(200);
    await clients.stop();
    expect(clients.failures).toEqual([]);
  });

  it('brings a killed HAProxy back with the last table, also without NATS', async () => {
    await settle(routeOf('x.localhost', [await backend('a')]));
    await settle(routeOf('y.localhost', [], 'stopped'));
    await nats.stop();
    await haproxy.kill();
    await until('it serves again', async () => (await ask('x.localhost')).status === 200);
    expect((await ask('y.localhost')).headers['x-bulkhead-error']).toBe('stopped');
    // A change made while it starts must not get lost either.
    await nats.start();
    await watchEdge();
    kv = await nats.bucket();
    await haproxy.kill();
    const b = await backend('b');
    await settle(routeOf('x.localhost', [b]));
    await until(
      'the new backend serves',
      async () => echoOf(await ask('x.localhost')).name === 'b',
    );
  });

  it('keeps its routes when NATS lost everything, and starts from disk', async () => {
    await settle(routeOf('x.localhost', [await backend('a')]));
    await nats.wipe();
    await watchEdge();
    kv = await nats.bucket();
    const b = await backend('b');
    await settle(routeOf('y.localhost', [b]));
    expect((await ask('x.localhost')).status).toBe(200);
    await edge.stop();
    await nats.stop();
    await haproxy.stop();
    for (const file of ['config', 'map'] as const) unlinkSync(edgeFiles(settings.dir)[file]);
    initEdge(settings);
    haproxy.start();
    await until(
      'both serve',
      async () =>
        (await ask('x.localhost')).status === 200 && (await ask('y.localhost')).status === 200,
    );
    await nats.start();
  });

  it('puts back what somebody changed in HAProxy', async () => {
    const a = await backend('a');
    await settle(routeOf('x.localhost', [a]));
    await haproxyCommandLine(`del map ${edgeFiles(settings.dir).map} x.localhost`);
    expect((await ask('x.localhost')).status).toBe(404);
    await until('healed', async () => (await ask('x.localhost')).status === 200, 20_000);
  });

  it('applies 1,000 routes and stays exact across reloads', async () => {
    const a = await backend('a');
    const hosts = Array.from({ length: 1000 }, (_, i) => `app-${i}.t${i % 50}.localhost`);
    const routes = hosts.map((host) => routeOf(host, [a]));
    await put(routes[0] as Route);
    await until('the first serves', async () => (await ask(hosts[0] ?? '')).status === 200);
    const clients = [load(hosts[0] ?? '', 2), load(hosts[0] ?? '', 2, 'POST')];
    await Promise.all(routes.slice(1).map((route) => put(route)));
    await until('all are applied', () => applied.size === 1000, 25_000);
    await Promise.all(clients.map((each) => each.stop()));
    for (const each of clients) expect(each.failures).toEqual([]);
    for (const host of [hosts[1], hosts[499], hosts[999]])
      expect((await ask(host ?? '')).status).toBe(200);
    const metrics = await (await fetch(`http://127.0.0.1:${settings.metricsPort}/metrics`)).text();
    expect(metrics).toContain('bulkhead_edge_routes 1000');
    expect(metrics).toMatch(
      /bulkhead_edge_requests_total\{host="app-499.t49.localhost",code="2xx"\} 1/,
    );
    expect(metrics).toContain('bulkhead_edge_healed_total 0');
  });

  it('waits for requests that a reload left in an old worker', async () => {
    const [a, b] = [await backend('a'), await backend('b')];
    await settle(routeOf('x.localhost', [a]));
    const slow = ask('x.localhost', '/slow?1500');
    await until('it is on its way', () => a.active === 1);
    const more = Array.from({ length: 100 }, (_, i) => routeOf(`more-${i}.localhost`, [b]));
    await Promise.all(more.map((route) => put(route)));
    await until('reloaded', () => applied.size === 101);
    const metrics = await (await fetch(`http://127.0.0.1:${settings.metricsPort}/metrics`)).text();
    expect(metrics).toMatch(/bulkhead_edge_haproxy_reloads_total [1-9]/);
    expect(a.active).toBe(1);
    await settle(routeOf('x.localhost', [b]));
    expect(a.active).toBe(0);
    expect(echoOf(await slow).name).toBe('a');
  });

  it('serves a connection that idled through a reload by the new table', async () => {
    const [a, b] = [await backend('a'), await backend('b')];
    await settle(routeOf('x.localhost', [a]));
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    expect(echoOf(await ask('x.localhost', '/', { agent })).name).toBe('a');
    const more = Array.from({ length: 100 }, (_, i) => routeOf(`more-${i}.localhost`, [b]));
    await Promise.all(more.map((route) => put(route)));
    await until('reloaded', () => applied.size === 101);
    await settle(routeOf('x.localhost', [b]));
    a.kill();
    const answer = await ask('x.localhost', '/', { agent, method: 'POST', body: 'x' });
    expect(echoOf(answer)).toMatchObject({
      name: 'b',
      bytes: 1,
      headers: { 'x-forwarded-for': '127.0.0.1' },
    });
    expect(answer.headers.connection).toBe('close');
    agent.destroy();
  });

  it('survives the end of a worker alone', async () => {
    await settle(routeOf('x.localhost', [await backend('a')]));
    const children = readFileSync(`/proc/${haproxy.pid}/task/${haproxy.pid}/children`, 'utf8');
    for (const pid of children.trim().split(' ')) process.kill(Number(pid), 'SIGKILL');
    await until('it serves again', async () => (await ask('x.localhost')).status === 200);
    await settle(routeOf('y.localhost', [await backend('b')]));
  });

  it('beats once a second, answers /healthz and keeps its sockets private', async () => {
    const beats: unknown[] = [];
    nats.api.subscribe(subjects.edgeHeartbeat('edge-1'), {
      callback: (_, message) => void beats.push(message.json()),
    });
    await until('two heartbeats', () => beats.length >= 2);
    expect(edgeHeartbeat.parse(beats[0]).routes).toBe(0);
    const health = await fetch(`http://127.0.0.1:${settings.metricsPort}/healthz`);
    expect(await health.json()).toEqual({ haproxy: true, nats: true, routes: 0 });
    expect(statSync(edgeFiles(settings.dir).masterSocket).mode & 0o777).toBe(0o600);
    expect(statSync(edgeFiles(settings.dir).routes).mode & 0o777).toBe(0o600);
    expect(readFileSync(edgeFiles(settings.dir).config, 'utf8')).toContain(`bind ${settings.bind}`);
  });
});

/** As an operator would with socat. */
async function haproxyCommandLine(command: string): Promise<void> {
  const socket = connectTcp(edgeFiles(settings.dir).masterSocket);
  socket.end(`@1 ${command}\n`);
  socket.resume();
  await Promise.race([new Promise((resolve) => socket.once('close', resolve)), delay(2000)]);
}
