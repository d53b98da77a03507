import { CompactEncrypt, compactDecrypt, type JWK } from 'jose';

/**
 * Seals config at rest (compact JWE, direct A256GCM, RFC 7516) with a key that is not in the
 * database. `context` (the app's id) is authenticated: a value moved to another app does not open.
 */
export class ConfigCipher {
  readonly #key: Uint8Array;

  /** Throws an Error when the JWK is no 256-bit symmetric key. */
  constructor(key: JWK) {
    const bytes = key.kty === 'oct' && key.k ? Buffer.from(key.k, 'base64url') : Buffer.alloc(0);
    if (bytes.length !== 32) throw new Error('the config key must be a JWK of kty oct, 256 bits');
    this.#key = bytes;
  }

  async seal(text: string, context: string): Promise<string> {
    return new CompactEncrypt(new TextEncoder().encode(text))
      .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', ctx: context })
      .encrypt(this.#key);
  }

  /** Throws when the key or the context is another's. */
  async open(sealed: string, context: string): Promise<string> {
    const { plaintext, protectedHeader } = await compactDecrypt(sealed, this.#key, {
      keyManagementAlgorithms: ['dir'],
      contentEncryptionAlgorithms: ['A256GCM'],
    });
    if (protectedHeader['ctx'] !== context) throw new Error('sealed for something else');
    return new TextDecoder().decode(plaintext);
  }
}
