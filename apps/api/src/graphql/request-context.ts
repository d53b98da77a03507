import { unauthenticated, type DomainError } from '@bulkhead/protocol';
import type { Caller, Tenancy } from '@bulkhead/tenancy';
import type { Logger } from '../logger.ts';
import { Loaders } from './loaders.ts';

/** Who asks, as the authentication step found out. */
export type Identity =
  | {
      readonly kind: 'caller';
      readonly caller: Caller;
      /** When the credential ends by itself; null when only its revocation ends it. */
      readonly expiresAt: Date | null;
    }
  /** No credential was given. */
  | { readonly kind: 'anonymous' }
  /** A credential was given and is not good; public operations still answer. */
  | { readonly kind: 'refused'; readonly error: DomainError };

/** What travels with one GraphQL operation, over HTTP or a socket: Mercurius' and graphql-ws' context value. */
export class RequestContext {
  /** The root field, for metrics; known once the document is parsed. */
  operation = 'unknown';
  /** Which operation of the document is meant, when it has several. */
  operationName: string | null = null;
  #identity: Identity;
  #loaders: Loaders | null = null;

  constructor(
    readonly tenancy: Tenancy,
    identity: Identity,
    /** `get` may only read. */
    readonly transport: 'get' | 'post' | 'socket',
    /** The client's IP, for rate limits. */
    readonly address: string,
    /** In the log and in answers to internal errors. */
    readonly requestId: string,
    readonly log: Logger,
    /** Looks at the credential again: it may have ended since. */
    readonly identifyAgain: () => Promise<Identity>,
  ) {
    this.#identity = identity;
  }

  /** @throws DomainError UNAUTHENTICATED saying why there is no caller. */
  getCaller(): Caller {
    switch (this.#identity.kind) {
      case 'caller':
        return this.#identity.caller;
      case 'refused':
        throw this.#identity.error;
      case 'anonymous':
        throw unauthenticated('Sign in first: send "Authorization: Bearer <token>"');
    }
  }

  /** The rest of this operation acts as the user who has just proven who they are. */
  becomeCaller(caller: Caller): void {
    this.#identity = { kind: 'caller', caller, expiresAt: null };
    this.#loaders = null;
  }

  get loaders(): Loaders {
    this.#loaders ??= new Loaders(this.tenancy, this.getCaller());
    return this.#loaders;
  }
}
