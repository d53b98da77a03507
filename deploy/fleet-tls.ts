/**
 * Certificates for the streams between agents and the API: an authority whose key stays with root,
 * one certificate for the API and one for each node. Each is made anew before it ends, by any
 * `npm run up` and twice a day (renew.ts); what is good is left alone.
 */
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import {
  hasDaysLeft,
  isGood,
  issueCertificate,
  makeAuthority,
  type Credential,
  type Holder,
} from '@bulkhead/protocol/certificates';
import { ensureDirectory, ensureFile, readTextIfThere, root, type Owner } from './files.ts';
import type { Layout } from './settings.ts';

/** Days that a new one is good for, and how many it may have left before it is made anew. */
export const lifetimes = {
  authority: { days: 3650, renewAt: 365 },
  certificate: { days: 90, renewAt: 30 },
} as const;

/**
 * `ca.pem`, `cert.pem` and `key.pem` in `dir`, for `owner` alone. Answers a fingerprint that changes
 * with any of them, so that whoever serves by them can be restarted.
 */
export async function ensureFleetCertificate(
  paths: Pick<Layout, 'rootKeys'>,
  holder: Holder,
  dir: string,
  owner: Owner,
  now = new Date(),
): Promise<string> {
  const authority = await ensureAuthority(paths, now);
  await ensureDirectory(dir, 0o700, owner);
  const file = (name: string) => join(dir, `${name}.pem`);
  const known = {
    cert: await readTextIfThere(file('cert')),
    key: await readTextIfThere(file('key')),
  };
  const { days, renewAt } = lifetimes.certificate;
  const keeps =
    known.cert !== null &&
    known.key !== null &&
    isOfKey(known.cert, known.key) &&
    (await isGood(known.cert, authority.cert, holder, now, renewAt));
  const { cert, key } = keeps
    ? (known as Credential)
    : await issueCertificate(authority, holder, now, days);
  // The certificate last: when one is missing or of another key, the next run makes both again.
  if (!keeps) await ensureFile(file('cert'), '', 0o600, owner);
  // The API's names those who sign nodes, too: see below.
  if (
    holder.kind !== 'api' ||
    (await readTextIfThere(file('ca')))?.startsWith(authority.cert) !== true
  )
    await ensureFile(file('ca'), authority.cert, 0o600, owner);
  await ensureFile(file('key'), key, 0o600, owner);
  await ensureFile(file('cert'), cert, 0o600, owner);
  return createHash('sha256').update(authority.cert).update(cert).digest('hex').slice(0, 16);
}

/**
 * What the API signs nodes by, for its user alone: an authority of its own, so that it can make no
 * certificate that a node would take for the API's. `ca.pem` beside the API's certificate then names
 * both, for whom it lets in; `fleet-ca.cert.pem` is what nodes are to trust.
 */
export async function ensureNodesAuthority(
  paths: Pick<Layout, 'rootKeys' | 'apiKeys' | 'apiTls'>,
  owner: Owner,
  now = new Date(),
): Promise<void> {
  const fleet = await ensureAuthority(paths, now);
  const file = (name: string) => join(paths.apiKeys, name);
  const known = {
    cert: await readTextIfThere(file('nodes-ca.cert.pem')),
    key: await readTextIfThere(file('nodes-ca.key.pem')),
  };
  const { days, renewAt } = lifetimes.authority;
  const keeps = known.cert !== null && known.key !== null && hasDaysLeft(known.cert, now, renewAt);
  const nodes = keeps ? (known as Credential) : await makeAuthority(now, days, 'Bulkhead nodes');
  if (!keeps) await ensureFile(file('nodes-ca.cert.pem'), '', 0o600, owner);
  await ensureFile(file('nodes-ca.key.pem'), nodes.key, 0o600, owner);
  await ensureFile(file('nodes-ca.cert.pem'), nodes.cert, 0o600, owner);
  await ensureFile(file('fleet-ca.cert.pem'), fleet.cert, 0o600, owner);
  await ensureFile(join(paths.apiTls, 'ca.pem'), fleet.cert + nodes.cert, 0o600, owner);
}

/** Two that renew at once may leave the certificate of one and the key of the other. */
function isOfKey(cert: string, key: string): boolean {
  try {
    return new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}

async function ensureAuthority(paths: Pick<Layout, 'rootKeys'>, now: Date): Promise<Credential> {
  const certFile = join(paths.rootKeys, 'fleet-ca.cert.pem');
  const keyFile = join(paths.rootKeys, 'fleet-ca.key.pem');
  const cert = await readTextIfThere(certFile);
  const key = await readTextIfThere(keyFile);
  const { days, renewAt } = lifetimes.authority;
  if (cert !== null && key !== null && hasDaysLeft(cert, now, renewAt)) return { cert, key };
  const authority = await makeAuthority(now, days);
  await ensureFile(certFile, '', 0o600, root);
  await ensureFile(keyFile, authority.key, 0o600, root);
  await ensureFile(certFile, authority.cert, 0o600, root);
  return authority;
}
