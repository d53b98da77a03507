/**
 * What a mutation allowed, until a socket claims it: in the memory of this replica, for half a
 * minute. A ticket is as good as a credential, so it is in no log and no URL.
 */
import { randomBytes } from 'node:crypto';
import { unavailable, type OpenStream, type TerminalSize } from '@bulkhead/protocol';
import type { Caller, Permission } from '@bulkhead/tenancy';
import type { Identity } from '../graphql/request-context.ts';

/** What a ticket opens. */
export interface Errand {
  readonly caller: Caller;
  readonly tenantId: string;
  readonly permission: Permission;
  readonly appId: string;
  readonly instance: string;
  /** Null: a task that has no node yet. */
  readonly node: string | null;
  readonly open: OpenStream;
  /** Looks at the caller's credential again. */
  readonly identify: () => Promise<Identity>;
  /** Opens any number of sockets until then, ms since 1970; null: one, now. */
  readonly manyUntil: number | null;
}

const claimMs = 30_000;
/** Tickets that wait at once, of one user and in all. */
const mostOfUser = 200;
const mostWaiting = 50_000;

export class Tickets {
  readonly #errands = new Map<string, { errand: Errand; until: number }>();
  readonly #now: () => number;

  /** @param now ms since 1970 */
  constructor(now: () => number) {
    this.#now = now;
  }

  issue(errand: Errand): { ticket: string; expiresAt: Date } {
    this.#sweep();
    const mine = [...this.#errands].filter(([, { errand: other }]) => sameUser(other, errand));
    // One's own oldest goes, never somebody else's.
    if (mine.length >= mostOfUser) this.#errands.delete(mine[0]?.[0] ?? '');
    else if (this.#errands.size >= mostWaiting)
      throw unavailable('Too many streams are about to be opened; try again in a moment');
    const ticket = randomBytes(32).toString('base64url');
    const until = errand.manyUntil ?? this.#now() + claimMs;
    this.#errands.set(ticket, { errand, until });
    return { ticket, expiresAt: new Date(until) };
  }

  /** As an end of a ticket, ms since 1970. */
  after(ms: number): number {
    return this.#now() + ms;
  }

  /** Null for one that is unknown, used or too old: whoever shows it learns no more. */
  claim(ticket: string): Errand | null {
    const known = this.#errands.get(ticket);
    if (!known) return null;
    if (known.errand.manyUntil === null || known.until <= this.#now()) this.#errands.delete(ticket);
    return known.until > this.#now() ? known.errand : null;
  }

  #sweep(): void {
    const now = this.#now();
    for (const [ticket, { until }] of this.#errands) if (until <= now) this.#errands.delete(ticket);
  }
}

const sameUser = (a: Errand, b: Errand): boolean => a.caller.userId === b.caller.userId;

/** What a client says of its terminal. */
export interface Terminal {
  readonly term: string;
  readonly columns: number;
  readonly rows: number;
}
export const sizeOf = ({ columns, rows }: Terminal): TerminalSize => ({ columns, rows });
