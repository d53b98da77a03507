import { expect, test } from 'vitest';
import { apiReplicas, edgeReplicas } from './replicas.ts';
import { balancerConfig } from './services/balancer.ts';
import { layout, makeSettings } from './settings.ts';

const make = (options: object) =>
  makeSettings({ root: '/srv/clone', portBase: 15_000, ...options });
const paths = layout('/var/lib/bulkhead');

test('one of each has the names, ports and places that a platform always had', () => {
  const settings = make({});
  const { ports } = settings;
  expect(apiReplicas(settings)).toEqual([
    { name: 'api', label: null, port: ports.api, streams: ports.streams },
  ]);
  expect(edgeReplicas(settings, paths)).toEqual([
    {
      ...{ id: 'edge-1', controller: 'edge', haproxy: 'haproxy' },
      ...{ dir: paths.edge, keys: paths.edgeKeys, port: ports.edge, metrics: ports.edgeMetrics },
      tls: null,
    },
  ]);
});

test('no two of several share a name, a port or a place', () => {
  for (const portBase of [15_000, undefined]) {
    const tls = { EDGE_TLS_BIND: '203.0.113.7:8443' };
    const settings = make({ apiReplicas: 4, edges: 4, portBase, edge: tls });
    const apis = apiReplicas(settings);
    const edges = edgeReplicas(settings, paths);
    const { replicas: _replicas, edges: _edges, ...ports } = settings.ports;
    const others = [ports.edge, ports.edgeMetrics];
    const numbers = [
      ...Object.values(ports).filter((port) => !others.includes(port)),
      ...apis.flatMap(({ port, streams }) => [port, streams]),
      ...edges.flatMap(({ port, metrics }) => [port, metrics]),
    ];
    expect(new Set(numbers).size).toBe(numbers.length);
    const names = [
      ...apis.map(({ name }) => name),
      ...edges.flatMap(({ id, controller, haproxy }) => [`nats ${id}`, controller, haproxy]),
      ...edges.flatMap(({ dir, keys, tls }) => [dir, keys, tls]),
    ];
    expect(new Set(names).size).toBe(names.length);
  }
});

test('the balancer believes what a client says of whom it is for only where that is a trusted proxy', () => {
  const forged = /del-header \^\(x-forwarded.*/;
  const config = (options: object) => balancerConfig(make({ apiReplicas: 2, ...options }));
  expect(forged.exec(config({}))?.[0]).not.toContain('unless');
  expect(forged.exec(config({ trustedProxies: '10.0.0.1, ::1' }))?.[0]).toContain(
    'unless { src 10.0.0.1 ::1 }',
  );
});
