import { quotaExceeded } from '@bulkhead/protocol';
import type { Db } from '../db/context.ts';

/** How many tenants a user may own who does not run the platform, unless told otherwise. */
export const defaultTenantsPerUser = 3;

/**
 * QUOTA_EXCEEDED when the user owns as many tenants as a user may: each comes with a full default
 * quota, so that who makes tenants without end has resources without end. Asked wherever somebody
 * becomes an owner, or a tenant could be handed over to make room. Operators are exempt. Needs the
 * platform's scope, and locks the user's row, so that two at once count each other.
 */
export async function requireRoomToOwn(
  db: Db,
  user: { readonly id: string; readonly email: string; readonly self: boolean },
  limit: number,
): Promise<void> {
  const [row] = await db.$queryRaw<{ operator: boolean }[]>`
    SELECT "operator" FROM "User" WHERE "id" = ${user.id}::uuid FOR NO KEY UPDATE`;
  if (row?.operator) return;
  const used = await db.member.count({ where: { userId: user.id, role: 'owner' } });
  if (used < limit) return;
  const details = { resource: 'tenants', used, limit, wanted: 1 };
  if (!user.self) {
    throw quotaExceeded(
      `${user.email} owns as many tenants as one user may (${limit}); choose a lower role, or ask an operator`,
      // How many somebody owns elsewhere is theirs to know.
      { resource: 'tenants', limit },
    );
  }
  throw quotaExceeded(
    `quota exceeded for tenants: you own ${used} and one user may own ${limit}; ` +
      'use one of yours, leave one that has another owner, or ask an operator to make the tenant for you',
    details,
  );
}
