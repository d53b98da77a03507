import { randomInt } from 'node:crypto';

const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789';

/** "n" or "i" and 12 random characters of [a-z0-9]: 62 bits, fit for host names and NATS subjects. */
export function makeShortId(prefix: 'n' | 'i'): string {
  let id: string = prefix;
  for (let i = 0; i < 12; i++) id += alphabet[randomInt(alphabet.length)];
  return id;
}

/** For ids that come from outside: PostgreSQL answers a malformed uuid with an error, not with nothing. */
export function isUuid(id: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id);
}
