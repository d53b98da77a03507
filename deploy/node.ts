/** Makes this host a node of the fleet: its identity, its keys, and its place in the database. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { makeSealingKeyPair, type SealingKeyPair } from '@bulkhead/protocol';
import { ensureDirectory, ensureFile, ensureFileOnce, root as rootUser } from './files.ts';
import { ensureFleetCertificate } from './fleet-tls.ts';
import { publicKeyOf } from './nats/identity.ts';
import { nodePermissions } from '@bulkhead/protocol/bus-access';
import { ensureNatsCreds, ensureNatsSeeds, ensureNatsUserSeed } from './services/nats.ts';
import { registryHost } from './services/registry.ts';
import type { Layout, PlatformSettings } from './settings.ts';

/** What the database must know of a node; `registrySecret` is stored hashed. */
export interface NodeRegistration {
  name: string;
  sealingKey: SealingKeyPair['publicKey'];
  natsUser: string;
  registrySecret: string;
  /** Where other hosts reach it and its containers. */
  place?: { address: string; network: string };
}

/** `register` is idempotent by name and gives the node's id. */
export async function ensureNode(
  settings: PlatformSettings,
  paths: Layout,
  register: (node: NodeRegistration) => Promise<string>,
): Promise<{ certificate: string }> {
  const { name } = settings.node;
  // Mapped ids of containers walk through it to their root filesystems.
  await ensureDirectory(paths.node, 0o711);
  const natsSeed = await ensureNatsUserSeed(paths, `node-${name}`);
  const makeKey = async () => JSON.stringify((await makeSealingKeyPair()).privateKey);
  const { d: _secret, ...sealingKey } = JSON.parse(
    await ensureFileOnce(join(paths.node, 'sealing.jwk.json'), makeKey, 0o600),
  ) as SealingKeyPair['privateKey'];
  const registrySecret = await ensureFileOnce(
    join(paths.rootKeys, `registry-node-${name}`),
    () => randomBytes(32).toString('base64url'),
    0o600,
  );

  const id = await register({
    ...{ name, sealingKey, natsUser: publicKeyOf(natsSeed), registrySecret },
    ...(settings.listen !== null && {
      place: { address: settings.listen, network: settings.node.network },
    }),
  });

  const user = { name: id, seed: natsSeed, permissions: nodePermissions(id) };
  const seeds = await ensureNatsSeeds(paths);
  await ensureNatsCreds(seeds, join(paths.node, 'nats.creds'), user, rootUser);
  const auth = Buffer.from(`${id}:${registrySecret}`).toString('base64');
  const registryAuth = { auths: { [registryHost(settings)]: { auth } } };
  await ensureFile(join(paths.node, 'registry-auth.json'), JSON.stringify(registryAuth), 0o600);
  const certificate = await ensureFleetCertificate(
    paths,
    { kind: 'node', node: id },
    paths.nodeTls,
    rootUser,
  );
  // Last: with it, the agent takes the rest for complete.
  await ensureFile(join(paths.node, 'node.json'), JSON.stringify({ id, name }), 0o600);
  return { certificate };
}
