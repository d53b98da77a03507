import { createHash, randomBytes } from 'node:crypto';

const pattern = /^bh_[A-Za-z0-9_-]{43}$/;

/** "bh_" and 256 random bits: recognisable for secret scanners, beyond guessing. */
export function makeTokenSecret(): string {
  return `bh_${randomBytes(32).toString('base64url')}`;
}

export const isTokenSecret = (text: string) => pattern.test(text);

/** A plain hash is enough for what has 256 random bits. */
export function hashSecret(secret: string): Buffer<ArrayBuffer> {
  return createHash('sha256').update(secret).digest() as Buffer<ArrayBuffer>;
}

/** The part that is kept in the clear, to recognise a token by. */
export const tokenPrefix = (secret: string) => secret.slice(0, 9);
