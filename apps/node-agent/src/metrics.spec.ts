import { expect, test } from 'vitest';
import { FakeRuntime } from './fake-runtime.ts';
import { AgentMetrics } from './metrics.ts';

test('what the runtime tells is counted, by kind and reason', async () => {
  const metrics = new AgentMetrics();
  metrics.note({ type: 'image-pulled', seconds: 2, bytes: 1000 });
  metrics.note({ type: 'image-pull-failed', reason: 'image-not-found' });
  metrics.note({ type: 'images-removed', images: 3, bytes: 9 });
  metrics.note({ type: 'firewall-healed' });
  metrics.note({ type: 'leak-removed', kind: 'interface' });
  metrics.noteEnd('oom');
  const text = await metrics.registry.metrics();
  for (const line of [
    'bulkhead_agent_image_pulls_total{outcome="pulled"} 1',
    'bulkhead_agent_image_pull_failures_total{reason="image-not-found"} 1',
    'bulkhead_agent_image_pull_bytes_total 1000',
    'bulkhead_agent_images_removed_total 3',
    'bulkhead_agent_firewall_heals_total 1',
    'bulkhead_agent_leaks_removed_total{kind="interface"} 1',
    'bulkhead_agent_ends_total{reason="oom"} 1',
    'bulkhead_agent_restarts_total 1',
  ])
    expect(text).toContain(line);
});

test('what all containers take, and what holds them back, is read when somebody asks', async () => {
  const metrics = new AgentMetrics();
  let looks = 0;
  metrics.observe({
    ...{ states: () => [], reportsPending: () => 0, natsConnected: () => true },
    diskPool: () => null,
    usage: () => new FakeRuntime().usage(),
    load: () => {
      looks += 1;
      const counts = {
        periods: 10 * looks,
        throttledPeriods: 4 * looks,
        throttledNanos: 5e8 * looks,
      };
      return {
        use: { ...counts, cpuNanos: 2e9, memoryBytes: 77, pids: 5, readBytes: 1, writtenBytes: 2 },
        throttling: { instance: counts, tenant: { ...counts, throttledPeriods: 0 } },
        pressure: [{ resource: 'memory', kind: 'full', seconds: 1.5 }],
      };
    },
  });
  await metrics.text();
  const text = await metrics.text();
  for (const line of [
    'bulkhead_agent_containers_cpu_seconds_total 2',
    'bulkhead_agent_containers_memory_bytes 77',
    'bulkhead_agent_containers_processes 5',
    'bulkhead_agent_containers_io_bytes_total{direction="written"} 2',
    'bulkhead_agent_cpu_periods_total{cap="instance"} 20',
    'bulkhead_agent_cpu_throttled_periods_total{cap="instance"} 8',
    'bulkhead_agent_cpu_throttled_periods_total{cap="tenant"} 0',
    'bulkhead_agent_cpu_throttled_seconds_total{cap="tenant"} 1',
    'bulkhead_agent_pressure_seconds_total{resource="memory",kind="full"} 1.5',
  ])
    expect(text).toContain(line);
  expect(looks).toBe(2);
});

test('no number names a tenant, app or instance', async () => {
  const registry = new AgentMetrics().registry;
  const labels = (await registry.getMetricsAsJSON()).flatMap((metric) =>
    metric.values.flatMap((value) => Object.keys(value.labels)),
  );
  for (const name of ['tenant', 'app', 'instance', 'image']) expect(labels).not.toContain(name);
});
