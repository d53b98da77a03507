import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { Agent, request } from 'node:https';
import { connect as connectTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initEdge } from './edge.ts';
import { parseMaxconn } from './haproxy/actual.ts';
import { BodyWatch } from './haproxy/bodies.ts';
import { HaproxyMaster } from './haproxy/master.ts';
import { edgeFiles } from './settings.ts';
import type { Echo, TestBackend } from './testing/backend.ts';
import { makeCertificate } from './testing/certificates.ts';
import { echoOf, routeOf, TestEdge } from './testing/edge.ts';
import { rawHttp2 } from './testing/http2.ts';
import { until } from './testing/machine.ts';

const host = 'x.localhost';
/** What HAProxy takes with the file limit below. */
const files = 500;
let maxConnections: number;
let at: TestEdge;
let app: TestBackend;
let certificates: string;

beforeAll(async () => {
  certificates = mkdtempSync(join(tmpdir(), 'edge-tls-'));
  const pem = join(certificates, 'x.pem');
  const { certificate, key } = makeCertificate(host);
  writeFileSync(pem, certificate + key);
  const tlsPort = 32_500 + (process.pid % 200);
  const tls = { bind: `127.0.0.1:${tlsPort}`, certificates: pem };
  at = await TestEdge.start({ maxBody: 1024 * 1024, tls }, { files });
  const master = new HaproxyMaster(edgeFiles(at.settings.dir).masterSocket);
  const worker = await until('a worker', async () => (await master.workers())[0]);
  maxConnections = parseMaxconn(await master.run(worker, 'show info'));
  app = await at.backend('app');
  await at.settle(routeOf(host, [app]));
});

afterAll(async () => {
  await at.stop();
  rmSync(certificates, { recursive: true });
});

/** Over HTTP/2. */
const good: [string, string][] = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/outer'],
  [':authority', host],
];

const status = async (text: string) => (await at.raw(text)).split(' ')[1];

/** What the app saw of it. */
async function seen(attack: () => Promise<unknown>): Promise<string[]> {
  const before = app.urls.length;
  await attack();
  // Whatever else came is before this one.
  expect((await at.ask(host, '/after')).status).toBe(200);
  const urls = app.urls.slice(before);
  expect(urls.pop()).toBe('/after');
  return urls;
}

describe('names', () => {
  it('matches the host exactly, but for case, port and the dot at its end', async () => {
    const others = [
      'evil.x.localhost',
      'x.localhost.evil',
      'xx.localhost',
      'x.localhos',
      'b0',
      'none',
      '',
    ];
    for (const other of others) expect((await at.ask(other)).status, other).toBe(404);
    for (const same of [
      'X.LocalHost',
      'x.localhost:80',
      'x.localhost:65535',
      'x.localhost.',
      'x.localhost.:80',
    ])
      expect((await at.ask(same)).status, same).toBe(200);
  });

  it.each([
    'y.localhost,x.localhost',
    'x.localhost\0',
    'x.localhost:a',
    'x.localhost:65536',
    'x.localhost:99999',
    'y@x.localhost',
  ])('refuses the host %j', async (bad) => {
    expect(await status(`GET / HTTP/1.1\r\nHost: ${bad}\r\n\r\n`)).toBe('400');
  });

  it.each([
    ['two hosts', 'GET / HTTP/1.1\r\nHost: x.localhost\r\nHost: y.localhost', '400'],
    ['no host', 'GET / HTTP/1.1', '400'],
    ['another authority', 'GET http://y.localhost/ HTTP/1.1\r\nHost: x.localhost', '400'],
    ['a user name', 'GET http://u@x.localhost/ HTTP/1.1\r\nHost: x.localhost', '400'],
    ['a user name in both', 'GET http://u@x.localhost/ HTTP/1.1\r\nHost: u@x.localhost', '400'],
    ['another scheme', 'GET ftp://x.localhost/ HTTP/1.1\r\nHost: x.localhost', '400'],
    ['no path', 'GET x HTTP/1.1\r\nHost: x.localhost', '400'],
    ['a fragment', 'GET /#x HTTP/1.1\r\nHost: x.localhost', '400'],
    ['CONNECT', 'CONNECT x.localhost:80 HTTP/1.1\r\nHost: x.localhost:80', '405'],
    ['TRACE', 'TRACE / HTTP/1.1\r\nHost: x.localhost', '405'],
    ['a header name with a space', 'GET / HTTP/1.1\r\nHost: x.localhost\r\nbad header: 1', '400'],
    ['NUL in a value', 'GET / HTTP/1.1\r\nHost: x.localhost\r\nX: a\0b', '400'],
    ['a control character in a value', 'GET / HTTP/1.1\r\nHost: x.localhost\r\nX: a\x1bb', '400'],
    ['much header', `GET / HTTP/1.1\r\nHost: x.localhost\r\nX: ${'a'.repeat(40_000)}`, '400'],
  ])('refuses %s', async (_, text, expected) => {
    expect(await seen(async () => expect(await status(`${text}\r\n\r\n`)).toBe(expected))).toEqual(
      [],
    );
  });

  const many = (count: number) =>
    Array.from({ length: count }, (_, i): [string, string] => [`x-${i}`, '1']);

  it('takes a hundred headers of 12 KiB, and says that more are too large', async () => {
    const request = (count: number) =>
      `GET / HTTP/1.1\r\n${[['Host', host], ...many(count - 1)].map((each) => each.join(': ')).join('\r\n')}\r\n\r\n`;
    expect(await status(request(100))).toBe('200');
    // All but the value of the second.
    const frame = `Host: ${host}\r\nX: \r\n\r\n`.length;
    const long = (bytes: number) =>
      `GET / HTTP/1.1\r\nHost: ${host}\r\nX: ${'a'.repeat(bytes - frame)}\r\n\r\n`;
    expect(await status(long(12 * 1024))).toBe('200');
    const seenOf = await seen(async () => {
      for (const count of [101, 1000]) {
        const answer = await at.raw(request(count));
        expect(answer).toMatch(/^HTTP\/1.1 431 /);
        expect(answer).toContain('x-bulkhead-error: headers-too-large');
        expect(answer).toContain('more than 100 headers');
      }
      // As many as the buffer has room for.
      const shortest = `GET / HTTP/1.1\r\nHost: ${host}\r\n${'a:\r\n'.repeat(1500)}\r\n`;
      expect(await status(shortest)).toBe('431');
      for (const bytes of [12 * 1024 + 10, 15_000]) expect(await status(long(bytes))).toBe('431');
      expect(await rawHttp2(at.port, [...good, ...many(150)])).toBe('431');
      const large = many(90).map(([name]): [string, string] => [
        `${name}-${'x'.repeat(20)}`,
        'a'.repeat(126),
      ]);
      expect(await rawHttp2(at.port, [...good, ...large])).toBe('431');
    });
    expect(seenOf).toEqual([]);
  });

  it('takes what is usual', async () => {
    for (const text of [
      'GET http://x.localhost/?a@b HTTP/1.1\r\nHost: x.localhost',
      'OPTIONS * HTTP/1.1\r\nHost: x.localhost',
      'GET / HTTP/1.1\r\nHost: x.localhost\r\nX: a\tb \xe9',
    ])
      expect(await status(`${text}\r\n\r\n`), text).toBe('200');
  });
});

describe('smuggling', () => {
  const inner = 'GET /smuggled HTTP/1.1\r\nHost: x.localhost\r\n\r\n';
  it.each([
    [
      'a length beside chunks',
      'Content-Length: 60\r\nTransfer-Encoding: chunked',
      `0\r\n\r\n${inner}`,
    ],
    [
      'a length of chunks that is too short',
      'Transfer-Encoding: chunked\r\nContent-Length: 5',
      `0\r\n\r\n${inner}`,
    ],
    [
      'an encoding with a tab',
      'Transfer-Encoding:\tchunked\r\nContent-Length: 60',
      `0\r\n\r\n${inner}`,
    ],
    [
      'an encoding that is not one',
      'Transfer-Encoding: xchunked\r\nContent-Length: 5',
      `0\r\n\r\n${inner}`,
    ],
    [
      'two encodings',
      'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity',
      `0\r\n\r\n${inner}`,
    ],
    ['two lengths', 'Content-Length: 0\r\nContent-Length: 60', inner],
    ['a signed length', 'Content-Length: +0', inner],
    ['a folded header', 'X: a\r\n Content-Length: 60', inner],
    ['chunk sizes with a prefix', 'Transfer-Encoding: chunked', `0x0\r\n\r\n${inner}`],
  ])('%s makes no second request of a body', async (_, headers, body) => {
    const urls = await seen(() =>
      at.raw(
        `POST /outer HTTP/1.1\r\nHost: x.localhost\r\nConnection: close\r\n${headers}\r\n\r\n${body}`,
      ),
    );
    expect(urls.filter((url) => url !== '/outer')).toEqual([]);
  });

  it.each<[string, [string, string][], string?]>([
    [
      'a line break in a value',
      [['x', `a\r\n\r\n${'GET /smuggled HTTP/1.1'}\r\nHost: x.localhost\r\n\r\n`]],
    ],
    ['a lone line feed in a value', [['x', 'a\ntransfer-encoding: chunked']], '0\r\n\r\n' + inner],
    ['a line break in a name', [['x: a\r\ntransfer-encoding', 'chunked']], '0\r\n\r\n' + inner],
    ['a colon in a name', [['transfer-encoding: chunked\r\nx', 'a']], '0\r\n\r\n' + inner],
    ['an encoding', [['transfer-encoding', 'chunked']], '0\r\n\r\n' + inner],
    ['a length that is too short', [['content-length', '0']], inner],
    ['a length that is too long', [['content-length', '400']], inner],
    [
      'two lengths',
      [
        ['content-length', '0'],
        ['content-length', String(inner.length)],
      ],
      inner,
    ],
    ['NUL in a value', [['x', 'a\0b']]],
    ['a large letter in a name', [['X', 'a']]],
    ['connection headers', [['connection', 'transfer-encoding']]],
  ])('%s makes none over HTTP/2 either', async (_, headers, body) => {
    const urls = await seen(() => rawHttp2(at.port, [...good, ...headers], body));
    expect(urls.filter((url) => url !== '/outer')).toEqual([]);
  });

  it.each([
    ['a line break in the path', [':path', '/outer HTTP/1.1\r\nx: y']],
    ['a space in the path', [':path', '/outer /smuggled']],
    ['a path that is none', [':path', 'outer']],
    [
      'a line break in the method',
      [':method', 'GET /smuggled HTTP/1.1\r\nhost: x.localhost\r\n\r\nGET'],
    ],
    ['a space in the method', [':method', 'GET /smuggled']],
    ['a line break in the authority', [':authority', 'x.localhost\r\nx: y']],
    ['a user name in the authority', [':authority', 'u@x.localhost']],
    ['another scheme', [':scheme', 'ftp']],
  ] as const)('%s is refused over HTTP/2', async (_, [name, value]) => {
    const headers = good.map(([key, was]): [string, string] => [key, key === name ? value : was]);
    const urls = await seen(async () => {
      expect(await rawHttp2(at.port, headers)).not.toBe('200');
    });
    expect(urls).toEqual([]);
  });

  it('takes the same request without them, so that these tests can fail', async () => {
    expect(await rawHttp2(at.port, good)).toBe('200');
    expect(await rawHttp2(at.port, [...good, ['content-length', '2']], 'ab')).toBe('200');
  });
});

describe('too much', () => {
  const sockets: Socket[] = [];
  const ended = new WeakSet<Socket>();
  const hold = async (hog: TestBackend, from: string, count: number) => {
    for (let n = 0; n < count; n += 1) {
      const socket = connectTcp({ port: at.port, host: '127.0.0.1', localAddress: from });
      socket.on('error', () => undefined);
      for (const event of ['data', 'close']) socket.once(event, () => ended.add(socket));
      socket.write('GET /slow?30000 HTTP/1.1\r\nHost: hog.localhost\r\n\r\n');
      sockets.push(socket);
    }
    const answered = () => sockets.filter((socket) => ended.has(socket)).length;
    await until(
      'each is under way, or answered or closed at once',
      () => hog.active + answered() === sockets.length,
    );
  };
  const release = async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    await delay(100);
  };

  it('one client, and one app, leave connections to the others', async () => {
    const hog = await at.backend('hog');
    await at.settle(routeOf('hog.localhost', [hog]));
    await hold(hog, '127.0.0.2', maxConnections);
    const ofOneClient = hog.active;
    expect(ofOneClient).toBeLessThanOrEqual(maxConnections / 2 + 1);
    expect(ofOneClient).toBeGreaterThan(maxConnections / 4);
    expect((await at.ask(host)).status).toBe(200);
    // Other clients of the same app: it gets no more than is left.
    for (const n of [3, 4, 5, 6, 7]) await hold(hog, `127.0.0.${n}`, maxConnections / 5);
    expect(hog.active).toBeLessThanOrEqual(maxConnections / 2 + 1);
    expect((await at.ask(host)).status).toBe(200);
    const busy = await at.ask('hog.localhost');
    expect(busy).toMatchObject({ status: 503, headers: { 'x-bulkhead-error': 'app-busy' } });
    await release();
    await until('the app is free again', () => hog.active === 0);
    expect((await at.ask('hog.localhost')).status).toBe(200);
  });

  it('one client leaves some to the others also of a HAProxy that starts without its controller', async () => {
    const hog = await at.backend('hog-2');
    await at.settle(routeOf('hog.localhost', [hog]));
    await at.edge.stop();
    await at.haproxy.kill();
    await until('it serves again', async () => (await at.ask(host)).status === 200);
    await hold(hog, '127.0.0.2', maxConnections);
    expect(hog.active).toBeLessThanOrEqual(maxConnections / 2 + 1);
    expect(hog.active).toBeGreaterThan(maxConnections / 4);
    expect((await at.ask(host)).status).toBe(200);
    await release();
    await at.restart();
  });

  it('expects of the first HAProxy what its file limit lets it have', () => {
    const settings = { ...at.settings, dir: join(certificates, 'e') };
    const files = edgeFiles(settings.dir);
    const expected = () => {
      initEdge(settings);
      const text = readFileSync(files.config, 'utf8');
      return ['most', 'half'].map((name) =>
        Number(new RegExp(`set-var proc.${name} int\\((\\d+)\\)`).exec(text)?.[1]),
      );
    };
    const limit = Number(execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }));
    const half = Math.floor(Math.min(limit, 65_536) / 2);
    expect(expected()).toEqual([half, Math.floor(half / 2)]);
    writeFileSync(files.connections, '77\n');
    expect(expected()).toEqual([77, 38]);
    // Cut off by a full disk.
    writeFileSync(files.connections, '');
    expect(expected()).toEqual([half, Math.floor(half / 2)]);
  });

  it('refuses a body that says that it is too large before it comes', async () => {
    const large = `POST / HTTP/1.1\r\nHost: x.localhost\r\nContent-Length: ${1024 * 1024 + 1}`;
    expect(await seen(async () => expect(await status(`${large}\r\n\r\n`)).toBe('413'))).toEqual(
      [],
    );
    const body = 'x'.repeat(1024 * 1024);
    expect(echoOf(await at.ask(host, '/', { method: 'POST', body })).bytes).toBe(body.length);
  });

  it('ends bodies without a length that grow too large or come too slowly, and nothing else', async () => {
    const master = new HaproxyMaster(edgeFiles(at.settings.dir).masterSocket);
    const limits = { maxBytes: at.settings.maxBody, graceSeconds: 1 };
    const watch = new BodyWatch(master, limits, pino({ level: 'silent' }));
    const post = (path: string) => {
      const socket = at.connect();
      let closed = false;
      socket.on('close', () => (closed = true)).on('error', () => undefined);
      socket.resume();
      socket.write(
        `POST ${path} HTTP/1.1\r\nHost: x.localhost\r\nTransfer-Encoding: chunked\r\n\r\n`,
      );
      return { socket, closed: () => closed };
    };
    const [slow, large, good] = [post('/a'), post('/b'), post('/c')];
    const waiting = at.ask(host, '/slow?4000', { method: 'POST', body: 'x' });
    const chunk = (bytes: number) => `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`;
    slow.socket.write(chunk(5));
    for (let n = 0; n < 3; n += 1) large.socket.write(chunk(512 * 1024));
    good.socket.write(chunk(100_000));
    await until(
      'both are ended',
      async () => {
        await watch.look();
        return slow.closed() && large.closed();
      },
      20_000,
    );
    expect(watch.ended).toEqual({ slow: 1, large: 1 });
    expect(good.closed()).toBe(false);
    good.socket.destroy();
    expect((await waiting).status).toBe(200);
  });
});

describe('TLS', () => {
  const url = () => `https://${at.settings.tls?.bind}`;

  it('speaks HTTP/2 by ALPN, and tells the app that it was HTTPS', async () => {
    const session = connectHttp2(url(), { servername: host, rejectUnauthorized: false });
    const stream = session.request({ ':authority': host, ':path': '/h2' });
    const echo = (await json(stream)) as Echo;
    expect(session.alpnProtocol).toBe('h2');
    session.close();
    expect(echo).toMatchObject({ url: '/h2', headers: { 'x-forwarded-proto': 'https' } });
  });

  it('stays HTTPS for a connection that idled through a reload', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
    const get = () =>
      new Promise<IncomingMessage>((resolve, reject) => {
        request(url(), { agent, headers: { host } }, resolve).on('error', reject).end();
      });
    const first = await get();
    const { localPort } = first.socket;
    await json(first);
    const more = Array.from({ length: 100 }, (_, i) => routeOf(`more-${i}.localhost`, [app]));
    await Promise.all(more.map((route) => at.put(route)));
    await until('reloaded', () => more.every((route) => at.applied.has(route.host)));
    const second = await get();
    expect(second.socket.localPort).toBe(localPort);
    expect(((await json(second)) as Echo).headers).toMatchObject({
      'x-forwarded-proto': 'https',
      'x-forwarded-for': '127.0.0.1',
    });
    agent.destroy();
  });
});
