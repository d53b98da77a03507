import { createServer, type Server } from 'node:http';
import { Counter, Gauge, Registry } from 'prom-client';
import type { BodyWatch } from './haproxy/bodies.ts';
import type { HaproxyFollower } from './haproxy/follower.ts';
import type { RouteTable } from './table.ts';

export interface MetricsOptions {
  table: RouteTable;
  follower: HaproxyFollower;
  bodies: BodyWatch;
  natsConnected(): boolean;
  /** Messages about routes, by what became of them. */
  received: Readonly<Record<string, number>>;
}

const statusColumns = ['1xx', '2xx', '3xx', '4xx', '5xx', 'other'] as const;

/** `/metrics` for Prometheus, and `/healthz`: 200 while HAProxy answers, with what is degraded. */
export class Metrics {
  readonly #options: MetricsOptions;
  readonly #registry = new Registry();
  readonly #requests: Counter<'host' | 'code'>;
  /** Last reading of each counter: HAProxy counts from zero after a restart. */
  readonly #seen = new Map<string, number>();
  #server: Server | null = null;
  #counting: Promise<void> = Promise.resolve();

  constructor(options: MetricsOptions) {
    this.#options = options;
    const registers = [this.#registry];
    const { table, follower } = options;
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    gauge('bulkhead_edge_routes', 'Host names in the route table', () => table.size);
    gauge(
      'bulkhead_edge_backend_slots',
      'Backends that HAProxy holds ready for hosts',
      () => table.capacity,
    );
    gauge(
      'bulkhead_edge_unsettled_routes',
      'Routes being applied or drained',
      () => follower.pending,
    );
    gauge('bulkhead_edge_haproxy_up', '1 while HAProxy answers', () => Number(follower.up));
    gauge('bulkhead_edge_nats_connected', '1 while connected to NATS', () =>
      Number(options.natsConnected()),
    );
    const counter = (name: string, help: string, read: () => number) =>
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset();
          this.inc(read());
        },
      });
    counter(
      'bulkhead_edge_haproxy_reloads_total',
      'Reloads of HAProxy',
      () => follower.counts.reloads,
    );
    counter(
      'bulkhead_edge_failures_total',
      'Passes over HAProxy that failed',
      () => follower.counts.failures,
    );
    counter(
      'bulkhead_edge_healed_total',
      'Differences found in HAProxy that nobody had asked for',
      () => follower.counts.healed,
    );
    const countsOf = <Label extends string>(
      name: string,
      help: string,
      label: Label,
      counts: Readonly<Record<string, number>>,
    ) =>
      new Counter<Label>({
        name,
        help,
        labelNames: [label],
        registers,
        collect() {
          this.reset();
          for (const [key, count] of Object.entries(counts)) this.labels(key).inc(count);
        },
      });
    countsOf(
      'bulkhead_edge_route_messages_total',
      'Route messages by what became of them',
      'result',
      options.received,
    );
    countsOf(
      'bulkhead_edge_bodies_ended_total',
      'Requests ended while their body came, because it was too slow or too large',
      'reason',
      options.bodies.ended,
    );
    this.#requests = new Counter({
      name: 'bulkhead_edge_requests_total',
      help: 'Requests answered for a host, by class of status',
      labelNames: ['host', 'code'] as const,
      registers,
    });
  }

  listen(port: number): Promise<void> {
    const server = createServer((request, response) => {
      void this.#answer(request.url ?? '').then(({ status, type, body }) => {
        response.writeHead(status, { 'content-type': type }).end(body);
      });
    });
    this.#server = server;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', resolve);
    });
  }

  close(): void {
    this.#server?.close();
    this.#server?.closeAllConnections();
  }

  async #answer(url: string): Promise<{ status: number; type: string; body: string }> {
    const { table, follower } = this.#options;
    switch (url.split('?')[0]) {
      case '/metrics': {
        // One at a time: two scrapes at once would count the same requests twice.
        this.#counting = this.#counting.then(() => this.#countRequests()).catch(() => undefined);
        await this.#counting;
        return {
          status: 200,
          type: this.#registry.contentType,
          body: await this.#registry.metrics(),
        };
      }
      case '/healthz': {
        const body = {
          haproxy: follower.up,
          nats: this.#options.natsConnected(),
          routes: table.size,
        };
        return {
          status: follower.up ? 200 : 503,
          type: 'application/json',
          body: `${JSON.stringify(body)}\n`,
        };
      }
      default:
        return { status: 404, type: 'text/plain', body: 'only /metrics and /healthz are here\n' };
    }
  }

  async #countRequests(): Promise<void> {
    const stats = await this.#options.follower.requestsByHost();
    const live = new Set<string>();
    for (const { host, pid, stat } of stats) {
      for (const code of statusColumns) {
        const key = `${pid} ${host} ${stat.get('pxname')} ${code}`;
        const value = Number(stat.get(`hrsp_${code}`) ?? 0);
        live.add(key);
        const before = this.#seen.get(key) ?? 0;
        if (value > before) this.#requests.inc({ host, code }, value - before);
        this.#seen.set(key, value);
      }
    }
    for (const key of this.#seen.keys()) if (!live.has(key)) this.#seen.delete(key);
  }
}
