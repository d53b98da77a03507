import { conflict, forbidden, notFound } from '@bulkhead/protocol';
import { accessChanged } from '../db/access-changed.ts';
import type { TenantContext } from '../db/context.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { asPlatform } from '../db/scope.ts';
import type { Role } from '../generated/enums.ts';
import { lockTenant } from '../quota/ledger.ts';
import { isAbove } from '../roles/permissions.ts';
import { requireRoomToOwn } from '../tenants/owned.ts';
import { normaliseEmail } from '../credentials/email.ts';

export interface MemberView {
  /** The user's id. */
  readonly id: string;
  readonly email: string;
  readonly name: string;
  readonly role: Role;
  readonly createdAt: Date;
}

const columns = {
  role: true,
  createdAt: true,
  user: { select: { id: true, email: true, name: true } },
} as const;

interface Row {
  role: Role;
  createdAt: Date;
  user: { id: string; email: string; name: string };
}

const toView = ({ role, createdAt, user }: Row): MemberView => ({ ...user, role, createdAt });

const byEmail = new Keyset('members', cursorKey.text);

/**
 * Members of the bound tenant. Nobody gives, changes or takes a role above their own, and a tenant
 * never loses its last owner (CONFLICT).
 */
export class Members {
  readonly #context: TenantContext;
  readonly #mayOwn: number;

  /** @param mayOwn how many tenants a user may own. */
  constructor(context: TenantContext, mayOwn: number) {
    this.#context = context;
    this.#mayOwn = mayOwn;
  }

  /** By email. */
  async list(args: PageArgs): Promise<Page<MemberView>> {
    const { db, tenant } = this.#context;
    const { take, after } = byEmail.start(args);
    const where = { tenantId: tenant.id };
    const rows = await db.member.findMany({
      where: { ...where, ...(after && { user: { email: { gt: after[0] } } }) },
      select: columns,
      orderBy: { user: { email: 'asc' } },
      take,
    });
    return byEmail.page(args, {
      rows,
      totalCount: await db.member.count({ where }),
      key: (row) => [row.user.email],
      view: toView,
    });
  }

  /** The user must have signed up (NOT_FOUND) and not be a member yet (CONFLICT). */
  async add(input: { email: string; role: Role }): Promise<MemberView> {
    const { db, tenant, now } = this.#context;
    this.#context.require('member.add');
    this.#requireRank(input.role);
    const email = normaliseEmail(input.email);
    await lockTenant(db, tenant.id);
    const user = await asPlatform(db, () =>
      db.user.findFirst({ where: { email, disabledAt: null }, select: { id: true } }),
    );
    if (!user) {
      throw notFound(`user ${email}`, 'they must sign up first');
    }
    const key = { tenantId: tenant.id, userId: user.id };
    if (await db.member.findUnique({ where: { tenantId_userId: key } })) {
      throw conflict(`${email} is a member already; change the role instead`);
    }
    if (input.role === 'owner') await this.#requireRoomToOwn({ id: user.id, email });
    const row = await db.member.create({
      data: { ...key, role: input.role, createdAt: now },
      select: columns,
    });
    await this.#context.audit.write('member.add', email, { role: input.role });
    return toView(row);
  }

  async setRole(input: { email: string; role: Role }): Promise<MemberView> {
    const { db, tenant } = this.#context;
    this.#context.require('member.setRole');
    this.#requireRank(input.role);
    const member = await this.#lockMember(input.email);
    if (member.role === 'owner' && input.role !== 'owner') await this.#requireAnotherOwner();
    if (member.role !== 'owner' && input.role === 'owner') {
      await this.#requireRoomToOwn(member.user);
    }
    const row = await db.member.update({
      where: { tenantId_userId: { tenantId: tenant.id, userId: member.user.id } },
      data: { role: input.role },
      select: columns,
    });
    await accessChanged(db, member.user.id);
    await this.#context.audit.write('member.setRole', member.user.email, {
      from: member.role,
      to: input.role,
    });
    return toView(row);
  }

  /** Their API tokens of this tenant go with them. Everybody may leave by themselves, but not through a token. */
  async remove(input: { email: string }): Promise<void> {
    const { db, tenant, caller } = this.#context;
    const leaves = !caller.token && normaliseEmail(input.email) === caller.email;
    this.#context.require(leaves ? 'member.leave' : 'member.remove');
    const member = await this.#lockMember(input.email);
    if (member.role === 'owner') await this.#requireAnotherOwner();
    const key = { tenantId: tenant.id, userId: member.user.id };
    const tokens = await db.apiToken.findMany({ where: key, select: { id: true } });
    await db.quotaEntry.deleteMany({
      where: { tenantId: tenant.id, subject: { in: tokens.map(({ id }) => `token:${id}`) } },
    });
    await db.apiToken.deleteMany({ where: key });
    await db.member.delete({ where: { tenantId_userId: key } });
    await accessChanged(db, member.user.id);
    await this.#context.audit.write('member.remove', member.user.email, {
      role: member.role,
      tokens: tokens.length,
    });
  }

  /** The tenant's row is the lock: two owners who remove each other must not both succeed. */
  async #lockMember(input: string): Promise<Row> {
    const { db, tenant } = this.#context;
    await lockTenant(db, tenant.id);
    const email = normaliseEmail(input);
    const member = await db.member.findFirst({
      where: { tenantId: tenant.id, user: { email } },
      select: columns,
    });
    if (!member) throw notFound(`member ${email}`);
    this.#requireRank(member.role);
    return member;
  }

  #requireRank(role: Role): void {
    if (isAbove(role, this.#context.role)) {
      throw forbidden(`only an ${role} can do this to the role ${role}`);
    }
  }

  /** A tenant handed over does not make room for another one. */
  #requireRoomToOwn(user: { id: string; email: string }): Promise<void> {
    const { db, caller } = this.#context;
    const self = user.id === caller.userId;
    return asPlatform(db, () => requireRoomToOwn(db, { ...user, self }, this.#mayOwn));
  }

  async #requireAnotherOwner(): Promise<void> {
    const { db, tenant } = this.#context;
    const owners = await db.member.count({ where: { tenantId: tenant.id, role: 'owner' } });
    if (owners < 2) throw conflict('this is the last owner; make somebody else an owner first');
  }
}
