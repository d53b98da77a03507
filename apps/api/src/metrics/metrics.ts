import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';

/** The key of the Metrics in Nest's container. */
export const METRICS = Symbol('METRICS');

/** What this process counts. Labels have few values: root fields of the schema, codes, route patterns. */
export class Metrics {
  readonly registry = new Registry();

  readonly httpRequests = new Counter({
    name: 'bulkhead_api_http_requests_total',
    help: 'HTTP requests by method, route and status',
    labelNames: ['method', 'route', 'status'] as const,
    registers: [this.registry],
  });

  readonly operations = new Histogram({
    name: 'bulkhead_api_graphql_operation_seconds',
    help: 'GraphQL operations by transport and root field; for subscriptions the time to set up',
    labelNames: ['transport', 'operation'] as const,
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    registers: [this.registry],
  });

  readonly errors = new Counter({
    name: 'bulkhead_api_graphql_errors_total',
    help: 'Errors in GraphQL answers by code',
    labelNames: ['code'] as const,
    registers: [this.registry],
  });

  readonly sockets = new Gauge({
    name: 'bulkhead_api_websocket_connections',
    help: 'Open WebSocket connections',
    registers: [this.registry],
  });

  readonly streams = new Gauge({
    name: 'bulkhead_api_streams',
    help: 'Open streams between clients and containers',
    labelNames: ['kind'] as const,
    registers: [this.registry],
  });

  readonly subscriptions = new Gauge({
    name: 'bulkhead_api_subscriptions',
    help: 'Running subscriptions',
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry });
  }
}
