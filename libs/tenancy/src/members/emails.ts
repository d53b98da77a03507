import type { Db } from '../db/context.ts';

/** Emails by user id, of those whom the transaction may see: in a tenant its members. */
export async function emailsOf(
  db: Db,
  ids: readonly (string | null)[],
): Promise<ReadonlyMap<string, string>> {
  const known = [...new Set(ids)].filter((id) => id !== null);
  if (known.length === 0) return new Map();
  const users = await db.user.findMany({
    where: { id: { in: known } },
    select: { id: true, email: true },
  });
  return new Map(users.map(({ id, email }) => [id, email]));
}
