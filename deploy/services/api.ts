/** The API: GraphQL, sign-in, controllers, and the door to the registry. */
import { join } from 'node:path';
import type { Step } from '../bootstrap/steps.mjs';
import type { Owner } from '../files.ts';
import type { Layout, PlatformSettings } from '../settings.ts';
import { asOwner, type Service } from '../supervise.ts';
import { gateSocket } from './gate.ts';
import { checkHttp } from './http.ts';
import { natsUrl } from './nats.ts';
import { databaseUrlFile } from './postgres.ts';
import { registryHost } from './registry.ts';

export const apiUrl = (settings: PlatformSettings) =>
  `http://${settings.host}:${settings.ports.api}`;
export const apiCredsFile = (paths: Layout) => join(paths.apiKeys, 'nats.creds');

const program = (paths: Layout, name: 'main' | 'admin', ...args: string[]) => [
  join(paths.clone, 'node_modules/.bin/node'),
  join(paths.clone, `apps/api/dist/${name}.js`),
  ...args,
];

const environment = (settings: PlatformSettings, paths: Layout): Record<string, string> => ({
  DATABASE_URL_FILE: databaseUrlFile(paths),
  NATS_URL: natsUrl(settings),
  NATS_CREDS_FILE: apiCredsFile(paths),
  BULKHEAD_KEY_DIR: paths.apiKeys,
  API_HOST: settings.host,
  API_PORT: String(settings.ports.api),
  STREAMS_HOST: settings.listen ?? settings.host,
  STREAMS_PORT: String(settings.ports.streams),
  STREAMS_TLS_DIR: paths.apiTls,
  ...(settings.listen === null
    ? {}
    : {
        FLEET_ADDRESS: settings.listen,
        FLEET_JOIN_PORT: String(settings.ports.join),
        GATE_SOCKET: gateSocket(paths),
      }),
  PLATFORM_DOMAIN: settings.domain,
  EDGE_PUBLIC_PORT: String(settings.ports.edge),
  REGISTRY_HOST: registryHost(settings),
  SIGN_UP: settings.signUp,
  ...(settings.trustedProxies === null ? {} : { TRUSTED_PROXIES: settings.trustedProxies }),
  ...(settings.maxTenantsPerUser === null
    ? {}
    : { MAX_TENANTS_PER_USER: String(settings.maxTenantsPerUser) }),
  ...(settings.rebalanceMoves === null ? {} : { REBALANCE_MOVES: String(settings.rebalanceMoves) }),
  NODE_ENV: 'production',
  BULKHEAD_STATE: settings.stateDir,
});

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
  const [file = '', ...rest] = asOwner(paths, settings.root, { owner, command, seesClone: true });
  return step.run(file, rest, {
    cwd: '/',
    env: { ...environment(settings, paths), PATH: process.env['PATH'] },
    ...(input === undefined ? {} : { input }),
  });
}

export function apiService(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  build: string,
  certificate: string,
): Service {
  return {
    name: 'api',
    owner,
    command: program(paths, 'main'),
    env: {
      ...environment(settings, paths),
      BULKHEAD_SERVICE: 'api',
      BULKHEAD_BUILD: build,
      // A renewed certificate restarts it.
      BULKHEAD_CERTIFICATE: certificate,
    },
    seesClone: true,
    check: () => checkHttp(`${apiUrl(settings)}/readyz`),
  };
}
