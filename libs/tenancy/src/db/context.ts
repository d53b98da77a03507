import { forbidden } from '@bulkhead/protocol';
import type { AuditWriter } from '../audit/audit.ts';
import type { ConfigCipher } from '../config/cipher.ts';
import type { Prisma } from '../generated/client.ts';
import type { Role } from '../generated/enums.ts';
import type { Caller } from '../roles/caller.ts';
import { roleMay, type Permission } from '../roles/permissions.ts';
import type { TenantView } from '../tenants/tenants.ts';

/** The typed client inside one transaction. */
export type Db = Prisma.TransactionClient;

/** What the stores behind a tenant's door share: who asks, for which tenant, and when. */
export class TenantContext {
  readonly db: Db;
  readonly tenant: TenantView;
  readonly caller: Caller;
  readonly role: Role;
  readonly cipher: ConfigCipher;
  readonly now: Date;
  readonly audit: AuditWriter;

  constructor(values: {
    db: Db;
    tenant: TenantView;
    caller: Caller;
    role: Role;
    cipher: ConfigCipher;
    now: Date;
    audit: AuditWriter;
  }) {
    this.db = values.db;
    this.tenant = values.tenant;
    this.caller = values.caller;
    this.role = values.role;
    this.cipher = values.cipher;
    this.now = values.now;
    this.audit = values.audit;
  }

  /**
   * FORBIDDEN unless the caller's role has the right. The door checked the permission that the
   * operation stated; a store asks again for its own, so that a wrong statement opens nothing.
   */
  require(permission: Permission): void {
    if (!roleMay(this.role, permission)) throw notPermitted(this.role, permission);
  }
}

/** One refusal for doors and stores: says what is missing and who can help. */
export function notPermitted(role: Role, permission: Permission) {
  return forbidden(
    `your role here is ${role}, which does not include ${permission}; ask an owner of the tenant`,
  );
}
