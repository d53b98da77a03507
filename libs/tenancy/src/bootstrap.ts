import { notFound } from '@bulkhead/protocol';
import { AuditWriter } from './audit/audit.ts';
import { createUser } from './credentials/credentials.ts';
import { normaliseEmail } from './credentials/email.ts';
import { hashPassword } from './credentials/passwords.ts';
import type { Db } from './db/context.ts';
import { checkSlug } from './tenants/slug.ts';
import type { TenantView } from './tenants/tenants.ts';

/** What `npm run up` makes before anybody can sign in. Everything here may be repeated. */

export interface FirstUser {
  readonly email: string;
  readonly password: string;
  readonly name: string;
}

type Platform = <T>(work: (db: Db, now: Date) => Promise<T>) => Promise<T>;
const actor = { id: null, name: 'platform' };

/** A user who may sign in. One who is known keeps the password, and becomes an operator when asked for. */
export async function ensureUser(
  platform: Platform,
  input: FirstUser & { operator: boolean },
): Promise<{ userId: string; created: boolean }> {
  const email = normaliseEmail(input.email);
  const { operator, name } = input;
  const known = await platform(async (db, now) => {
    const user = await db.user.findUnique({ where: { email } });
    if (user && operator && !user.operator) {
      await db.user.update({ where: { email }, data: { operator } });
      await new AuditWriter(db, null, actor, now).write('user.makeOperator', email);
    }
    return user;
  });
  if (known) return { userId: known.id, created: false };
  const passwordHash = await hashPassword(input.password);
  const user = await platform(async (db, now) => {
    const made = await createUser(db, { email, name, passwordHash, operator, createdAt: now });
    await new AuditWriter(db, null, actor, now).write('user.create', email, { operator });
    return made;
  });
  return { userId: user.id, created: true };
}

/** A tenant with this user among its owners; the user must exist (NOT_FOUND). */
export async function ensureTenant(
  db: Db,
  now: Date,
  input: { slug: string; name?: string; ownerEmail: string },
): Promise<TenantView> {
  const email = normaliseEmail(input.ownerEmail);
  const user = await db.user.findUnique({ where: { email } });
  if (!user) throw notFound(`user ${email}`);
  const slug = checkSlug(input.slug);
  const known = await db.tenant.findUnique({ where: { slug } });
  const { id, name, createdAt } =
    known ?? (await db.tenant.create({ data: { slug, name: input.name ?? slug, createdAt: now } }));
  const key = { tenantId: id, userId: user.id };
  const member = await db.member.findUnique({ where: { tenantId_userId: key } });
  if (member?.role !== 'owner') {
    await db.member.upsert({
      where: { tenantId_userId: key },
      create: { ...key, role: 'owner', createdAt: now },
      update: { role: 'owner' },
    });
    const audit = new AuditWriter(db, id, actor, now);
    await audit.write(known ? 'member.setRole' : 'tenant.create', known ? email : slug);
  }
  return { id, slug, name, createdAt };
}
