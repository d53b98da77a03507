/**
 * The edge: HAProxy, and the controller that tells it the routes. Both run as one user, and neither
 * needs the other alive: HAProxy goes on with the last table, the controller waits for HAProxy.
 */
import { join } from 'node:path';
import type { Step } from '../bootstrap/steps.mjs';
import { ensureServiceDirectory, type Owner } from '../files.ts';
import type { Layout, PlatformSettings } from '../settings.ts';
import { asOwner, type Service } from '../supervise.ts';
import { checkHttp } from './http.ts';
import { natsUrl } from './nats.ts';

export const edgeId = 'edge-1';
export const edgeCredsFile = (paths: Layout) => join(paths.edgeKeys, 'nats.creds');

const controller = (paths: Layout, ...args: string[]) => [
  join(paths.clone, 'node_modules/.bin/node'),
  join(paths.clone, 'apps/edge/dist/main.js'),
  ...args,
];

const environment = (settings: PlatformSettings, paths: Layout): Record<string, string> => ({
  NATS_URL: natsUrl(settings),
  NATS_CREDS_FILE: edgeCredsFile(paths),
  EDGE_ID: edgeId,
  EDGE_DIR: paths.edge,
  EDGE_BIND: `${settings.host}:${settings.ports.edge}`,
  EDGE_METRICS_PORT: String(settings.ports.edgeMetrics),
  ...settings.edge,
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
  owner: Owner,
): Promise<string[]> {
  await ensureServiceDirectory(paths.edge, owner);
  const run = (verb: string) => {
    const command = controller(paths, verb);
    const [program = '', ...args] = asOwner(paths, settings.root, {
      owner,
      command,
      seesClone: true,
    });
    return step.run(program, args, {
      cwd: '/',
      env: { ...environment(settings, paths), PATH: process.env['PATH'] },
    });
  };
  await run('init');
  return (await run('haproxy-command')).trim().split(' ');
}

export function haproxyService(
  settings: PlatformSettings,
  owner: Owner,
  command: readonly string[],
): Service {
  return {
    name: 'haproxy',
    owner,
    command,
    env: { BULKHEAD_STATE: settings.stateDir, BULKHEAD_SERVICE: 'haproxy' },
    seesClone: false,
    check: async () => {
      // A host that nobody has: any answer of ours will do.
      const url = `http://${settings.host}:${settings.ports.edge}/`;
      const response = await fetch(url, { signal: AbortSignal.timeout(3_000) });
      await response.body?.cancel();
    },
  };
}

export function edgeService(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  build: string,
): Service {
  return {
    name: 'edge',
    owner,
    command: controller(paths),
    env: { ...environment(settings, paths), BULKHEAD_SERVICE: 'edge', BULKHEAD_BUILD: build },
    seesClone: true,
    check: () => checkHttp(`http://${settings.host}:${settings.ports.edgeMetrics}/healthz`),
  };
}
