import { SetMetadata, type CustomDecorator } from '@nestjs/common';
import { operatorPermissions, type OperatorPermission, type Permission } from '@bulkhead/tenancy';

const REQUIREMENT = 'bulkhead:requirement';

/** What an operation asks of its caller. */
export type Requirement =
  | { readonly kind: 'tenant'; readonly permission: Permission }
  | { readonly kind: 'operator'; readonly permission: OperatorPermission }
  | { readonly kind: 'signed-in' }
  | { readonly kind: 'public'; readonly because: string };

function isOperatorPermission(name: string): name is OperatorPermission {
  return (operatorPermissions as readonly string[]).includes(name);
}

/**
 * The permission that an operation needs. The guard sees that there is a caller, and the Door opens
 * transactions with this very permission, so what is declared is what is checked. `signed-in` is
 * for what a user may do with their own account.
 */
export function Requires(
  permission: Permission | OperatorPermission | 'signed-in',
): CustomDecorator<string> {
  return SetMetadata<string, Requirement>(REQUIREMENT, toRequirement(permission));
}

function toRequirement(permission: Permission | OperatorPermission | 'signed-in'): Requirement {
  if (permission === 'signed-in') return { kind: 'signed-in' };
  if (isOperatorPermission(permission)) return { kind: 'operator', permission };
  return { kind: 'tenant', permission };
}

/** An operation that everybody may call, and why that is right. */
export function Public(because: string): CustomDecorator<string> {
  return SetMetadata<string, Requirement>(REQUIREMENT, { kind: 'public', because });
}

/** What a handler declares; null when it declares nothing, and must be refused. */
export function requirementOf(handler: object): Requirement | null {
  return (Reflect.getMetadata(REQUIREMENT, handler) as Requirement | undefined) ?? null;
}
