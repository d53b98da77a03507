import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { apiServerName } from '@bulkhead/protocol/certificates';
import { ensureFleetCertificate } from './fleet-tls.ts';
import { root } from './files.ts';

let state: string;
let paths: { rootKeys: string };
beforeAll(async () => {
  state = await mkdtemp(join(tmpdir(), 'bulkhead-fleet-'));
  paths = { rootKeys: state };
});
afterAll(() => rm(state, { recursive: true, force: true }));

const start = new Date();
const later = (days: number) => new Date(start.getTime() + days * 86_400_000);
const node = { kind: 'node', node: 'naaaaaaaaaaaa' } as const;
const ensureNode = (now: Date) =>
  ensureFleetCertificate(paths, node, join(state, 'node'), root, now);
const ensureApi = (now: Date) =>
  ensureFleetCertificate(paths, { kind: 'api' }, join(state, 'api'), root, now);
const read = async (dir: string) => {
  const file = (name: string) => readFile(join(state, dir, `${name}.pem`), 'utf8');
  return { ca: await file('ca'), cert: await file('cert'), key: await file('key') };
};

test('a second run changes nothing, and keys are for their owner alone', async () => {
  const first = await ensureNode(start);
  const files = await read('node');
  expect(await ensureNode(later(10))).toBe(first);
  expect(await read('node')).toEqual(files);
  for (const name of ['node/key.pem', 'node/cert.pem', 'fleet-ca.key.pem'])
    expect((await stat(join(state, name))).mode & 0o777).toBe(0o600);
  expect((await stat(join(state, 'node'))).mode & 0o777).toBe(0o700);
  const certificate = new X509Certificate(files.cert);
  expect(certificate.subjectAltName).toBe('URI:bulkhead:node:naaaaaaaaaaaa');
  expect(certificate.checkPrivateKey(createPrivateKey(files.key))).toBe(true);
});

test('what nears its end is made anew, with the same authority', async () => {
  const before = await ensureNode(start);
  const { ca, cert } = await read('node');
  expect(await ensureNode(later(61))).not.toBe(before);
  const renewed = await read('node');
  expect(renewed.cert).not.toBe(cert);
  expect(renewed.ca).toBe(ca);
});

test('another holder, a damaged file or a new authority means a new certificate', async () => {
  await ensureNode(start);
  const mine = (await read('node')).cert;
  const other = { kind: 'node', node: 'nbbbbbbbbbbbb' } as const;
  await ensureFleetCertificate(paths, other, join(state, 'node'), root, start);
  expect((await read('node')).cert).not.toBe(mine);
  await writeFile(join(state, 'node/cert.pem'), 'damaged');
  await ensureNode(start);
  expect(new X509Certificate((await read('node')).cert).subject).toBe('CN=naaaaaaaaaaaa');
  const { ca } = await read('node');
  await ensureNode(later(3650 - 300));
  expect((await read('node')).ca).not.toBe(ca);
  await rm(join(state, 'fleet-ca.cert.pem'));
});

test('node and API know each other by them, and only in their own parts', async () => {
  await ensureNode(start);
  await ensureApi(start);
  const [agent, api] = [await read('node'), await read('api')];
  const shake = async (server: typeof api, client: typeof api) => {
    const listening = createServer({ ...server, requestCert: true, rejectUnauthorized: true });
    listening.on('tlsClientError', () => undefined);
    await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
    const { port } = listening.address() as AddressInfo;
    const accepted = new Promise<TLSSocket>((resolve) =>
      listening.once('secureConnection', resolve),
    );
    const socket = connect({ port, host: '127.0.0.1', ...client, servername: apiServerName });
    const failed = new Promise<null>((resolve) => {
      socket.once('error', () => resolve(null));
      listening.once('tlsClientError', () => resolve(null));
    });
    const peer = await Promise.race([accepted, failed]);
    const name = peer?.getPeerCertificate().subjectaltname ?? null;
    socket.destroy();
    peer?.destroy();
    await new Promise((resolve) => listening.close(resolve));
    return name;
  };
  expect(await shake(api, agent)).toBe('URI:bulkhead:node:naaaaaaaaaaaa');
  // A node's certificate serves nobody, and the API's is no client's.
  expect(await shake(agent, agent)).toBeNull();
  expect(await shake(api, api)).toBeNull();
});
