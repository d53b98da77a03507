import type { Db } from './context.ts';

/** The channel on which `accessChanged` is heard, for `Tenancy.listen`. */
export const accessChannel = 'access';

/**
 * Tells every replica of the API, once the transaction has committed, that a user may do less than
 * before: what is open in their name is looked at again.
 */
export async function accessChanged(db: Db, userId: string): Promise<void> {
  await db.$executeRaw`SELECT pg_notify(${accessChannel}, ${userId})`;
}
