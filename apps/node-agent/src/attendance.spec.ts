import { X509Certificate } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  issueCertificate,
  makeAuthority,
  nodeUri,
  signRequest,
  type Credential,
} from '@bulkhead/protocol/certificates';
import { relayService, type Attendance as Said, type Fleet } from '@bulkhead/protocol/relay';
import type { FleetPlaces } from '@bulkhead/runtime';
import { Server, ServerCredentials, status, type ServerUnaryCall } from '@grpc/grpc-js';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Attendance } from './attendance.ts';

const node = 'n0123456789ab';
const day = 86_400_000;
let dir: string;
let fleet: Credential;
let nodes: Credential;
let server: Server;
let port: number;
let heard: Said[];
let answer: (said: Said) => Promise<Fleet>;
let applied: FleetPlaces[];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'bulkhead-attendance-'));
  const now = new Date();
  fleet = await makeAuthority(now, 30);
  nodes = await makeAuthority(now, 30, 'Bulkhead nodes');
  const mine = await issueCertificate(nodes, { kind: 'node', node }, now, 9);
  await mkdir(join(dir, 'tls'));
  await writeFile(join(dir, 'tls/ca.pem'), fleet.cert);
  await writeFile(join(dir, 'tls/cert.pem'), mine.cert);
  await writeFile(join(dir, 'tls/key.pem'), mine.key);
  const api = await issueCertificate(fleet, { kind: 'api' }, now, 9);
  [heard, applied] = [[], []];
  answer = () => Promise.resolve({ edges: ['192.0.2.1'] });
  server = new Server();
  server.addService(relayService, {
    carry: () => undefined,
    attend: (
      call: ServerUnaryCall<Said, Fleet>,
      done: (error: { code: status } | null, fleet?: Fleet) => void,
    ) => {
      heard.push(call.request);
      answer(call.request).then(
        (said) => done(null, said),
        () => done({ code: status.PERMISSION_DENIED }),
      );
    },
  });
  const trusted = Buffer.from(fleet.cert + nodes.cert);
  const pair = { private_key: Buffer.from(api.key), cert_chain: Buffer.from(api.cert) };
  port = await new Promise((resolve, reject) =>
    server.bindAsync(
      '127.0.0.1:0',
      ServerCredentials.createSsl(trusted, [pair], true),
      (error, bound) => (error ? reject(error) : resolve(bound)),
    ),
  );
});
afterEach(async () => {
  server.forceShutdown();
  await rm(dir, { recursive: true });
});

const attendance = (now = new Date()) =>
  new Attendance({
    ...{ streams: `127.0.0.1:${port}`, nodeDir: dir, log: pino({ level: 'silent' }) },
    runtime: { setFleet: (places) => Promise.resolve(void applied.push(places)) },
    now: () => now,
  });
const certificate = async () => new X509Certificate(await readFile(join(dir, 'tls/cert.pem')));

test('hears who may come in and where others are, and remembers it for when nobody answers', async () => {
  const place = { address: '192.0.2.2', network: '10.202.0.0/19' };
  answer = () => Promise.resolve({ edges: ['192.0.2.1'], places: [place] });
  await attendance().attend();
  const known = { edges: ['192.0.2.1'], places: [place] };
  expect(applied).toEqual([known]);

  server.forceShutdown();
  const next = attendance();
  await next.start();
  await next.stop();
  expect(applied).toEqual([known, known]);
});

test('renews its certificate with a third of its life left, by the same key', async () => {
  const before = await certificate();
  await attendance().attend();
  expect(heard).toEqual([{ certificateRequest: '' }]);

  const late = new Date(Date.now() + 7 * day);
  answer = async ({ certificateRequest = '' }) => ({
    edges: [],
    certificate: await signRequest(nodes, certificateRequest, { kind: 'node', node }, late, 9),
  });
  await attendance(late).attend();
  const after = await certificate();
  expect(after.serialNumber).not.toBe(before.serialNumber);
  expect(after.subjectAltName).toContain(nodeUri(node));
  expect(after.publicKey.equals(before.publicKey)).toBe(true);
});

test('one that is refused keeps what it has', async () => {
  await attendance().attend();
  const before = (await certificate()).serialNumber;
  answer = () => Promise.reject(new Error('removed'));
  await expect(attendance(new Date(Date.now() + 7 * day)).attend()).rejects.toMatchObject({
    code: status.PERMISSION_DENIED,
  });
  expect((await certificate()).serialNumber).toBe(before);
  expect(applied).toHaveLength(1);
});

test('what is no place at all is not applied', async () => {
  answer = () => Promise.resolve({ edges: ['192.0.2.1; drop'] });
  await expect(attendance().attend()).rejects.toThrow();
  expect(applied).toEqual([]);
});
