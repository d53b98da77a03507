/**
 * The replicas of the API and the edges of this platform, each with its name, its ports and its
 * place. A platform with one of each has the names and ports that it had before there could be more;
 * with more replicas of the API, its own ports are the balancer's and each replica has others.
 */
import { join } from 'node:path';
import type { Layout, PlatformSettings } from './settings.ts';

export interface ApiReplica {
  /** Of its service. */
  readonly name: string;
  /** By which clients find their way back to it; null: it is the only one. */
  readonly label: string | null;
  readonly port: number;
  /** Where agents dial it. */
  readonly streams: number;
}

export interface EdgeReplica {
  /** Names it on NATS. */
  readonly id: string;
  /** Of its two services. */
  readonly controller: string;
  readonly haproxy: string;
  readonly dir: string;
  readonly keys: string;
  readonly port: number;
  readonly metrics: number;
  /** Where it speaks TLS, as the edge reads it; null: nowhere. */
  readonly tls: string | null;
}

export function apiReplicas({ apiReplicas: count, ports }: PlatformSettings): ApiReplica[] {
  if (count === 1) return [{ name: 'api', label: null, port: ports.api, streams: ports.streams }];
  return numbers(count).map((number) => {
    const port = ports.replicas + 2 * (number - 1);
    return { name: nameOf('api', number), label: String(number), port, streams: port + 1 };
  });
}

export function edgeReplicas(
  { edges: count, ports, stateDir, edge }: PlatformSettings,
  paths: Pick<Layout, 'edge' | 'edgeKeys'>,
): EdgeReplica[] {
  return numbers(count).map((number) => {
    const first = number === 1;
    const port = ports.edges + 2 * (number - 2);
    return {
      id: `edge-${number}`,
      controller: nameOf('edge', number),
      haproxy: nameOf('haproxy', number),
      dir: first ? paths.edge : join(stateDir, nameOf('edge', number)),
      keys: first ? paths.edgeKeys : join(paths.edgeKeys, '..', nameOf('edge', number)),
      port: first ? ports.edge : port,
      metrics: first ? ports.edgeMetrics : port + 1,
      tls: portAfter(edge.EDGE_TLS_BIND, number - 1),
    };
  });
}

/** Two cannot have one port; what is no port is refused by the edge itself. */
const portAfter = (bind: string | undefined, further: number): string | null =>
  bind?.replace(/\d+$/, (port) => String(Number(port) + further)) ?? null;

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

/** The first has no number: it may be the only one. */
const nameOf = (service: string, number: number) =>
  number === 1 ? service : `${service}-${number}`;

/** Whether a service of this name may be one of several, and so may be one too many. */
export const isReplica = (name: string) => /^(balancer|(api|edge|haproxy)(-\d+)?)$/.test(name);
