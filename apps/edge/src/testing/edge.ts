import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { connect as connectTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { edgeApplied, subjects, type Route, type RouteBackend } from '@bulkhead/protocol';
import type { KV } from '@nats-io/kv';
import { pino } from 'pino';
import { Edge, initEdge } from '../edge.ts';
import type { EdgeSettings } from '../settings.ts';
import { TestBackend, type Echo } from './backend.ts';
import { freePort, TestHaproxy, until } from './machine.ts';
import { TestNats } from './nats.ts';

export interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

export interface AskOptions {
  headers?: Record<string, string>;
  method?: string;
  body?: string;
  agent?: Agent;
}

export const echoOf = (answer: Answer): Echo => JSON.parse(answer.body) as Echo;

let revision = 0;

export function routeOf(
  host: string,
  to: readonly TestBackend[] | readonly RouteBackend[],
  state: Route['state'] = 'serving',
): Route {
  revision += 1;
  const backends = to.map((each) => (each instanceof TestBackend ? each.address : each));
  return { v: 1, host, tenant: 'demo', app: 'a', state, backends, revision };
}

/** An edge with its HAProxy and a NATS of its own, in a directory that goes with it. */
export class TestEdge {
  readonly settings: EdgeSettings;
  readonly port: number;
  readonly haproxy: TestHaproxy;
  readonly nats: TestNats;
  edge: Edge;
  kv!: KV;
  /** What the edge said: revisions by host. */
  applied = new Map<string, number[]>();
  readonly #dir: string;
  readonly #backends: TestBackend[] = [];
  readonly #log = pino({ level: process.env['LOG_LEVEL'] ?? 'silent' });

  private constructor(dir: string, port: number, settings: EdgeSettings, nats: TestNats) {
    this.#dir = dir;
    this.port = port;
    this.settings = settings;
    this.nats = nats;
    initEdge(settings);
    this.haproxy = new TestHaproxy(settings.dir);
    this.edge = new Edge(settings, this.#log);
  }

  static async start(
    other: Partial<EdgeSettings> = {},
    haproxy: { files?: number } = {},
  ): Promise<TestEdge> {
    const dir = mkdtempSync(join(tmpdir(), 'edge-'));
    const nats = await TestNats.make(dir, 'edge-1');
    await nats.start();
    const port = await freePort();
    const settings: EdgeSettings = {
      natsUrl: nats.url,
      natsCredsFile: nats.edgeCreds,
      id: 'edge-1',
      dir: join(dir, 'e'),
      bind: `127.0.0.1:${port}`,
      metricsPort: await freePort(),
      haproxyUser: process.getuid?.() === 0 ? 'haproxy' : null,
      tls: null,
      maxBody: 1024 ** 3,
      drainMs: 30_000,
      accessLog: 'errors',
      logLevel: 'silent',
      ...other,
    };
    const it = new TestEdge(dir, port, settings, nats);
    await it.watch();
    it.haproxy.start(haproxy.files);
    await it.edge.start();
    const ours = async () => (await it.ask('nobody')).headers['x-bulkhead-error'] === 'no-such-app';
    await until('haproxy serves', ours);
    return it;
  }

  async stop(): Promise<void> {
    await this.edge.stop();
    await this.haproxy.stop();
    await this.nats.stop();
    for (const each of this.#backends) each.kill();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** To be called again when NATS came back. */
  async watch(): Promise<void> {
    this.kv = await this.nats.bucket();
    this.applied = new Map();
    this.nats.api.subscribe(subjects.allEdgeApplied, {
      callback: (_, message) => {
        const { host, revision: at } = edgeApplied.parse(message.json());
        this.applied.set(host, [...(this.applied.get(host) ?? []), at]);
      },
    });
    await this.nats.api.flush();
  }

  /** The controller again, with other settings. */
  async restart(other: Partial<EdgeSettings> = {}): Promise<void> {
    await this.edge.stop();
    this.edge = new Edge({ ...this.settings, ...other }, this.#log);
    await this.edge.start();
  }

  async backend(name: string): Promise<TestBackend> {
    const made = await TestBackend.start(name);
    this.#backends.push(made);
    return made;
  }

  put(route: Route): Promise<void> {
    return this.nats.put(this.kv, route);
  }

  /** Publishes the route and waits until the edge says that it serves by it. */
  async settle(route: Route): Promise<void> {
    await this.put(route);
    await until(`${route.host} is applied`, () =>
      this.applied.get(route.host)?.includes(route.revision),
    );
  }

  ask(host: string, path = '/', options: AskOptions = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const call = request(
        {
          host: '127.0.0.1',
          port: this.port,
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

  /** Raw bytes in, raw answer out, until the edge closes or is silent; the connection is ours to abuse. */
  raw(text: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = this.connect();
      let answer = '';
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1');
        socket.setTimeout(30, () => socket.destroy());
      });
      socket.on('close', () => resolve(answer));
      socket.on('error', reject);
      socket.write(text, 'latin1');
    });
  }

  connect(): Socket {
    return connectTcp(this.port, '127.0.0.1');
  }

  /** Clients that keep their connections and ask without pause. */
  load(host: string, clients: number, method = 'GET') {
    const failures: string[] = [];
    let running = true;
    let count = 0;
    const loops = Array.from({ length: clients }, async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      while (running) {
        try {
          const body = method === 'POST' ? { body: 'x' } : {};
          const answer = await this.ask(host, '/slow?2', { agent, method, ...body });
          count += 1;
          if (answer.status !== 200) failures.push(`${answer.status}`);
        } catch (error) {
          failures.push(String(error));
        }
      }
      agent.destroy();
    });
    return {
      failures,
      count: () => count,
      stop: async () => {
        running = false;
        await Promise.all(loops);
      },
    };
  }
}
