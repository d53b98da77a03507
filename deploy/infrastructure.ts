/** What the platform stands on: PostgreSQL, NATS and the registry, with their keys and users. */
import { ensureFile } from './files.ts';
import { ensureApiKeys } from './keys.ts';
import { natsServerBinary } from './nats/binary.ts';
import { apiPermissions } from '@bulkhead/protocol/bus-access';
import { apiCredsFile } from './services/api.ts';
import * as nats from './services/nats.ts';
import * as postgres from './services/postgres.ts';
import * as registry from './services/registry.ts';
import type { Layout, PlatformSettings } from './settings.ts';
import { startServices, type Steps } from './start-services.ts';
import type { ServiceOwners } from './users.ts';

export async function startInfrastructure(
  steps: Steps,
  settings: PlatformSettings,
  paths: Layout,
  owners: ServiceOwners,
): Promise<void> {
  const { step } = steps;
  const services = await step('Making keys and configuration', async (s) => {
    const keys = await ensureApiKeys(s, paths, owners.api);
    const seeds = await nats.ensureNatsSeeds(paths);
    await nats.ensureNatsFiles(
      settings,
      paths,
      owners.nats,
      seeds,
      natsServerBinary(settings.root),
    );
    const api = {
      name: 'api',
      seed: await nats.ensureNatsUserSeed(paths, 'api'),
      permissions: apiPermissions(),
    };
    await nats.ensureNatsCreds(seeds, apiCredsFile(paths), api, owners.api);
    await nats.ensureNatsSigner(seeds, paths, owners.api);
    const registryFingerprint = await registry.ensureRegistryFiles(
      settings,
      paths,
      owners.registry,
      keys.registryCertificate,
    );
    return [
      nats.natsService(settings, paths, owners.nats, await nats.natsFingerprint(paths)),
      registry.registryService(settings, paths, owners.registry, registryFingerprint),
    ];
  });
  if (settings.databaseUrl === null) {
    await step('Making the data directory of PostgreSQL', (s) =>
      postgres.ensureDataDirectory(s, settings, paths, owners.postgres),
    );
    services.unshift(postgres.postgresService(settings, paths, owners.postgres));
  }
  await startServices(steps, settings, paths, services);
  if (settings.databaseUrl === null)
    await step('Making the database', () => postgres.ensureDatabase(settings, paths, owners.api));
  else await ensureFile(postgres.databaseUrlFile(paths), settings.databaseUrl, 0o600, owners.api);
}
