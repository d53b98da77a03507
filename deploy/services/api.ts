/** The API: GraphQL, sign-in, controllers, and the door to the registry. */
import { join } from 'node:path';
import type { Step } from '../bootstrap/steps.mjs';
import type { Owner } from '../files.ts';
import { apiReplicas, type ApiReplica } from '../replicas.ts';
import type { Layout, PlatformSettings } from '../settings.ts';
import { asOwner, type Service } from '../supervise.ts';
import { gateSocket } from './gate.ts';
import { checkHttp } from './http.ts';
import { natsUrl } from './nats.ts';
import { databaseUrlFile } from './postgres.ts';
import { registryHost } from './registry.ts';

/** Of the API as a whole, whichever replica answers. */
export const apiUrl = (settings: PlatformSettings) =>
  `http://${settings.host}:${settings.ports.api}`;
export const apiCredsFile = (paths: Layout) => join(paths.apiKeys, 'nats.creds');

const program = (paths: Layout, name: 'main' | 'admin', ...args: string[]) => [
  join(paths.clone, 'node_modules/.bin/node'),
  join(paths.clone, `apps/api/dist/${name}.js`),
  ...args,
];

const environment = (
  settings: PlatformSettings,
  paths: Layout,
  replica: ApiReplica,
): Record<string, string> => ({
  DATABASE_URL_FILE: databaseUrlFile(paths),
  NATS_URL: natsUrl(settings),
  NATS_CREDS_FILE: apiCredsFile(paths),
  BULKHEAD_KEY_DIR: paths.apiKeys,
  API_HOST: settings.host,
  API_PORT: String(replica.port),
  STREAMS_HOST: settings.listen ?? settings.host,
  STREAMS_PORT: String(replica.streams),
  STREAMS_TLS_DIR: paths.apiTls,
  ...(settings.listen === null
    ? {}
    : {
        FLEET_ADDRESS: settings.listen,
        FLEET_STREAMS_PORT: String(settings.ports.streams),
        FLEET_API_PORT: String(settings.ports.api),
        FLEET_JOIN_PORT: String(settings.ports.join),
        GATE_SOCKET: gateSocket(paths),
      }),
  PLATFORM_DOMAIN: settings.domain,
  EDGE_PUBLIC_PORT: String(settings.ports.edge),
  REGISTRY_HOST: registryHost(settings),
  SIGN_UP: settings.signUp,
  ...(replica.label === null ? {} : { STREAMS_PUBLIC_URL: `/streams?replica=${replica.label}` }),
  ...trusted(settings),
  ...(settings.maxTenantsPerUser === null
    ? {}
    : { MAX_TENANTS_PER_USER: String(settings.maxTenantsPerUser) }),
  ...(settings.rebalanceMoves === null ? {} : { REBALANCE_MOVES: String(settings.rebalanceMoves) }),
  NODE_ENV: 'production',
  BULKHEAD_STATE: settings.stateDir,
});

/** The balancer says whom a request is from; of a client's own word it keeps only a trusted proxy's. */
function trusted({ apiReplicas, host, trustedProxies }: PlatformSettings): Record<string, string> {
  const all = [
    ...(apiReplicas > 1 ? [host] : []),
    ...(trustedProxies === null ? [] : [trustedProxies]),
  ];
  return all.length === 0 ? {} : { TRUSTED_PROXIES: all.join(',') };
}

/** Runs one command of the API's own administration, as the API's user. Secrets go in by `input`. */
export async function runAdmin(
  step: Step,
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  args: readonly string[],
  input?: string,
): Promise<string> {
  const command = program(paths, 'admin', ...args);
  const [replica] = apiReplicas(settings);
  if (replica === undefined) throw new Error('a platform has at least one replica of the API');
  const [file = '', ...rest] = asOwner(paths, settings.root, { owner, command, seesClone: true });
  return step.run(file, rest, {
    cwd: '/',
    env: { ...environment(settings, paths, replica), PATH: process.env['PATH'] },
    ...(input === undefined ? {} : { input }),
  });
}

export function apiService(
  settings: PlatformSettings,
  paths: Layout,
  replica: ApiReplica,
  owner: Owner,
  build: string,
  certificate: string,
): Service {
  return {
    name: replica.name,
    owner,
    command: program(paths, 'main'),
    env: {
      ...environment(settings, paths, replica),
      BULKHEAD_SERVICE: replica.name,
      BULKHEAD_BUILD: build,
      // A renewed certificate restarts it.
      BULKHEAD_CERTIFICATE: certificate,
    },
    seesClone: true,
    check: () => checkHttp(`http://${settings.host}:${replica.port}/readyz`),
  };
}
