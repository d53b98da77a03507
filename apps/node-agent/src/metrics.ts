import { createServer, type Server } from 'node:http';
import {
  assertNever,
  reportedStates,
  type InstanceExit,
  type ReportedState,
} from '@bulkhead/protocol';
import type { HostLoad, HostUsage, RuntimeEvent } from '@bulkhead/runtime';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { HostMetrics } from './host-metrics.ts';

/** What the gauges are read from at each scrape. */
export interface AgentGauges {
  states(): Iterable<ReportedState>;
  reportsPending(): number;
  natsConnected(): boolean;
  diskPool(): { bytes: number; usedBytes: number } | null;
  usage(): Promise<HostUsage>;
  load(): HostLoad;
}

/** The agent's numbers, in Prometheus' words. No label names a tenant, app or instance: there is no end of those. */
export class AgentMetrics {
  readonly registry = new Registry();
  #look: () => void = () => undefined;
  readonly starts: Counter<'outcome'>;
  readonly verbSeconds: Histogram<'verb' | 'outcome'>;
  readonly startFailures: Counter<'reason'>;
  readonly restarts: Counter;
  readonly ends: Counter<'reason'>;
  readonly crashLoops: Counter;
  readonly checks: Counter<'kind' | 'outcome'>;
  readonly imagePulls: Counter<'outcome'>;
  readonly imagePullFailures: Counter<'reason'>;
  readonly imagePullSeconds: Histogram;
  readonly imagePullBytes: Counter;
  readonly imagesRemoved: Counter;
  readonly firewallHeals: Counter;
  readonly leaks: Counter<'kind'>;
  readonly problems: Counter;
  readonly specsRefused: Counter<'why'>;
  readonly streams: Gauge<'kind'>;
  readonly streamBytes: Counter<'direction'>;
  readonly logLinesShipped: Counter;
  readonly logLinesDropped: Counter;
  readonly logBytesDropped: Counter;
  readonly logBytesLost: Counter;

  constructor() {
    const registers = [this.registry];
    this.starts = new Counter({
      name: 'bulkhead_agent_starts_total',
      help: 'Containers started, by outcome.',
      labelNames: ['outcome'],
      registers,
    });
    this.verbSeconds = new Histogram({
      name: 'bulkhead_agent_verb_seconds',
      help: 'How long each thing done to a container took, by outcome: done, refused, failed.',
      labelNames: ['verb', 'outcome'],
      buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
      registers,
    });
    this.restarts = new Counter({
      name: 'bulkhead_agent_restarts_total',
      help: 'Ends of containers that nobody asked for.',
      registers,
    });
    this.startFailures = new Counter({
      name: 'bulkhead_agent_start_failures_total',
      help: 'Starts that failed, by reason as tenants are told.',
      labelNames: ['reason'],
      registers,
    });
    this.ends = new Counter({
      name: 'bulkhead_agent_ends_total',
      help: 'Ends of containers that nobody asked for, by reason: oom, disk-full, signal, exited, health.',
      labelNames: ['reason'],
      registers,
    });
    this.crashLoops = new Counter({
      name: 'bulkhead_agent_crash_loops_total',
      help: 'Times that an instance came into a crash loop.',
      registers,
    });
    this.checks = new Counter({
      name: 'bulkhead_agent_checks_total',
      help: 'Looks at the health of instances, by kind (listens: there is no check, only a port) and outcome; not-run: the host could not, which says nothing of the instance.',
      labelNames: ['kind', 'outcome'],
      registers,
    });
    this.imagePulls = new Counter({
      name: 'bulkhead_agent_image_pulls_total',
      help: 'Images pulled, by outcome.',
      labelNames: ['outcome'],
      registers,
    });
    this.imagePullFailures = new Counter({
      name: 'bulkhead_agent_image_pull_failures_total',
      help: 'Pulls that failed, by reason.',
      labelNames: ['reason'],
      registers,
    });
    this.imagePullSeconds = new Histogram({
      name: 'bulkhead_agent_image_pull_seconds',
      help: 'How long pulls that succeeded took.',
      buckets: [0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600],
      registers,
    });
    this.imagePullBytes = new Counter({
      name: 'bulkhead_agent_image_pull_bytes_total',
      help: 'Compressed bytes of pulls that succeeded.',
      registers,
    });
    this.imagesRemoved = new Counter({
      name: 'bulkhead_agent_images_removed_total',
      help: 'Unused images removed by the water marks.',
      registers,
    });
    this.firewallHeals = new Counter({
      name: 'bulkhead_agent_firewall_heals_total',
      help: 'Times that somebody changed or flushed our rules and they were put back.',
      registers,
    });
    this.leaks = new Counter({
      name: 'bulkhead_agent_leaks_removed_total',
      help: 'What belonged to no container when the agent started, by kind.',
      labelNames: ['kind'],
      registers,
    });
    this.problems = new Counter({
      name: 'bulkhead_agent_background_failures_total',
      help: 'Failures that no request waits for and that are tried again; the log says which.',
      registers,
    });
    this.specsRefused = new Counter({
      name: 'bulkhead_agent_specs_refused_total',
      help: 'Desired states that were not taken: of an older generation, or malformed.',
      labelNames: ['why'],
      registers,
    });
    this.streams = new Gauge({
      name: 'bulkhead_agent_streams',
      help: 'Open streams to clients: commands, copies, forwarded connections, ...',
      labelNames: ['kind'],
      registers,
    });
    this.streamBytes = new Counter({
      name: 'bulkhead_agent_stream_bytes_total',
      help: 'Bytes of streams that have ended, as the containers see them.',
      labelNames: ['direction'],
      registers,
    });
    this.logLinesShipped = new Counter({
      name: 'bulkhead_agent_log_lines_shipped_total',
      help: 'Log lines acknowledged by JetStream.',
      registers,
    });
    this.logLinesDropped = new Counter({
      name: 'bulkhead_agent_log_lines_dropped_total',
      help: 'Log lines dropped by the rate limit.',
      registers,
    });
    this.logBytesDropped = new Counter({
      name: 'bulkhead_agent_log_dropped_bytes_total',
      help: 'Bytes of log lines dropped by the rate limit.',
      registers,
    });
    this.logBytesLost = new Counter({
      name: 'bulkhead_agent_log_lost_bytes_total',
      help: 'Output overwritten before it was read, about: written far over its rate, or while NATS was away for long.',
      registers,
    });
  }

  /** An end that nobody asked for. */
  noteEnd(reason: InstanceExit['reason']): void {
    this.restarts.inc();
    this.ends.inc({ reason });
  }

  /** For the runtime's `onEvent`. */
  note(event: RuntimeEvent): void {
    switch (event.type) {
      case 'image-pulled':
        this.imagePulls.inc({ outcome: 'pulled' });
        this.imagePullSeconds.observe(event.seconds);
        return this.imagePullBytes.inc(event.bytes);
      case 'image-pull-failed':
        this.imagePulls.inc({ outcome: 'failed' });
        return this.imagePullFailures.inc({ reason: event.reason });
      case 'images-removed':
        return this.imagesRemoved.inc(event.images);
      case 'firewall-healed':
        return this.firewallHeals.inc();
      case 'leak-removed':
        return this.leaks.inc({ kind: event.kind });
      default:
        assertNever(event);
    }
  }

  /** All of it, as Prometheus reads it. */
  text(): Promise<string> {
    this.#look();
    return this.registry.metrics();
  }

  /** Adds the numbers that are looked up when somebody asks. */
  observe(gauges: AgentGauges): void {
    const registers = [this.registry];
    const host = new HostMetrics(this.registry);
    this.#look = () => host.show(gauges.load());
    new Gauge({
      name: 'bulkhead_agent_instances',
      help: 'Instances by the state last reported.',
      labelNames: ['state'],
      registers,
      collect() {
        const counts = new Map<ReportedState, number>(reportedStates.map((state) => [state, 0]));
        for (const state of gauges.states()) counts.set(state, (counts.get(state) ?? 0) + 1);
        for (const [state, count] of counts) this.set({ state }, count);
      },
    });
    new Gauge({
      name: 'bulkhead_agent_reports_pending',
      help: 'Instances whose latest state has not been acknowledged.',
      registers,
      collect() {
        this.set(gauges.reportsPending());
      },
    });
    new Gauge({
      name: 'bulkhead_agent_nats_connected',
      help: '1 while connected to NATS.',
      registers,
      collect() {
        this.set(gauges.natsConnected() ? 1 : 0);
      },
    });
    new Gauge({
      name: 'bulkhead_agent_slots',
      help: 'Addresses, ids and interfaces for containers: how many there are, of which `used` are taken.',
      labelNames: ['kind'],
      registers,
      async collect() {
        const { slots } = await gauges.usage();
        this.set({ kind: 'total' }, slots.total);
        this.set({ kind: 'used' }, slots.used);
        this.set({ kind: 'resting' }, slots.resting);
      },
    });
    new Gauge({
      name: 'bulkhead_agent_images',
      help: 'Images on this node.',
      registers,
      async collect() {
        this.set((await gauges.usage()).images.count);
      },
    });
    new Gauge({
      name: 'bulkhead_agent_image_bytes',
      help: 'Unpacked layers of images, each counted once.',
      registers,
      async collect() {
        this.set((await gauges.usage()).images.bytes);
      },
    });
    if (gauges.diskPool() === null) return;
    new Gauge({
      name: 'bulkhead_agent_disk_pool_bytes',
      help: 'Room for what containers write, of which `used` is taken.',
      labelNames: ['kind'],
      registers,
      collect() {
        const pool = gauges.diskPool();
        this.set({ kind: 'size' }, pool?.bytes ?? 0);
        this.set({ kind: 'used' }, pool?.usedBytes ?? 0);
      },
    });
  }
}

export interface AgentHealth {
  status: 'starting' | 'ok';
  node: string;
  nats: 'connected' | 'away';
  instances: number;
  reportsPending: number;
}

/** Serves /metrics and /healthz on loopback. The agent is well without NATS: it goes on with what it knows. */
export async function serveMetrics(
  port: number,
  metrics: AgentMetrics,
  health: () => AgentHealth,
): Promise<Server> {
  // Of the process, which is the agent's own where it is served. The default looks at the event loop
  // a hundred times a second, most of what an idle agent costs.
  collectDefaultMetrics({ register: metrics.registry, eventLoopMonitoringPrecision: 250 });
  const server = createServer((request, response) => {
    if (request.url === '/metrics') {
      metrics.text().then(
        (text) => response.setHeader('content-type', metrics.registry.contentType).end(text),
        () => response.writeHead(500).end(),
      );
    } else if (request.url === '/healthz') {
      const state = health();
      response.writeHead(state.status === 'ok' ? 200 : 503, { 'content-type': 'application/json' });
      response.end(JSON.stringify(state));
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return server;
}
