/**
 * A system user for each service that needs no root, so that none reads another's files. They have
 * no password, no home and no shell. Platforms on one machine share them, also those that are down, so
 * nothing removes them: a later user with the same number would own what they owned.
 */
import { readFileSync } from 'node:fs';
import type { Step } from './bootstrap/steps.mjs';
import type { Owner } from './files.ts';

export const serviceUsers = ['postgres', 'nats', 'registry', 'api', 'balancer', 'edge'] as const;
export type ServiceUser = (typeof serviceUsers)[number];
export type ServiceOwners = Record<ServiceUser, Owner>;

export const systemName = (user: ServiceUser) => `bulkhead-${user}`;

/** Owner ids of a system user by its name; null when there is none. */
export function findSystemUser(name: string): Owner | null {
  const entry = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find(([entryName]) => entryName === name);
  return entry === undefined ? null : { uid: Number(entry[2]), gid: Number(entry[3]) };
}

export async function ensureServiceUsers(step: Step): Promise<ServiceOwners> {
  const owners: Partial<ServiceOwners> = {};
  for (const user of serviceUsers) {
    const name = systemName(user);
    if (findSystemUser(name) === null)
      await step.run('useradd', [
        '--system',
        '--user-group',
        '--no-create-home',
        '--home-dir=/nonexistent',
        '--shell=/usr/sbin/nologin',
        `--comment=Bulkhead ${user}`,
        name,
      ]);
    const owner = findSystemUser(name);
    if (owner === null) throw new Error(`useradd ended well but there is no user ${name}`);
    owners[user] = owner;
  }
  return owners as ServiceOwners;
}
