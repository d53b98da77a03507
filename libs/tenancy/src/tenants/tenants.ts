import { conflict, forbidden } from '@bulkhead/protocol';
import { z } from 'zod';
import { AuditWriter } from '../audit/audit.ts';
import type { Db } from '../db/context.ts';
import { isDuplicate } from '../db/errors.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { parse } from '../db/parse.ts';
import type { Role } from '../generated/enums.ts';
import type { Caller } from '../roles/caller.ts';
import { lowerRole } from '../roles/permissions.ts';
import { requireRoomToOwn } from './owned.ts';
import { checkSlug } from './slug.ts';

export interface TenantView {
  readonly id: string;
  readonly slug: string;
  readonly name: string;
  readonly createdAt: Date;
}

export interface MembershipView {
  readonly role: Role;
  readonly tenant: TenantView;
}

const tenantColumns = { id: true, slug: true, name: true, createdAt: true } as const;

/** What a user may do outside any tenant. Every query names the user: this door has no tenant to be bound to. */
export class UserTenants {
  readonly #db: Db;
  readonly #caller: Caller;
  readonly #now: Date;
  readonly #mayOwn: number;

  /** @param mayOwn how many tenants a user may own. */
  constructor(db: Db, caller: Caller, now: Date, mayOwn: number) {
    this.#db = db;
    this.#caller = caller;
    this.#now = now;
    this.#mayOwn = mayOwn;
  }

  /**
   * Makes a tenant with the caller as its owner. `slug` is a DNS label and not reserved (INVALID),
   * and unique (CONFLICT). Refused through a token (FORBIDDEN), and to a user who owns as many as
   * one may (QUOTA_EXCEEDED). `name` defaults to the slug.
   */
  async create(input: { slug: string; name?: string | null }): Promise<TenantView> {
    if (this.#caller.token) {
      throw forbidden('a token acts only within its tenant; sign in to make another tenant');
    }
    const slug = checkSlug(input.slug);
    const name = parse(z.string().trim().min(1).max(100), input.name ?? slug, 'name');
    const { userId: id, email } = this.#caller;
    await requireRoomToOwn(this.#db, { id, email, self: true }, this.#mayOwn);
    let tenant;
    try {
      tenant = await this.#db.tenant.create({
        data: {
          slug,
          name,
          createdAt: this.#now,
          members: { create: { userId: this.#caller.userId, role: 'owner', createdAt: this.#now } },
        },
        select: tenantColumns,
      });
    } catch (error) {
      if (isDuplicate(error)) throw conflict(`the name "${slug}" is taken; choose another`);
      throw error;
    }
    const actor = { id: this.#caller.userId, name: this.#caller.email };
    await new AuditWriter(this.#db, tenant.id, actor, this.#now).write('tenant.create', slug);
    return tenant;
  }

  /** The caller's memberships by slug; through a token only the token's tenant, with the role that is left. */
  async memberships(): Promise<readonly MembershipView[]> {
    const { token } = this.#caller;
    const rows = await this.#db.member.findMany({
      where: { userId: this.#caller.userId, ...(token && { tenantId: token.tenantId }) },
      select: { role: true, tenant: { select: tenantColumns } },
      orderBy: { tenant: { slug: 'asc' } },
    });
    return rows.map(({ role, tenant }) => ({
      role: token ? lowerRole(role, token.role) : role,
      tenant,
    }));
  }
}

const bySlug = new Keyset('tenants', cursorKey.text);

/** For operators: every tenant of the platform. */
export class AllTenants {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** By slug. */
  async list(args: PageArgs): Promise<Page<TenantView>> {
    const { take, after } = bySlug.start(args);
    const rows = await this.#db.tenant.findMany({
      ...(after && { where: { slug: { gt: after[0] } } }),
      select: tenantColumns,
      orderBy: { slug: 'asc' },
      take,
    });
    return bySlug.page(args, {
      rows,
      totalCount: await this.#db.tenant.count(),
      key: (row) => [row.slug],
      view: (row) => row,
    });
  }
}
