import { createServer, type Server } from 'node:http';
import { Counter, Gauge, Registry } from 'prom-client';
import type { BodyWatch } from './haproxy/bodies.ts';
import type { CertificateWatch } from './haproxy/certificates.ts';
import type { HaproxyFollower } from './haproxy/follower.ts';
import type { RouteTable } from './table.ts';
import { statusClasses, type TrafficMeter } from './traffic.ts';

export interface MetricsOptions {
  table: RouteTable;
  follower: HaproxyFollower;
  bodies: BodyWatch;
  /** Null without HTTPS. */
  certificates: CertificateWatch | null;
  traffic: TrafficMeter;
  /** Brings `traffic` up to date. */
  readTraffic(): Promise<void>;
  natsConnected(): boolean;
  /** Messages about routes, by what became of them. */
  received: Readonly<Record<string, number>>;
}

/** `/metrics` for Prometheus, and `/healthz`: 200 while HAProxy answers, with what is degraded. */
export class Metrics {
  readonly #options: MetricsOptions;
  readonly #registry = new Registry();
  #server: Server | null = null;

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
    const { certificates } = options;
    new Gauge({
      name: 'bulkhead_edge_certificate_expires_timestamp_seconds',
      help: 'When a certificate for HTTPS ends, by the name of its file',
      labelNames: ['certificate'] as const,
      registers,
      collect() {
        this.reset();
        for (const [certificate, { expires }] of certificates?.current ?? [])
          this.set({ certificate }, expires.getTime() / 1000);
      },
    });
    const { traffic } = options;
    new Counter({
      name: 'bulkhead_edge_requests_total',
      help: 'Requests answered for a host, by class of status',
      labelNames: ['host', 'code'] as const,
      registers,
      collect() {
        this.reset();
        for (const [host, totals] of traffic.totals) {
          for (const code of statusClasses) this.inc({ host, code }, totals[`status${code}`]);
        }
      },
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
        await this.#options.readTraffic();
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
}
