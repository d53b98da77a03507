import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SignJWT, errors, importJWK, jwtVerify, type CryptoKey, type JWK } from 'jose';
import { unauthenticated } from '@bulkhead/protocol';

/** How long a session lasts. Seconds. */
const lifetime = 12 * 3600;
const issuer = 'bulkhead';
const audience = 'bulkhead-api';

export interface Session {
  userId: string;
  /** The user's session epoch when it was made: raised, it ends all sessions before. */
  epoch: number;
  expiresAt: Date;
}

/** Makes and reads session tokens: JWTs signed with HS256 and a key that only this platform's API has. */
export class SessionTokens {
  private constructor(
    private readonly key: CryptoKey | Uint8Array,
    private readonly now: () => Date,
  ) {}

  /** @throws Error when the key is not a symmetric one of at least 256 bits. */
  static async fromJwk(jwk: JWK, now: () => Date): Promise<SessionTokens> {
    if (jwk.kty !== 'oct' || Buffer.from(jwk.k ?? '', 'base64url').length < 32) {
      throw new Error('the session key must be a JWK of type oct with at least 256 bits');
    }
    return new SessionTokens(await importJWK(jwk, 'HS256'), now);
  }

  async issue(user: {
    userId: string;
    epoch: number;
  }): Promise<{ token: string; expiresAt: Date }> {
    const issuedAt = Math.floor(this.now().getTime() / 1000);
    const expiresAt = issuedAt + lifetime;
    const token = await new SignJWT({ epoch: user.epoch })
      .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
      .setSubject(user.userId)
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt(issuedAt)
      .setExpirationTime(expiresAt)
      .sign(this.key);
    return { token, expiresAt: new Date(expiresAt * 1000) };
  }

  /** @throws DomainError UNAUTHENTICATED when it is not ours, altered or over. */
  async read(token: string): Promise<Session> {
    try {
      const { payload } = await jwtVerify(token, this.key, {
        algorithms: ['HS256'],
        issuer,
        audience,
        requiredClaims: ['sub', 'exp', 'epoch'],
        currentDate: this.now(),
      });
      return {
        userId: String(payload.sub),
        epoch: Number(payload['epoch']),
        expiresAt: new Date(Number(payload.exp) * 1000),
      };
    } catch (error) {
      if (error instanceof errors.JWTExpired) {
        throw unauthenticated('The session has ended; sign in again');
      }
      throw unauthenticated('The session token is not valid; sign in again');
    }
  }
}

/** Reads a key of the platform. @throws Error naming the file that is missing or wrong. */
export async function readJwk(keyDir: string, name: string): Promise<JWK> {
  const path = join(keyDir, name);
  try {
    return JSON.parse(await readFile(path, 'utf8')) as JWK;
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? 'it is not JSON';
    throw new Error(
      `The API cannot start; the key ${path} (BULKHEAD_KEY_DIR) cannot be read: ${reason}`,
    );
  }
}
