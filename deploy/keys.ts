/** The API's keys: made once, never replaced, each readable by the API's user alone. */
import { exportJWK, generateSecret } from 'jose';
import { join } from 'node:path';
import { rm } from 'node:fs/promises';
import type { Step } from './bootstrap/steps.mjs';
import {
  ensureServiceDirectory,
  ensureFileOnce,
  readTextIfThere,
  setOwnerAndMode,
  type Owner,
} from './files.ts';
import type { Layout } from './settings.ts';

export interface ApiKeys {
  /** PEM of the certificate that the registry trusts tokens by. */
  registryCertificate: string;
}

export async function ensureApiKeys(step: Step, paths: Layout, owner: Owner): Promise<ApiKeys> {
  await ensureServiceDirectory(paths.apiKeys, owner);
  const secretKey = async (algorithm: string) =>
    JSON.stringify({
      ...(await exportJWK(await generateSecret(algorithm, { extractable: true }))),
      alg: algorithm,
    });
  await ensureFileOnce(
    join(paths.apiKeys, 'session.jwk.json'),
    () => secretKey('HS256'),
    0o600,
    owner,
  );
  await ensureFileOnce(
    join(paths.apiKeys, 'config.jwk.json'),
    () => secretKey('A256GCM'),
    0o600,
    owner,
  );
  return { registryCertificate: await ensureRegistryKey(step, paths, owner) };
}

/** An EC key on P-256 and a certificate for it by itself; one is worthless without the other. */
async function ensureRegistryKey(step: Step, paths: Layout, owner: Owner): Promise<string> {
  const key = join(paths.apiKeys, 'registry-token.key.pem');
  const certificate = join(paths.apiKeys, 'registry-token.crt.pem');
  const known = await readTextIfThere(certificate);
  if (known !== null && (await readTextIfThere(key)) !== null) return known;
  await rm(key, { force: true });
  await rm(certificate, { force: true });
  // openssl writes the key with mode 0600, in a directory that only its owner enters.
  await step.run('openssl', [
    ...[
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '3650',
    ],
    ...['-subj', '/CN=bulkhead registry tokens', '-keyout', key, '-out', certificate],
  ]);
  for (const file of [key, certificate]) await setOwnerAndMode(file, 0o600, owner);
  return (await readTextIfThere(certificate)) ?? '';
}
