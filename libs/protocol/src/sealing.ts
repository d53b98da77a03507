import {
  CompactEncrypt,
  compactDecrypt,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
} from 'jose';

/** Public and private half of a node's sealing key, as JWKs on X25519. */
export interface SealingKeyPair {
  publicKey: JWK;
  privateKey: JWK;
}

export async function makeSealingKeyPair(): Promise<SealingKeyPair> {
  const pair = await generateKeyPair('ECDH-ES', { crv: 'X25519', extractable: true });
  return {
    publicKey: await exportJWK(pair.publicKey),
    privateKey: await exportJWK(pair.privateKey),
  };
}

/**
 * Encrypts `value` as JSON so that only the holder of the private key reads it (compact JWE,
 * ECDH-ES and A256GCM, RFC 7516). `context` must be given again to open it: a value sealed for one
 * instance cannot be passed off as another's.
 */
export async function seal(value: unknown, publicKey: JWK, context: string): Promise<string> {
  const key = await importJWK(publicKey, 'ECDH-ES');
  return new CompactEncrypt(new TextEncoder().encode(JSON.stringify(value)))
    .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A256GCM', ctx: context })
    .encrypt(key);
}

/** Opens what `seal` made; throws when the key or the context is another's. */
export async function unseal(sealed: string, privateKey: JWK, context: string): Promise<unknown> {
  const key = await importJWK(privateKey, 'ECDH-ES');
  const { plaintext, protectedHeader } = await compactDecrypt(sealed, key);
  if (protectedHeader['ctx'] !== context) throw new Error('sealed for something else');
  return JSON.parse(new TextDecoder().decode(plaintext));
}
