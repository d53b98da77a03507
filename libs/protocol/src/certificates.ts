/**
 * The fleet's own certificate authority. Agents dial the API by mutual TLS and both sides trust this
 * authority alone: a node proves which node it is by a URI name in its certificate, a replica of the
 * API by the name `apiServerName`. Kept apart from the package's main entry, for it is needed where
 * certificates are made and nowhere else.
 */
import 'reflect-metadata';
import { createPublicKey, randomBytes, webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
  type JsonGeneralName,
} from '@peculiar/x509';
import { invalid } from './errors.ts';
import { apiServerName } from './streams/streams.ts';

export { apiServerName };
const nodeNamePrefix = 'bulkhead:node:';
/** The URI name in a node's certificate. */
export const nodeUri = (node: string) => `${nodeNamePrefix}${node}`;

const curve = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const signing = { ...curve, hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
/** Clocks of hosts differ, and one may be set wrong for a while: a host that is behind by less knows it. */
const backdatedMs = dayMs;

/** A certificate and its private key (PKCS #8), as PEM. */
export interface Credential {
  readonly cert: string;
  readonly key: string;
}

/** What a certificate is for; the gate is where other hosts come in, at an IPv4 address. */
export type Holder =
  | { readonly kind: 'api' }
  | { readonly kind: 'gate'; readonly address: string }
  | { readonly kind: 'node'; readonly node: string };

/** @param name Its common name: authorities are told apart by it. */
export async function makeAuthority(
  now: Date,
  days: number,
  name = 'Bulkhead fleet',
): Promise<Credential> {
  const keys = await webcrypto.subtle.generateKey(curve, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=${name}`,
    ...validity(now, days),
    signingAlgorithm: signing,
    keys,
    extensions: [
      // It signs nodes and replicas, no further authorities.
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  });
  return { cert: `${certificate.toString('pem')}\n`, key: await toPem(keys.privateKey) };
}

export async function issueCertificate(
  authority: Credential,
  holder: Holder,
  now: Date,
  days: number,
): Promise<Credential> {
  const keys = await webcrypto.subtle.generateKey(curve, true, ['sign', 'verify']);
  const cert = await certify(authority, holder, keys.publicKey, now, days);
  return { cert, key: await toPem(keys.privateKey) };
}

/** A new private key, PEM. */
export async function makeKey(): Promise<string> {
  const keys = await webcrypto.subtle.generateKey(curve, true, ['sign', 'verify']);
  return toPem(keys.privateKey);
}

/** A request for a certificate of this private key; who the holder is says whoever signs. */
export async function makeRequest(key: string): Promise<string> {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const keys = {
    privateKey: await fromPem(key),
    publicKey: await webcrypto.subtle.importKey('spki', spki, curve, true, ['verify']),
  };
  const request = await Pkcs10CertificateRequestGenerator.create({
    keys,
    signingAlgorithm: signing,
  });
  return `${request.toString('pem')}\n`;
}

/** INVALID for what is no request, or whose sender lacks the private half. */
export async function checkRequest(request: string): Promise<void> {
  await keyOfRequest(request);
}

/** Of a request only its key is believed. INVALID as of `checkRequest`. */
export async function signRequest(
  authority: Credential,
  request: string,
  holder: Holder,
  now: Date,
  days: number,
): Promise<string> {
  return certify(authority, holder, await keyOfRequest(request), now, days);
}

async function keyOfRequest(pem: string): Promise<webcrypto.CryptoKey> {
  try {
    const request = new Pkcs10CertificateRequest(pem);
    if (await request.verify()) return await request.publicKey.export(curve, ['verify']);
  } catch {
    // Said below.
  }
  throw invalid('this is no certificate request for a key on P-256');
}

async function certify(
  authority: Credential,
  holder: Holder,
  publicKey: webcrypto.CryptoKey,
  now: Date,
  days: number,
): Promise<string> {
  const issuer = new X509Certificate(authority.cert);
  const isNode = holder.kind === 'node';
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${isNode ? holder.node : holder.kind}`,
    issuer: issuer.subject,
    ...validity(now, days),
    signingAlgorithm: signing,
    signingKey: await fromPem(authority.key),
    publicKey,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      // A node cannot stand as a replica of the API, nor the other way round.
      new ExtendedKeyUsageExtension([
        isNode ? ExtendedKeyUsage.clientAuth : ExtendedKeyUsage.serverAuth,
      ]),
      new SubjectAlternativeNameExtension(namesOf(holder)),
    ],
  });
  return `${certificate.toString('pem')}\n`;
}

function namesOf(holder: Holder): JsonGeneralName[] {
  switch (holder.kind) {
    case 'api':
      return [{ type: 'dns', value: apiServerName }];
    case 'gate':
      return [
        { type: 'dns', value: apiServerName },
        { type: 'ip', value: holder.address },
      ];
    case 'node':
      return [{ type: 'url', value: nodeUri(holder.node) }];
  }
}

/**
 * Whether a certificate can go on being used: signed by this authority for this holder, and with
 * more than `leastDays` left. False for what is no certificate at all.
 */
export async function isGood(
  cert: string,
  authority: string,
  holder: Holder,
  now: Date,
  leastDays: number,
): Promise<boolean> {
  try {
    const certificate = new X509Certificate(cert);
    const issuer = new X509Certificate(authority);
    const names = certificate.getExtension(SubjectAlternativeNameExtension)?.names.items ?? [];
    return (
      hasDaysLeft(cert, now, leastDays) &&
      namesOf(holder).every((wanted) => names.some(({ value }) => value === wanted.value)) &&
      (await certificate.verify({ publicKey: issuer.publicKey, signatureOnly: true }))
    );
  } catch {
    return false;
  }
}

/** Whether it is valid for longer than `days` from now. */
export function hasDaysLeft(cert: string, now: Date, days: number): boolean {
  try {
    return new X509Certificate(cert).notAfter.getTime() - now.getTime() > days * dayMs;
  } catch {
    return false;
  }
}

function validity(now: Date, days: number) {
  return {
    notBefore: new Date(now.getTime() - backdatedMs),
    notAfter: new Date(now.getTime() + days * dayMs),
  };
}

/** 127 random bits: positive whatever the first one is. */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0] ?? 0) & 0x7f;
  return bytes.toString('hex');
}

async function toPem(key: webcrypto.CryptoKey): Promise<string> {
  return `${PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}

async function fromPem(pem: string): Promise<webcrypto.CryptoKey> {
  const [der] = PemConverter.decode(pem);
  if (!der) throw new Error('not a private key in PEM');
  return webcrypto.subtle.importKey('pkcs8', der, curve, false, ['sign']);
}
