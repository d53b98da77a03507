import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createServer, type Server as TlsServer, type TLSSocket } from 'node:tls';
import { issueCertificate, makeAuthority } from '@bulkhead/protocol/certificates';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openTunnels } from './tunnels.ts';

let dir: string;
let gate: TlsServer;
let tunnels: Server[];
let serve: (socket: TLSSocket) => void;
let port: number;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'bulkhead-tunnels-'));
  const now = new Date();
  const fleet = await makeAuthority(now, 30);
  const nodes = await makeAuthority(now, 30, 'Bulkhead nodes');
  const node = { kind: 'node', node: 'n0123456789ab' } as const;
  const mine = await issueCertificate(nodes, node, now, 9);
  await writeFile(join(dir, 'ca.pem'), fleet.cert);
  await writeFile(join(dir, 'cert.pem'), mine.cert);
  await writeFile(join(dir, 'key.pem'), mine.key);
  const own = await issueCertificate(fleet, { kind: 'gate', address: '127.0.0.1' }, now, 9);
  const trust = { ca: nodes.cert, requestCert: true, rejectUnauthorized: true };
  gate = createServer({ ...own, ...trust }, (socket) => {
    socket.on('error', () => undefined);
    serve(socket);
  });
  await new Promise<void>((resolve) => gate.listen(0, '127.0.0.1', resolve));
  const to = `127.0.0.1:${(gate.address() as AddressInfo).port}`;
  const log = pino({ level: 'silent' });
  tunnels = await openTunnels([{ from: '127.0.0.1:0', to }], dir, log);
  port = (tunnels[0]!.address() as AddressInfo).port;
});
afterEach(async () => {
  for (const server of [...tunnels, gate]) server.close();
  await rm(dir, { recursive: true });
});

test('all that the other side said arrives, though it closed at once and the reader is slow', async () => {
  const said = randomBytes(8 * 1024 * 1024);
  serve = (socket) => socket.end(said);
  const socket = connect(port, '127.0.0.1');
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const part of socket as AsyncIterable<Buffer>) {
    bytes += part.length;
    hash.update(part);
    await delay(2);
  }
  expect(bytes).toBe(said.length);
  expect(hash.digest('hex')).toBe(createHash('sha256').update(said).digest('hex'));
});

test('speaks both ways, as the node that its certificate names', async () => {
  serve = (socket) => {
    socket.write(String(socket.getPeerCertificate().subject.CN));
    socket.on('data', (data) => socket.end(`, ${String(data)}`));
  };
  const socket = connect(port, '127.0.0.1');
  socket.write('hello');
  let heard = '';
  for await (const part of socket as AsyncIterable<Buffer>) heard += String(part);
  expect(heard).toBe('n0123456789ab, hello');
});

test('ends the connection when the gate refuses or is not there', async () => {
  serve = (socket) => socket.destroy();
  const closed = () =>
    new Promise<void>((resolve) => {
      connect(port, '127.0.0.1')
        .on('error', () => undefined)
        .on('close', () => resolve())
        .resume();
    });
  await closed();
  gate.close();
  await closed();
});

test('listens on loopback alone', async () => {
  const log = pino({ level: 'silent' });
  await expect(openTunnels([{ from: '192.0.2.1:1', to: '127.0.0.1:1' }], dir, log)).rejects.toThrow(
    'loopback',
  );
});
