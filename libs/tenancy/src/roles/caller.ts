import type { Role } from '../generated/enums.ts';

/**
 * Who asks, as proven by a credential. Made only by `Tenancy.signIn`, `callerFromSession` and
 * `callerFromToken`; every door rereads what may have changed since (roles, disabled users).
 */
export interface Caller {
  readonly kind: 'user';
  readonly userId: string;
  readonly email: string;
  readonly name: string;
  /** Runs the platform. Never true through a token: a token acts only within its tenant. */
  readonly operator: boolean;
  readonly via: 'session' | 'token';
  /** Present when `via` is `token`: the one tenant it acts in and the most it may do there. */
  readonly token?: { readonly id: string; readonly tenantId: string; readonly role: Role };
}
