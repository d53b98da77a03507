/** The node agent. The one service that needs root: it makes namespaces, networks and cgroups. */
import { join } from 'node:path';
import { root as rootUser } from '../files.ts';
import type { Layout, PlatformSettings } from '../settings.ts';
import type { Service } from '../supervise.ts';
import { checkHttp } from './http.ts';
import { natsUrl } from './nats.ts';
import { registryHost } from './registry.ts';

export const agentCommand = (clone: string): string[] => [
  join(clone, 'node_modules/.bin/node'),
  join(clone, 'apps/node-agent/dist/main.js'),
];

export const agentEnvironment = (
  settings: PlatformSettings,
  paths: Layout,
): Record<string, string> => ({
  NODE_DIR: paths.node,
  NATS_URL: natsUrl(settings),
  REGISTRY_HOST: registryHost(settings),
  ...(settings.listen === null
    ? {}
    : { FLEET_STREAMS: `${settings.listen}:${settings.ports.streams}` }),
  AGENT_METRICS_PORT: String(settings.ports.agentMetrics),
  AGENT_NETWORK: settings.node.network,
  AGENT_CGROUP: settings.node.cgroup,
  AGENT_NFT_TABLE: settings.node.nftTable,
  AGENT_VETH_PREFIX: settings.node.vethPrefix,
  AGENT_ID_BASE: String(settings.node.idBase),
  ...(settings.node.diskPoolMiB === null
    ? {}
    : { AGENT_DISK_POOL_MIB: String(settings.node.diskPoolMiB) }),
  ...(settings.node.allowMissingWalls === ''
    ? {}
    : { AGENT_ALLOW_MISSING_WALLS: settings.node.allowMissingWalls }),
  NODE_ENV: 'production',
});

export function agentService(
  settings: PlatformSettings,
  paths: Layout,
  build: string,
  certificate: string,
): Service {
  return {
    name: 'agent',
    owner: rootUser,
    command: agentCommand(settings.root),
    env: {
      ...agentEnvironment(settings, paths),
      BULKHEAD_STATE: settings.stateDir,
      BULKHEAD_SERVICE: 'agent',
      BULKHEAD_BUILD: build,
      // A renewed certificate restarts it; containers go on.
      BULKHEAD_CERTIFICATE: certificate,
    },
    seesClone: false,
    check: () => checkHttp(`http://${settings.host}:${settings.ports.agentMetrics}/healthz`),
  };
}
