/** Our own processes: the API with its database, the edge, and the agent of this node. */
import { ensureCredentials } from './credentials.ts';
import { ensureServiceDirectory } from './files.ts';
import { buildFingerprint } from './fingerprint.ts';
import { ensureFleetCertificate, ensureNodesAuthority } from './fleet-tls.ts';
import { edgePermissions } from '@bulkhead/protocol/bus-access';
import { ensureNode } from './node.ts';
import { agentService } from './services/agent.ts';
import { apiService, runAdmin } from './services/api.ts';
import {
  edgeCredsFile,
  edgeId,
  edgeService,
  ensureHaproxyFiles,
  haproxyService,
} from './services/edge.ts';
import { ensureGateFiles, gateService } from './services/gate.ts';
import { ensureNatsCreds, ensureNatsSeeds, ensureNatsUserSeed } from './services/nats.ts';
import type { Layout, PlatformSettings } from './settings.ts';
import { startServices, type Steps } from './start-services.ts';
import type { ServiceOwners } from './users.ts';

export async function startApps(
  steps: Steps,
  settings: PlatformSettings,
  paths: Layout,
  owners: ServiceOwners,
): Promise<void> {
  const { step } = steps;
  const build = await buildFingerprint(settings.root);
  const { certificate, gate } = await step('Making the certificates of the fleet', async () => {
    const made = await ensureFleetCertificate(paths, { kind: 'api' }, paths.apiTls, owners.api);
    await ensureNodesAuthority(paths, owners.api);
    return { certificate: made, gate: await ensureGateFiles(settings, paths, owners.api) };
  });
  await step(
    'Migrating the database',
    async (s) => void (await runAdmin(s, settings, paths, owners.api, ['migrate'])),
  );
  await step('Making the first users', async (s) => {
    const { operator, demo } = await ensureCredentials(paths);
    const admin = (args: string[], input: object) =>
      runAdmin(s, settings, paths, owners.api, args, JSON.stringify(input));
    await admin(['ensure-operator'], { ...operator, name: 'Operator' });
    await admin(['ensure-tenant'], {
      slug: 'demo',
      name: 'Demo',
      owner: { ...demo, name: 'Demo' },
    });
  });
  const node = await step('Making this host a node', (s) =>
    ensureNode(settings, paths, async (node) => {
      const answer = await runAdmin(
        s,
        settings,
        paths,
        owners.api,
        ['register-node'],
        JSON.stringify(node),
      );
      return (JSON.parse(answer) as { id: string }).id;
    }),
  );
  const haproxy = await step('Preparing the edge', async (s) => {
    await ensureServiceDirectory(paths.edgeKeys, owners.edge);
    const user = {
      name: edgeId,
      seed: await ensureNatsUserSeed(paths, edgeId),
      permissions: edgePermissions(edgeId),
    };
    await ensureNatsCreds(await ensureNatsSeeds(paths), edgeCredsFile(paths), user, owners.edge);
    return await ensureHaproxyFiles(s, settings, paths, owners.edge);
  });
  await startServices(steps, settings, paths, [
    ...(gate === null ? [] : [gateService(settings, paths, owners.api, gate)]),
    apiService(settings, paths, owners.api, build, certificate),
    haproxyService(settings, owners.edge, haproxy),
    edgeService(settings, paths, owners.edge, build),
    agentService(settings, paths, build, node.certificate),
  ]);
}
