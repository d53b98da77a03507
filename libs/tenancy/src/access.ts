import { DomainError, forbidden, notFound, unauthenticated } from '@bulkhead/protocol';
import { notPermitted, type Db } from './db/context.ts';
import { isUuid } from './db/ids.ts';
import { Prisma } from './generated/client.ts';
import type { Role } from './generated/enums.ts';
import type { Caller } from './roles/caller.ts';
import {
  lowerRole,
  operatorPermissions,
  roleMay,
  type OperatorPermission,
  type Permission,
} from './roles/permissions.ts';
import type { TenantView } from './tenants/tenants.ts';

/** Which tenant a door is bound to: by slug, by id, or as the tenant of a deployment. */
export type TenantRef =
  { readonly tenant: string } | { readonly tenantId: string } | { readonly deployment: string };

interface Row extends TenantView {
  readonly role: Role | null;
  readonly disabledAt: Date | null;
  readonly tokenRole: Role | null;
  readonly tokenExpiresAt: Date | null;
}

/**
 * Who the caller is in this tenant right now; nothing of it is taken from the credential but the
 * ids. Runs with the platform's scope, before the transaction is bound. Everything that hides the
 * tenant's existence is one and the same NOT_FOUND.
 */
export async function enterTenant(
  db: Db,
  caller: Caller,
  ref: TenantRef,
  permission: Permission,
  now: Date,
): Promise<{ tenant: TenantView; role: Role }> {
  const hidden = notFound(describe(ref));
  const [row] = await db.$queryRaw<Row[]>`
    SELECT t."id", t."slug", t."name", t."createdAt", m."role"::text AS "role", u."disabledAt",
           k."role"::text AS "tokenRole", k."expiresAt" AS "tokenExpiresAt"
    FROM "Tenant" t
    JOIN "User" u ON u."id" = ${caller.userId}::uuid
    LEFT JOIN "Member" m ON m."tenantId" = t."id" AND m."userId" = u."id"
    LEFT JOIN "ApiToken" k ON k."id" = ${caller.token?.id ?? null}::uuid
      AND k."tenantId" = t."id" AND k."userId" = u."id"
    WHERE ${which(ref)}`;
  if (!row?.role) throw hidden;
  if (caller.token && caller.token.tenantId !== row.id) throw hidden;
  if (row.disabledAt) throw unauthenticated('this user is disabled');
  if (caller.token && (!row.tokenRole || (row.tokenExpiresAt && row.tokenExpiresAt <= now))) {
    throw unauthenticated('this token is revoked or expired; make a new one');
  }
  const role = row.tokenRole ? lowerRole(row.role, row.tokenRole) : row.role;
  if (!roleMay(role, permission)) throw notPermitted(role, permission);
  const { id, slug, name, createdAt } = row;
  return { tenant: { id, slug, name, createdAt }, role };
}

/** FORBIDDEN unless the caller is an operator now, and not through a token. */
export async function requireOperator(
  db: Db,
  caller: Caller,
  permission: OperatorPermission,
): Promise<void> {
  const known = operatorPermissions.includes(permission);
  const user =
    caller.token || !known
      ? null
      : await db.user.findUnique({
          where: { id: caller.userId },
          select: { operator: true, disabledAt: true },
        });
  if (!user?.operator || user.disabledAt) throw forbidden('this is for operators of the platform');
}

/** Whether it was a refusal of access, not a failure. */
export const isRefusal = (error: unknown) =>
  error instanceof DomainError &&
  ['NOT_FOUND', 'FORBIDDEN', 'UNAUTHENTICATED'].includes(error.code);

const nowhere = Prisma.sql`false`;

function which(ref: TenantRef): Prisma.Sql {
  if ('tenant' in ref) return Prisma.sql`t."slug" = ${ref.tenant}`;
  if ('tenantId' in ref) {
    return isUuid(ref.tenantId) ? Prisma.sql`t."id" = ${ref.tenantId}::uuid` : nowhere;
  }
  if (!isUuid(ref.deployment)) return nowhere;
  return Prisma.sql`t."id" = (SELECT "tenantId" FROM "Deployment" WHERE "id" = ${ref.deployment}::uuid)`;
}

function describe(ref: TenantRef): string {
  if ('tenant' in ref) return `tenant ${ref.tenant}`;
  return 'tenantId' in ref ? 'tenant' : 'deployment';
}
