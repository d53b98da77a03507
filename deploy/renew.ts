/**
 * `node deploy/renew.ts STATE`: makes anew the certificates of the fleet that near their end, and
 * restarts who serves by them, one after another. A service of root's runs it twice a day, because
 * the authority's key is root's; `npm run up` does the same when it starts everything.
 */
import { dirname, join } from 'node:path';
import { createSteps } from './bootstrap/steps.mjs';
import { ensureFile, readTextIfThere, root as rootUser } from './files.ts';
import { ensureFleetCertificate, ensureNodesAuthority } from './fleet-tls.ts';
import { readSettings } from './platform-file.ts';
import { apiReplicas } from './replicas.ts';
import { agentService } from './services/agent.ts';
import { apiService } from './services/api.ts';
import { ensureGateFiles, gateService } from './services/gate.ts';
import { layout, type Layout } from './settings.ts';
import { ensureRunning, isRunning, type Service } from './supervise.ts';
import { ensureServiceUsers } from './users.ts';

const root = dirname(import.meta.dirname);
const mark = /(?<=BULKHEAD_CERTIFICATE=)[0-9a-f]+/;

/** Answers the services that it restarted. Safe to run at any time, also after one that was killed. */
export async function renewCertificates(stateDir: string): Promise<string[]> {
  const settings = await readSettings({ root, stateDir });
  const paths = layout(settings.stateDir);
  const { step } = createSteps({ logDir: join(paths.setupLog, 'renewal') });
  const { api } = await step('Looking at the certificates of the fleet', ensureServiceUsers);
  const ofApi = await ensureFleetCertificate(paths, { kind: 'api' }, paths.apiTls, api);
  await ensureNodesAuthority(paths, api);
  const ofGate = await ensureGateFiles(settings, paths, api);
  const { id } = JSON.parse((await readTextIfThere(join(paths.node, 'node.json'))) ?? '{}') as {
    id: string;
  };
  const ofNode = await ensureFleetCertificate(
    paths,
    { kind: 'node', node: id },
    paths.nodeTls,
    rootUser,
  );

  const served: (readonly [Service, string])[] = [
    ...(ofGate === null ? [] : [[gateService(settings, paths, api, ofGate), ofGate] as const]),
    ...apiReplicas(settings).map(
      (replica) => [apiService(settings, paths, replica, api, '', ofApi), ofApi] as const,
    ),
    [agentService(settings, paths, '', ofNode), ofNode],
  ];
  const restarted: string[] = [];
  for (const [service, fingerprint] of served)
    if (await isServedByOther(paths, service, fingerprint)) {
      await step(`Restarting ${service.name} with its new certificate`, () =>
        restart(paths, service, fingerprint),
      );
      restarted.push(service.name);
    }
  return restarted;
}

const runFile = (paths: Layout, { name }: Service) => join(paths.service, name, 'run');

async function isServedByOther(paths: Layout, service: Service, fingerprint: string) {
  const script = (await readTextIfThere(runFile(paths, service))) ?? '';
  const known = mark.exec(script)?.[0];
  return known !== undefined && known !== fingerprint && (await isRunning(paths, service.name));
}

/**
 * Only what the script says of the certificate changes: the clone may have other code by now, which
 * is `npm run up`'s to start. Said after the restart, so that who is killed in between does it again.
 */
async function restart(paths: Layout, service: Service, fingerprint: string): Promise<void> {
  await ensureRunning(paths, service, true);
  const script = (await readTextIfThere(runFile(paths, service))) ?? '';
  await ensureFile(runFile(paths, service), script.replace(mark, fingerprint), 0o755);
}

const [, program, stateDir] = process.argv;
if (program === import.meta.filename && stateDir !== undefined) await renewCertificates(stateDir);
