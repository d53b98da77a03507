import {
  createHash,
  createPrivateKey,
  createPublicKey,
  randomUUID,
  type KeyObject,
} from 'node:crypto';
import { SignJWT } from 'jose';

/** As the registry's configuration names them. */
export const registryService = 'bulkhead-registry';
const registryIssuer = 'bulkhead';
/** Seconds. The registry adds a minute of leeway. */
export const registryTokenLifetime = 300;

export interface RepositoryAccess {
  /** `tenant/name`, without the registry. */
  name: string;
  /** Never `*` and never `delete`: the registry would delete by it. */
  actions: ('pull' | 'push')[];
}

/** Makes the tokens that the platform's registry trusts (https://distribution.github.io/distribution/spec/auth/jwt/). */
export class RegistryTokens {
  readonly #key: KeyObject;
  readonly #keyId: string;

  /** @param pem private key on P-256. */
  constructor(
    pem: string,
    private readonly now: () => Date,
  ) {
    this.#key = createPrivateKey(pem);
    this.#keyId = libtrustKeyId(this.#key);
  }

  async issue(
    subject: string,
    access: readonly RepositoryAccess[],
  ): Promise<{ token: string; issuedAt: Date }> {
    const seconds = Math.floor(this.now().getTime() / 1000);
    const token = await new SignJWT({
      access: access.map(({ name, actions }) => ({ type: 'repository', name, actions })),
    })
      .setProtectedHeader({ alg: 'ES256', typ: 'JWT', kid: this.#keyId })
      .setIssuer(registryIssuer)
      .setSubject(subject)
      // The registry understands one audience as a string only.
      .setAudience(registryService)
      .setIssuedAt(seconds)
      .setNotBefore(seconds)
      .setExpirationTime(seconds + registryTokenLifetime)
      .setJti(randomUUID())
      .sign(this.#key);
    return { token, issuedAt: new Date(seconds * 1000) };
  }
}

/**
 * How docker-registry 2 names the keys of its root certificates (libtrust): the first 240 bits of
 * the SHA-256 of the public key's DER, in base32, in twelve groups of four.
 */
export function libtrustKeyId(key: KeyObject): string {
  const der = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const bits = createHash('sha256').update(der).digest().subarray(0, 30);
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  let text = '';
  for (let bit = 0; bit < bits.length * 8; bit += 5) {
    const pair = (bits[bit >> 3] ?? 0) * 256 + (bits[(bit >> 3) + 1] ?? 0);
    text += alphabet[(pair >> (11 - (bit & 7))) & 31];
  }
  return (text.match(/.{4}/g) ?? []).join(':');
}
