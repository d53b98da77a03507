import { forbidden, notFound } from '@bulkhead/protocol';
import { z } from 'zod';
import { accessChanged } from '../db/access-changed.ts';
import type { TenantContext } from '../db/context.ts';
import { isUuid } from '../db/ids.ts';
import { cursorKey, Keyset, type Page, type PageArgs } from '../db/page.ts';
import { parse } from '../db/parse.ts';
import type { Role } from '../generated/enums.ts';
import { reserve } from '../quota/ledger.ts';
import { isAbove, roleMay } from '../roles/permissions.ts';
import { hashSecret, makeTokenSecret, tokenPrefix } from './secret.ts';

export interface TokenView {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  /** The first characters, to recognise it by. */
  readonly prefix: string;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
  readonly lastUsedAt: Date | null;
}

const columns = {
  id: true,
  name: true,
  role: true,
  prefix: true,
  createdAt: true,
  expiresAt: true,
  lastUsedAt: true,
} as const;

const byId = new Keyset('tokens', cursorKey.uuid);

/** API tokens of the bound tenant. */
export class Tokens {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /** Newest first. */
  async list(args: PageArgs): Promise<Page<TokenView>> {
    const { db, tenant } = this.#context;
    this.#context.require('token.read');
    const { take, after } = byId.start(args);
    const where = { tenantId: tenant.id };
    const rows = await db.apiToken.findMany({
      where: { ...where, ...(after && { id: { lt: after[0] } }) },
      select: columns,
      orderBy: { id: 'desc' },
      take,
    });
    return byId.page(args, {
      rows,
      totalCount: await db.apiToken.count({ where }),
      key: (row) => [row.id],
      view: (row) => row,
    });
  }

  /**
   * The secret is in the answer and nowhere else. Refused through a token (FORBIDDEN: a leaked
   * token must not be able to outlive itself), and for a role above the caller's own.
   * `expiresInDays` is 1 to 3650; null never expires.
   */
  async create(input: {
    name: string;
    role: Role;
    expiresInDays?: number | null;
  }): Promise<{ secret: string; token: TokenView }> {
    const { db, tenant, caller, now } = this.#context;
    this.#context.require('token.create');
    this.#refuseTokens();
    if (isAbove(input.role, this.#context.role)) {
      throw forbidden(`your role here is ${this.#context.role}: a token cannot have more`);
    }
    const name = parse(z.string().trim().min(1).max(100), input.name, 'name');
    const days = parse(z.int().min(1).max(3650).nullish(), input.expiresInDays, 'expiresInDays');
    const secret = makeTokenSecret();
    const token = await db.apiToken.create({
      data: {
        tenantId: tenant.id,
        userId: caller.userId,
        name,
        role: input.role,
        hash: hashSecret(secret),
        prefix: tokenPrefix(secret),
        createdAt: now,
        expiresAt: days == null ? null : new Date(now.getTime() + days * 86_400_000),
      },
      select: columns,
    });
    await reserve(db, tenant.id, [{ subject: `token:${token.id}`, amounts: { tokens: 1 } }]);
    await this.#context.audit.write('token.create', name, { id: token.id, role: token.role });
    return { secret, token };
  }

  /** One's own, or with `token.revokeAny` anybody's of this tenant. */
  async revoke(input: { id: string }): Promise<void> {
    const { db, tenant, caller, role } = this.#context;
    this.#context.require('token.revoke');
    this.#refuseTokens();
    const token = isUuid(input.id)
      ? await db.apiToken.findFirst({ where: { id: input.id, tenantId: tenant.id } })
      : null;
    if (!token) throw notFound('token');
    if (token.userId !== caller.userId && !roleMay(role, 'token.revokeAny')) {
      throw forbidden('this is another member’s token; ask them or an admin of the tenant');
    }
    await db.apiToken.delete({ where: { id: token.id } });
    await db.quotaEntry.deleteMany({
      where: { tenantId: tenant.id, subject: `token:${token.id}` },
    });
    await accessChanged(db, token.userId);
    await this.#context.audit.write('token.revoke', token.name, { id: token.id });
  }

  #refuseTokens(): void {
    if (this.#context.caller.token) {
      throw forbidden('tokens are made and revoked by people; sign in for this');
    }
  }
}
