/** The first users of a platform. Their passwords are made once and kept for root to read. */
import { randomInt } from 'node:crypto';
import { ensureFileOnce, readTextIfThere } from './files.ts';
import type { Layout } from './settings.ts';

export interface FirstUser {
  email: string;
  password: string;
}

export interface Credentials {
  operator: FirstUser;
  /** Owner of the tenant `demo`. */
  demo: FirstUser;
}

/** 20 of 32 letters and digits that cannot be taken for one another: 100 bits. */
const alphabet = 'abcdefghijkmnpqrstuvwxyz23456789';
const newPassword = () =>
  Array.from({ length: 20 }, () => alphabet[randomInt(alphabet.length)]).join('');

export async function ensureCredentials(paths: Layout): Promise<Credentials> {
  const make = () => {
    const credentials: Credentials = {
      operator: { email: 'operator@bulkhead.localhost', password: newPassword() },
      demo: { email: 'demo@bulkhead.localhost', password: newPassword() },
    };
    return `${JSON.stringify(credentials, null, 2)}\n`;
  };
  return JSON.parse(await ensureFileOnce(paths.credentialsFile, make, 0o600)) as Credentials;
}

export async function readCredentials(paths: Layout): Promise<Credentials | null> {
  const text = await readTextIfThere(paths.credentialsFile);
  return text === null ? null : (JSON.parse(text) as Credentials);
}
