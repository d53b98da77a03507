/** What a host and the control plane say to each other when the host joins the fleet. */
import { z } from 'zod';
import { dnsLabel } from './app-spec.ts';
import { nodeId } from './instance.ts';

const hostAndPort = z.string().regex(/^[^\s:]+:\d{1,5}$/);

/**
 * A join token as operators see it: where to join, the SHA-256 of the certificate of the fleet's
 * authority (so that the host knows whom it speaks to before it says anything), and the secret.
 */
export interface JoinToken {
  readonly address: string;
  readonly fingerprint: string;
  readonly secret: string;
}
const prefix = 'bhj1';
const place = z.object({ a: hostAndPort, f: z.string().regex(/^[0-9a-f]{64}$/) });

export function writeJoinToken({ address, fingerprint, secret }: JoinToken): string {
  const place = Buffer.from(JSON.stringify({ a: address, f: fingerprint })).toString('base64url');
  return [prefix, place, secret].join('.');
}

/** Null for what is no join token. */
export function readJoinToken(text: string): JoinToken | null {
  const [version, encoded = '', secret = ''] = text.trim().split('.');
  if (version !== prefix || secret === '') return null;
  try {
    const { a, f } = place.parse(JSON.parse(Buffer.from(encoded, 'base64url').toString()));
    return { address: a, fingerprint: f, secret };
  } catch {
    return null;
  }
}

/** POST to this path, as JSON. */
export const joinPath = '/fleet/join';

/** No private key and no secret of the host is in it, but for the token's. */
export const joinRequest = z.object({
  v: z.literal(1),
  secret: z.string(),
  /** What the host calls itself, when the token gives no name. */
  name: dnsLabel,
  /** By which the other hosts reach it. */
  address: z.string(),
  sealingKey: z.object({ kty: z.literal('OKP'), crv: z.literal('X25519'), x: z.string() }),
  /** Public nkey. */
  natsUser: z.string(),
  /** SHA-256, hexadecimal, of what it will show to the registry. */
  registryHash: z.string(),
  /** PEM. */
  certificateRequest: z.string(),
});
export type JoinRequest = z.infer<typeof joinRequest>;

export const joinAnswer = z.object({
  v: z.literal(1),
  id: nodeId,
  name: dnsLabel,
  /** Of its containers. */
  network: z.string(),
  /** JWT of its NATS user. */
  natsJwt: z.string(),
  /** PEM; of the node, and of the fleet's authority. */
  certificate: z.string(),
  authority: z.string(),
  /** As it stands in references of images. */
  registryHost: z.string(),
  /** Where each is reached from other hosts, by mutual TLS. */
  gate: z.object({ nats: hostAndPort, registry: hostAndPort, api: hostAndPort }),
  /** Where nodes attend. */
  streams: hostAndPort,
  /** The control plane's own addresses of the same, by which the host's own processes speak of them. */
  local: z.object({ nats: hostAndPort, registry: hostAndPort, api: hostAndPort }),
});
export type JoinAnswer = z.infer<typeof joinAnswer>;
