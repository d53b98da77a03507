import type { Role } from '../generated/enums.ts';

/**
 * Who may do what, as data. A permission that is not in a role's column is refused; the golden
 * table beside the spec is reviewed whenever this changes.
 */
const table = {
  'tenant.read': ['owner', 'admin', 'developer', 'viewer'],
  'quota.read': ['owner', 'admin', 'developer', 'viewer'],
  'member.read': ['owner', 'admin', 'developer', 'viewer'],
  'member.add': ['owner', 'admin'],
  'member.setRole': ['owner', 'admin'],
  /** Others; oneself: `member.leave`. */
  'member.remove': ['owner', 'admin'],
  'member.leave': ['owner', 'admin', 'developer', 'viewer'],
  'token.read': ['owner', 'admin', 'developer'],
  /** Of a role not above the maker's own. */
  'token.create': ['owner', 'admin', 'developer'],
  /** One's own; other people's need `token.revokeAny`. */
  'token.revoke': ['owner', 'admin', 'developer'],
  'token.revokeAny': ['owner', 'admin'],
  'audit.read': ['owner', 'admin'],
  'app.read': ['owner', 'admin', 'developer', 'viewer'],
  'app.create': ['owner', 'admin', 'developer'],
  'app.destroy': ['owner', 'admin'],
  'app.deploy': ['owner', 'admin', 'developer'],
  'app.scale': ['owner', 'admin', 'developer'],
  'app.restart': ['owner', 'admin', 'developer'],
  'app.rollback': ['owner', 'admin', 'developer'],
  /** Past a gate of its deployment. */
  'app.promote': ['owner', 'admin', 'developer'],
  'app.abort': ['owner', 'admin', 'developer'],
  'app.stop': ['owner', 'admin', 'developer'],
  'app.start': ['owner', 'admin', 'developer'],
  /** Holds instances still, all or one. */
  'app.pause': ['owner', 'admin', 'developer'],
  'app.resume': ['owner', 'admin', 'developer'],
  /** One instance; another takes its place. */
  'instance.delete': ['owner', 'admin', 'developer'],
  'task.run': ['owner', 'admin', 'developer'],
  /** Commands in a running instance. */
  'instance.exec': ['owner', 'admin', 'developer'],
  /** Files into and out of it. */
  'instance.copy': ['owner', 'admin', 'developer'],
  /** Connections to its ports. */
  'instance.forward': ['owner', 'admin', 'developer'],
  /** What it uses, and which files it changed; not their content. */
  'instance.inspect': ['owner', 'admin', 'developer', 'viewer'],
  'config.read': ['owner', 'admin', 'developer'],
  'config.set': ['owner', 'admin', 'developer'],
  'log.read': ['owner', 'admin', 'developer', 'viewer'],
  'image.read': ['owner', 'admin', 'developer', 'viewer'],
  'registry.pull': ['owner', 'admin', 'developer'],
  'registry.push': ['owner', 'admin', 'developer'],
} as const satisfies Record<string, readonly Role[]>;

/** A right within one tenant. */
export type Permission = keyof typeof table;

export const permissions = Object.keys(table) as Permission[];

/** Highest first. */
export const roles = ['owner', 'admin', 'developer', 'viewer'] as const satisfies readonly Role[];

/** Whether the table grants it. */
export function roleMay(role: Role, permission: Permission): boolean {
  return (table[permission] as readonly Role[]).includes(role);
}

/** Whether `role` stands above `other`. */
export function isAbove(role: Role, other: Role): boolean {
  return roles.indexOf(role) < roles.indexOf(other);
}

/** The lower of two roles: what is left of a user's role behind a token. */
export function lowerRole(a: Role, b: Role): Role {
  return isAbove(a, b) ? b : a;
}

/** Rights over the platform. All belong to operators, and to nobody through a token. */
export const operatorPermissions = [
  'node.read',
  'node.register',
  /** Cordon, drain, label, remove; tokens to join by. */
  'node.manage',
  'tenant.list',
  'quota.set',
] as const;
export type OperatorPermission = (typeof operatorPermissions)[number];
