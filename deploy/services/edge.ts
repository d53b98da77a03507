/**
 * The edge: HAProxy, and the controller that tells it the routes. Both run as one user, and neither
 * needs the other alive: HAProxy goes on with the last table, the controller waits for HAProxy.
 */
import { join } from 'node:path';
import type { Step } from '../bootstrap/steps.mjs';
import { ensureServiceDirectory, type Owner } from '../files.ts';
import type { EdgeReplica } from '../replicas.ts';
import type { Layout, PlatformSettings } from '../settings.ts';
import { asOwner, type Service } from '../supervise.ts';
import { checkHttp } from './http.ts';
import { natsUrl } from './nats.ts';

export const edgeCredsFile = (edge: EdgeReplica) => join(edge.keys, 'nats.creds');

const controller = (paths: Layout, ...args: string[]) => [
  join(paths.clone, 'node_modules/.bin/node'),
  join(paths.clone, 'apps/edge/dist/main.js'),
  ...args,
];

const environment = (settings: PlatformSettings, edge: EdgeReplica): Record<string, string> => ({
  NATS_URL: natsUrl(settings),
  NATS_CREDS_FILE: edgeCredsFile(edge),
  EDGE_ID: edge.id,
  EDGE_DIR: edge.dir,
  EDGE_BIND: `${settings.host}:${edge.port}`,
  EDGE_METRICS_PORT: String(edge.metrics),
  ...settings.edge,
  ...(edge.tls === null ? {} : { EDGE_TLS_BIND: edge.tls }),
  // It is started as a user of its own already.
  EDGE_HAPROXY_USER: '',
  NODE_ENV: 'production',
  BULKHEAD_STATE: settings.stateDir,
});

/** Writes HAProxy's first configuration; gives the command line that runs HAProxy with it. */
export async function ensureHaproxyFiles(
  step: Step,
  settings: PlatformSettings,
  paths: Layout,
  edge: EdgeReplica,
  owner: Owner,
): Promise<string[]> {
  await ensureServiceDirectory(edge.dir, owner);
  const run = (verb: string) => {
    const command = controller(paths, verb);
    const [program = '', ...args] = asOwner(paths, settings.root, {
      owner,
      command,
      seesClone: true,
    });
    return step.run(program, args, {
      cwd: '/',
      env: { ...environment(settings, edge), PATH: process.env['PATH'] },
    });
  };
  await run('init');
  return (await run('haproxy-command')).trim().split(' ');
}

export function haproxyService(
  settings: PlatformSettings,
  edge: EdgeReplica,
  owner: Owner,
  command: readonly string[],
): Service {
  return {
    name: edge.haproxy,
    owner,
    command,
    env: { BULKHEAD_STATE: settings.stateDir, BULKHEAD_SERVICE: edge.haproxy },
    seesClone: false,
    check: async () => {
      // A host that nobody has: any answer of ours will do.
      const url = `http://${settings.host}:${edge.port}/`;
      const response = await fetch(url, { signal: AbortSignal.timeout(3_000) });
      await response.body?.cancel();
    },
  };
}

export function edgeService(
  settings: PlatformSettings,
  paths: Layout,
  edge: EdgeReplica,
  owner: Owner,
  build: string,
): Service {
  return {
    name: edge.controller,
    owner,
    command: controller(paths),
    env: {
      ...environment(settings, edge),
      BULKHEAD_SERVICE: edge.controller,
      BULKHEAD_BUILD: build,
    },
    seesClone: true,
    check: () => checkHttp(`http://${settings.host}:${edge.metrics}/healthz`),
  };
}
