import { Client, credentials, Server, ServerCredentials, status } from '@grpc/grpc-js';
import type { ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { RouteBackend } from '@bulkhead/protocol';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { echoOf, routeOf, TestEdge } from './testing/edge.ts';

let at: TestEdge;
let client: Client;
const servers: Server[] = [];

const bytes = (text: string) => Buffer.from(text);
const text = (buffer: Buffer) => buffer.toString();
const codec = {
  ...{ requestSerialize: bytes, requestDeserialize: text },
  ...{ responseSerialize: bytes, responseDeserialize: text },
};
const service: ServiceDefinition = {
  ask: { path: '/echo/ask', requestStream: false, responseStream: false, ...codec },
  talk: { path: '/echo/talk', requestStream: true, responseStream: true, ...codec },
};

/** Says who it is; `fail` fails, which gRPC says in trailers; a conversation is answered word by word. */
async function grpcBackend(name: string): Promise<RouteBackend> {
  const server = new Server();
  servers.push(server);
  const handlers: UntypedServiceImplementation = {
    ask: ((call: { request: string }, answer: (error: unknown, value?: string) => void) => {
      if (call.request === 'fail') answer({ code: status.NOT_FOUND, details: `no ${name}` });
      else answer(null, `${name} ${call.request}`);
    }) as never,
    talk: ((call: NodeJS.ReadWriteStream) => {
      call.on('data', (word: string) => call.write(word.toUpperCase()));
      call.on('end', () => call.end());
    }) as never,
  };
  server.addService(service, handlers);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  return { instance: name, host: '127.0.0.1', port, http2: true };
}

const ask = (word: string) =>
  new Promise<string>((resolve, reject) => {
    client.makeUnaryRequest('/echo/ask', bytes, text, word, (error, value) =>
      error ? reject(error) : resolve(value ?? ''),
    );
  });

beforeAll(async () => {
  at = await TestEdge.start();
  const options = { 'grpc.default_authority': 'x.localhost' };
  client = new Client(`127.0.0.1:${at.port}`, credentials.createInsecure(), options);
});

afterAll(async () => {
  client.close();
  for (const server of servers) server.forceShutdown();
  await at.stop();
});

it('carries gRPC to instances that are asked in HTTP/2, with trailers and conversations', async () => {
  await at.settle(routeOf('x.localhost', [await grpcBackend('a')]));
  expect(await ask('hello')).toBe('a hello');
  await expect(ask('fail')).rejects.toMatchObject({ code: status.NOT_FOUND, details: 'no a' });

  // Each word is answered while the conversation goes on.
  const call = client.makeBidiStreamRequest('/echo/talk', bytes, text);
  const next = () => new Promise<string>((resolve) => call.once('data', resolve));
  for (const word of ['one', 'two']) {
    const answer = next();
    call.write(word);
    expect(await answer).toBe(word.toUpperCase());
  }
  const ended = new Promise((resolve) => call.once('status', resolve));
  call.end();
  call.resume();
  expect(await ended).toMatchObject({ code: status.OK });
});

it('fails no call while instances change, and waits for those that are under way', async () => {
  const [b, c] = [await grpcBackend('b'), await grpcBackend('c')];
  await at.settle(routeOf('x.localhost', [b]));
  const failures: string[] = [];
  const names = new Set<string>();
  let running = true;
  const loops = Array.from({ length: 4 }, async () => {
    while (running) {
      await ask('x').then(
        (answer) => names.add(answer),
        (error: unknown) => failures.push(String(error)),
      );
    }
  });
  for (const backends of [[c], [b, c], [b], [c]]) await at.settle(routeOf('x.localhost', backends));
  running = false;
  await Promise.all(loops);
  expect(failures).toEqual([]);
  expect(names).toEqual(new Set(['b x', 'c x']));
});

it('asks each instance as it wants to be asked, also at an address that changed its mind', async () => {
  const plain = await at.backend('plain');
  const grpc = await grpcBackend('d');
  await at.settle(routeOf('x.localhost', [grpc]));
  expect(await ask('x')).toBe('d x');
  await at.settle(routeOf('x.localhost', [plain]));
  expect(echoOf(await at.ask('x.localhost')).name).toBe('plain');
  // In HTTP/2 the same address has no answer that makes sense.
  await at.settle(routeOf('x.localhost', [{ ...plain.address, http2: true }]));
  expect((await at.ask('x.localhost')).status).toBe(503);
  await at.settle(routeOf('x.localhost', [plain]));
  expect(echoOf(await at.ask('x.localhost')).name).toBe('plain');
  // As a HAProxy that starts finds it in its files.
  await at.settle(routeOf('x.localhost', [grpc]));
  await at.haproxy.kill();
  await expect.poll(() => ask('x').catch(String), { timeout: 10_000 }).toBe('d x');
});
