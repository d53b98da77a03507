/** Our own processes: the API with its database, the edge, and the agent of this node. */
import { ensureCredentials } from './credentials.ts';
import { readdir } from 'node:fs/promises';
import { ensureServiceDirectory } from './files.ts';
import { buildFingerprint } from './fingerprint.ts';
import { ensureFleetCertificate, ensureNodesAuthority } from './fleet-tls.ts';
import { edgePermissions } from '@bulkhead/protocol/bus-access';
import { ensureNode } from './node.ts';
import { agentService } from './services/agent.ts';
import { apiService, runAdmin } from './services/api.ts';
import { apiReplicas, edgeReplicas, isReplica } from './replicas.ts';
import { balancerService, ensureBalancerFiles } from './services/balancer.ts';
import { edgeCredsFile, edgeService, ensureHaproxyFiles, haproxyService } from './services/edge.ts';
import { ensureGateFiles, gateService } from './services/gate.ts';
import { renewalService } from './services/renewal.ts';
import { ensureNatsCreds, ensureNatsSeeds, ensureNatsUserSeed } from './services/nats.ts';
import type { Layout, PlatformSettings } from './settings.ts';
import { startServices, type Steps } from './start-services.ts';
import { removeService, type Service } from './supervise.ts';
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
  const edges = await step('Preparing the edge', async (s) => {
    const services: Service[] = [];
    for (const edge of edgeReplicas(settings, paths)) {
      await ensureServiceDirectory(edge.keys, owners.edge);
      const user = {
        name: edge.id,
        seed: await ensureNatsUserSeed(paths, edge.id),
        permissions: edgePermissions(edge.id),
      };
      await ensureNatsCreds(await ensureNatsSeeds(paths), edgeCredsFile(edge), user, owners.edge);
      const command = await ensureHaproxyFiles(s, settings, paths, edge, owners.edge);
      services.push(
        haproxyService(settings, edge, owners.edge, command),
        edgeService(settings, paths, edge, owners.edge, build),
      );
    }
    return services;
  });
  const { balancer } = await step('Preparing the balancer', async () => ({
    balancer: await ensureBalancerFiles(settings, paths, owners.balancer),
  }));
  const apis = [
    ...(gate === null ? [] : [gateService(settings, paths, owners.api, gate)]),
    ...apiReplicas(settings).map((replica) =>
      apiService(settings, paths, replica, owners.api, build, certificate),
    ),
  ];
  const others = [
    ...(balancer === null ? [] : [balancerService(settings, paths, owners.balancer, balancer)]),
    ...edges,
    agentService(settings, paths, build, node.certificate),
    renewalService(settings),
  ];
  await step('Ending replicas that are one too many', () =>
    endSurplus(
      paths,
      [...apis, ...others].map(({ name }) => name),
    ),
  );
  // First: the balancer takes the port that an only replica had.
  await startServices(steps, settings, paths, apis);
  await startServices(steps, settings, paths, others);
}

/** Before the others start: what the only replica listens at was the balancer's. */
async function endSurplus(paths: Layout, wanted: readonly string[]): Promise<void> {
  const present = await readdir(paths.service).catch(() => [] as string[]);
  for (const name of present.filter((each) => isReplica(each) && !wanted.includes(each)))
    await removeService(paths, name);
}
