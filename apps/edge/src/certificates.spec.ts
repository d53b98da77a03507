import { mkdtempSync, readdirSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { initEdge } from './edge.ts';
import { parseCertificate } from './haproxy/certificates.ts';
import { HaproxyMaster } from './haproxy/master.ts';
import { edgeFiles } from './settings.ts';
import { makeCertificate } from './testing/certificates.ts';
import { routeOf, TestEdge } from './testing/edge.ts';
import { freePort, until } from './testing/machine.ts';

let at: TestEdge;
let source: string;
let port: number;
const [a, b] = ['a.localhost', 'b.localhost'];

beforeAll(async () => {
  source = mkdtempSync(join(tmpdir(), 'edge-certificates-'));
  put('a.pem', a);
  put('b.pem', b);
  port = await freePort();
  const tls = { bind: `127.0.0.1:${port}`, certificates: source };
  at = await TestEdge.start({ tls });
  const app = await at.backend('app');
  for (const host of [a, b]) await at.settle(routeOf(host, [app]));
});

afterAll(async () => {
  await at.stop();
  rmSync(source, { recursive: true });
});

/** A new certificate for a name; its fingerprint. */
function put(file: string, name: string): string {
  const { certificate, key } = makeCertificate(name);
  const pem = `a comment\n${certificate}\n\n${key}`;
  writeFileSync(join(source, file), pem);
  const read = parseCertificate(pem);
  if (typeof read === 'string') throw new Error(read);
  return read.fingerprint;
}

const handshake = (servername?: string) =>
  new Promise<TLSSocket>((resolve, reject) => {
    const options = { host: '127.0.0.1', port, rejectUnauthorized: false };
    const socket: TLSSocket = connect({ ...options, ...(servername && { servername }) }, () =>
      resolve(socket),
    );
    socket.on('error', reject);
  });

/** Of the certificate that the edge shows to who asks for a name. */
async function shown(servername?: string) {
  const socket = await handshake(servername);
  const { subject, fingerprint } = socket.getPeerCertificate();
  socket.destroy();
  return { name: subject.CN, fingerprint: fingerprint.replaceAll(':', '') };
}

const pids = async () =>
  (await new HaproxyMaster(edgeFiles(at.settings.dir).masterSocket).workers()).map(
    ({ pid }) => pid,
  );

function ask(host: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, servername: host, path: '/slow?5', agent };
    request({ ...options, headers: { host }, rejectUnauthorized: false }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode ?? 0));
    })
      .on('error', reject)
      .end();
  });
}

/** Half of the clients keep their connection, half shake hands for each request. */
function load(host: string) {
  const failures: string[] = [];
  let running = true;
  let count = 0;
  const loops = [true, true, false, false].map(async (keepAlive) => {
    const agent = new Agent({ keepAlive, maxSockets: 1, maxCachedSessions: 0 });
    while (running) {
      const result = await ask(host, agent).catch(String);
      if (result === 200) count += 1;
      else failures.push(String(result));
    }
    agent.destroy();
  });
  return async () => {
    running = false;
    await Promise.all(loops);
    return { count, failures };
  };
}

it('shows the certificate of the name that is asked for, else the first', async () => {
  expect((await shown(a)).name).toBe(a);
  expect((await shown(b)).name).toBe(b);
  expect((await shown('c.localhost')).name).toBe(a);
  expect((await shown()).name).toBe(a);
});

it('exchanges, adds and drops certificates under load, without a reload or a lost connection', async () => {
  const before = await pids();
  const old = await handshake(a);
  const answer = () =>
    new Promise<string>((resolve, reject) => {
      old.once('data', (data) => resolve(String(data)));
      old.once('close', () => reject(new Error('closed')));
      old.write(`GET / HTTP/1.1\r\nHost: ${a}\r\n\r\n`);
    });
  expect(await answer()).toMatch(/^HTTP\/1.1 200 /);
  const stops = [load(a), load(b)];
  const renewed = put('a.pem', a);
  await until('it is exchanged', async () => (await shown(a)).fingerprint === renewed, 20_000);
  // Also for those that ask for no name.
  await until('the default too', async () => (await shown()).fingerprint === renewed);
  put('c.pem', 'c.localhost');
  await until('it is added', async () => (await shown('c.localhost')).name !== a, 20_000);
  unlinkSync(join(source, 'c.pem'));
  await until('it is dropped', async () => (await shown('c.localhost')).name === a, 20_000);
  for (const stop of stops) {
    const { count, failures } = await stop();
    expect(failures).toEqual([]);
    expect(count).toBeGreaterThan(10);
  }
  expect(await pids()).toEqual(before);
  // The connection of before still carries requests.
  expect(await answer()).toMatch(/^HTTP\/1.1 200 /);
  old.destroy();
});

it('keeps the last good one of what is broken, also for a HAProxy that starts without its controller', async () => {
  const { fingerprint } = await shown(b);
  const { key } = makeCertificate(b);
  const { certificate } = makeCertificate(b);
  writeFileSync(join(source, 'b.pem'), certificate + key);
  writeFileSync(join(source, 'd.pem'), certificate);
  // Good in itself, too weak for HAProxy.
  const weak = makeCertificate('e.localhost', ['rsa:1024']);
  writeFileSync(join(source, 'e.pem'), weak.certificate + weak.key);
  // A change that comes after it is the sign that it was seen.
  const renewed = put('a.pem', a);
  await until(
    'the other is exchanged',
    async () => (await shown(a)).fingerprint === renewed,
    20_000,
  );
  expect((await shown(b)).fingerprint).toBe(fingerprint);
  const metrics = await (await fetch(`http://127.0.0.1:${at.settings.metricsPort}/metrics`)).text();
  expect(metrics).toMatch(/certificate_expires_timestamp_seconds\{certificate="b.pem"\} 1\d{9}/);

  const copies = () => readdirSync(edgeFiles(at.settings.dir).certificates);
  await until('only good ones are copied', () => !copies().includes('e.pem'));
  expect(copies().sort()).toEqual(['.default', 'a.pem', 'b.pem']);

  for (const file of readdirSync(source)) unlinkSync(join(source, file));
  await at.edge.stop();
  await at.haproxy.kill();
  initEdge(at.settings);
  await until('HAProxy is back', async () => (await shown(b)).fingerprint === fingerprint);
  expect((await shown(a)).fingerprint).toBe(renewed);
  await at.restart();
});

it('says what is wrong with a certificate', () => {
  const { certificate, key } = makeCertificate('x.localhost');
  const other = makeCertificate('y.localhost');
  expect(parseCertificate(key + certificate)).toMatchObject({ fingerprint: expect.any(String) });
  expect(parseCertificate('')).toContain('holds no certificate');
  expect(parseCertificate(certificate)).toContain('holds no private key');
  expect(parseCertificate(certificate + other.key)).toContain('not of its first certificate');
  expect(parseCertificate(other.certificate + certificate + key)).toContain('put the chain after');
  expect(parseCertificate(certificate.replace(/\n[^-]/, '\n!') + key)).toContain('cannot be read');
  rmSync(edgeFiles(at.settings.dir).certificates, { recursive: true });
  expect(() => initEdge(at.settings)).toThrow(/EDGE_TLS_CERTIFICATES/);
});
