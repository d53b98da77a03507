/** Debian's docker-registry; who may pull and push is decided by the API, which signs short tokens. */
import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import {
  ensureDirectory,
  ensureServiceDirectory,
  ensureFile,
  ensureFileOnce,
  type Owner,
} from '../files.ts';
import type { Layout, PlatformSettings } from '../settings.ts';
import type { Service } from '../supervise.ts';

const configFile = (paths: Layout) => join(paths.registry, 'config.yml');
const certificateFile = (paths: Layout) => join(paths.registry, 'token.crt.pem');

export const registryHost = (settings: PlatformSettings) =>
  `${settings.host}:${settings.ports.registry}`;

/**
 * `certificate` is the one by which the registry knows the API's tokens. Answers a fingerprint of
 * the configuration: that itself holds a secret, and a run script may be read by everybody.
 */
export async function ensureRegistryFiles(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  certificate: string,
): Promise<string> {
  await ensureServiceDirectory(paths.registry, owner);
  await ensureDirectory(join(paths.registry, 'data'), 0o700, owner);
  await ensureFile(certificateFile(paths), certificate, 0o600, owner);
  const secret = await ensureFileOnce(
    join(paths.rootKeys, 'registry-http-secret'),
    () => randomBytes(32).toString('hex'),
    0o600,
  );
  const config = registryConfig(settings, paths, secret);
  await ensureFile(configFile(paths), config, 0o600, owner);
  return createHash('sha256').update(config).digest('hex').slice(0, 16);
}

/**
 * No pull-through cache (it would serve other registries' images to anybody with a token,
 * CVE-2026-33540), no deletion, no debug port, no redirects.
 */
function registryConfig(settings: PlatformSettings, paths: Layout, secret: string): string {
  return `# Written by deploy/; the next \`npm run up\` writes it again.
version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: ${join(paths.registry, 'data')}
    maxthreads: 100
  delete:
    enabled: false
  redirect:
    disable: true
  maintenance:
    uploadpurging:
      enabled: true
      age: 24h
      interval: 6h
      dryrun: false
http:
  addr: ${registryHost(settings)}
  secret: ${secret}
  relativeurls: true
  headers:
    X-Content-Type-Options: [nosniff]
auth:
  token:
    realm: http://${settings.host}:${settings.ports.api}/registry/token
    service: bulkhead-registry
    issuer: bulkhead
    rootcertbundle: ${certificateFile(paths)}
`;
}

export function registryService(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  fingerprint: string,
): Service {
  return {
    name: 'registry',
    owner,
    command: ['docker-registry', 'serve', configFile(paths)],
    env: {
      OTEL_TRACES_EXPORTER: 'none',
      BULKHEAD_STATE: settings.stateDir,
      BULKHEAD_SERVICE: 'registry',
      BULKHEAD_FINGERPRINT: fingerprint,
    },
    seesClone: false,
    check: async () => {
      const response = await fetch(`http://${registryHost(settings)}/v2/`, {
        signal: AbortSignal.timeout(3_000),
      });
      await response.body?.cancel();
      if (response.status !== 401)
        throw new Error(`it answers ${response.status} where a token should be asked for`);
    },
  };
}
