import { healthCheck } from '@bulkhead/protocol';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import {
  goodHealth,
  judge,
  nextProbeIn,
  probeOf,
  unknownHealth,
  type Health,
  type Probe,
} from './health.ts';
import { probeHttp, probeTcp } from './prober.ts';
import { running } from './spec-fixtures.ts';

const check: Probe = {
  kind: 'check',
  port: 8080,
  check: {
    kind: 'http',
    path: '/',
    intervalSeconds: 2,
    timeoutSeconds: 2,
    failureThreshold: 3,
    successThreshold: 1,
    startupGraceSeconds: 30,
  },
};
const fails = { ok: false as const, why: 'GET / answered 500' };

test('what is probed follows from port and check', () => {
  expect(probeOf(running()).kind).toBe('listens');
  expect(probeOf(running({ port: null })).kind).toBe('runs');
  const { check: health } = check as Extract<Probe, { kind: 'check' }>;
  expect(probeOf(running({ health })).kind).toBe('check');
});

test('failures while it may still be starting do not count', () => {
  expect(judge(check, unknownHealth, fails, 29_000)).toMatchObject({
    phase: 'waiting',
    failures: 0,
  });
});

test('as many successes in a row as asked for make it ready, at first and after it was ill', () => {
  const { check: base } = check as Extract<Probe, { kind: 'check'; port: number }>;
  const slow: Probe = { kind: 'check', port: 8080, check: { ...base, successThreshold: 3 } };
  const walk = (from: Health, oks: boolean[]) =>
    oks.reduce<Health[]>(
      (seen, ok) => [...seen, judge(slow, seen.at(-1) ?? from, ok ? { ok } : fails, 31_000)],
      [],
    );
  const phases = (from: Health, oks: boolean[]) => walk(from, oks).map(({ phase }) => phase);
  expect(phases(unknownHealth, [true, true, true])).toEqual(['waiting', 'waiting', 'ready']);
  const ill = { ...goodHealth, phase: 'unready' as const, failures: 2 };
  expect(phases(ill, [true, false, true, true, true])).toEqual([
    'unready',
    'unready',
    'unready',
    'unready',
    'ready',
  ]);
  // Between them it waits for the interval: three quick ones prove little.
  const begun = judge(slow, unknownHealth, { ok: true }, 100);
  expect(nextProbeIn(slow, begun, 1)).toBe(2000);
});

test('a command is asked for readiness whatever the port is, and less eagerly than a port', () => {
  const health = healthCheck.parse({ kind: 'command', command: ['true'] });
  for (const port of [null, 8080]) {
    const probe = probeOf(running({ port, health }));
    expect(probe).toEqual({ kind: 'check', check: health, port: null });
    expect(nextProbeIn(probe, unknownHealth, 1)).toBe(250);
    expect(nextProbeIn(probe, goodHealth, 1)).toBe(10_000);
  }
});

test('after the grace, failures in a row end it', () => {
  let health = unknownHealth;
  const phases: string[] = [];
  for (let i = 0; i < 3; i += 1) {
    health = judge(check, health, fails, 31_000);
    phases.push(health.phase);
  }
  expect(phases).toEqual(['waiting', 'waiting', 'failed']);
  expect(health.message).toBe('its health check failed 3 times in a row: GET / answered 500');
});

test('one failure leaves a ready instance in service, two do not, a success brings it back', () => {
  const once = judge(check, goodHealth, fails, 1000);
  const twice = judge(check, once, fails, 1000);
  expect([once.phase, twice.phase]).toEqual(['ready', 'unready']);
  expect(judge(check, twice, fails, 1000).phase).toBe('failed');
  expect(judge(check, twice, { ok: true }, 1000)).toEqual(goodHealth);
});

test('a process on whose port nobody listens never becomes ready and says why', () => {
  const probe: Probe = { kind: 'listens', port: 8080 };
  const why = 'nothing listens on port 8080';
  expect(judge(probe, unknownHealth, { ok: false, why }, 3_600_000)).toEqual({
    ...unknownHealth,
    message: why,
  });
});

test('probing is eager before readiness and then keeps the interval', () => {
  expect(nextProbeIn(check, unknownHealth, 1)).toBe(50);
  expect(nextProbeIn(check, unknownHealth, 100)).toBe(2000);
  expect(nextProbeIn(check, goodHealth, 100)).toBe(2000);
  expect(nextProbeIn({ kind: 'listens', port: 1 }, goodHealth, 1)).toBeNull();
});

test('a real server passes and fails as it answers', async () => {
  const server = createServer((request, response) => {
    if (request.url === '/slow') return;
    if (request.url === '/garbage') return void request.socket.end('not http\r\n\r\n');
    response.writeHead(request.url === '/with%20space' ? 302 : 500).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const probe = (path: string) => probeHttp('127.0.0.1', port, path, 300);

  expect(await probe('/with space')).toEqual({ ok: true });
  expect(await probe('/x')).toEqual({ ok: false, why: 'GET /x answered 500' });
  expect(await probe('/slow')).toEqual({ ok: false, why: 'GET /slow had no answer within 0.3 s' });
  expect(await probe('/garbage')).toEqual({
    ok: false,
    why: 'GET /garbage was not answered in HTTP',
  });
  expect(await probeTcp('127.0.0.1', port, 300)).toEqual({ ok: true });
  await new Promise((resolve) => server.close(resolve));
  expect(await probeTcp('127.0.0.1', port, 300)).toMatchObject({
    why: expect.stringContaining(`nothing listens on port ${port}`),
  });
});
