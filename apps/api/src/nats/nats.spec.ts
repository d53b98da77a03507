import { afterEach, beforeEach, expect, test } from 'vitest';
import { streams } from '@bulkhead/protocol';
import { eventually } from '../testing/eventually.ts';
import { TestNatsServer } from '../testing/nats-server.ts';
import { NatsLink } from './nats.ts';

let server: TestNatsServer;
let link: NatsLink;

beforeEach(async () => {
  server = await TestNatsServer.start();
  link = new NatsLink({
    url: server.url,
    credsFile: null,
    logsMaxBytes: 1_048_576,
    log: () => undefined,
    checkEveryMs: 50,
  });
});

afterEach(async () => {
  await link.stop();
  await server.dispose();
});

test('is refused as unavailable, not as a crash, before the first connection', async () => {
  expect(() => link.nc).toThrowError(expect.objectContaining({ code: 'UNAVAILABLE' }));
  expect(await link.isUp()).toBe(false);
});

test('waits for a server that starts later, and makes the streams', async () => {
  await server.stop();
  link.start();
  await server.restart();

  await link.whenReady();

  expect(await link.isUp()).toBe(true);
  const bucket = await link.kv(streams.desiredBucket);
  await bucket.put('nabc.iabc', 'x');
  expect((await bucket.get('nabc.iabc'))?.string()).toBe('x');
});

test('makes the streams again and says so when the server lost everything', async () => {
  link.start();
  await link.whenReady();
  const told: string[][] = [];
  link.onRecreated((made) => told.push(made));

  await server.stop();
  await server.wipe();
  await server.restart();

  await eventually('streams are made again', () => told.length > 0);
  expect(told.flat().sort()).toEqual(['KV_desired', 'KV_routes', 'logs', 'reports']);
  const bucket = await link.kv(streams.routesBucket);
  await bucket.put('hello.demo.localhost', 'y');
  expect((await bucket.get('hello.demo.localhost'))?.string()).toBe('y');
});
