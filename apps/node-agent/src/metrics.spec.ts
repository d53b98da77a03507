import { expect, test } from 'vitest';
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

test('no number names a tenant, app or instance', async () => {
  const registry = new AgentMetrics().registry;
  const labels = (await registry.getMetricsAsJSON()).flatMap((metric) =>
    metric.values.flatMap((value) => Object.keys(value.labels)),
  );
  for (const name of ['tenant', 'app', 'instance', 'image']) expect(labels).not.toContain(name);
});
