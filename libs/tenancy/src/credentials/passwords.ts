import { hash, verify } from '@node-rs/argon2';
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { parse } from '../db/parse.ts';

const password = z
  .string()
  .min(10, 'use at least 10 characters')
  .max(1000, 'use at most 1000 characters');

/** Checks the rules (INVALID) and hashes with argon2id; the library's defaults are OWASP's (19 MiB, 2 passes). */
export function hashPassword(input: string): Promise<string> {
  return hash(parse(password, input, 'password'));
}

let decoy: Promise<string> | undefined;

/** Without a hash to compare with it takes the same time and answers false. */
export async function isPassword(input: string, stored: string | null): Promise<boolean> {
  decoy ??= hash(randomBytes(16));
  // Longer than any password can be: not worth the hashing.
  const right = await verify(stored ?? (await decoy), input.slice(0, 1001));
  return right && stored !== null;
}
