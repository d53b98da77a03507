import type { Strategy } from 'passport';
import { DomainError, unauthenticated } from '@bulkhead/protocol';
import type { Caller, Tenancy } from '@bulkhead/tenancy';
import type { Identity } from '../graphql/request-context.ts';
import type { SessionTokens } from './session-tokens.ts';
import {
  apiTokenStrategy,
  passwordStrategy,
  prove,
  sessionStrategy,
  type Proven,
  type SignedIn,
} from './strategies.ts';

const longestToken = 4096;
const jwt = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** The one authentication step, for HTTP, sockets and the registry's token endpoint. */
export class Authenticator {
  readonly #password: Strategy;
  readonly #session: Strategy;
  readonly #apiToken: Strategy;

  constructor(
    tenancy: Tenancy,
    readonly sessions: SessionTokens,
  ) {
    this.#password = passwordStrategy(tenancy);
    this.#session = sessionStrategy(tenancy, sessions);
    this.#apiToken = apiTokenStrategy(tenancy);
  }

  /**
   * Who sends this `Authorization` header (or a socket's `authorization` parameter). A bad
   * credential is an answer, not an exception: public operations still work with it.
   * @throws DomainError UNAVAILABLE when it cannot be found out.
   */
  async identify(authorization: string | undefined): Promise<Identity> {
    if (authorization === undefined || authorization.trim() === '') return { kind: 'anonymous' };
    try {
      const [scheme = '', bearer = ''] = authorization.trim().split(/\s+/, 2);
      if (scheme.toLowerCase() !== 'bearer' || bearer === '' || bearer.length > longestToken) {
        throw unauthenticated('Send the token as "Authorization: Bearer <token>"');
      }
      return { kind: 'caller', ...(await this.#bearer(bearer)) };
    } catch (error) {
      if (error instanceof DomainError && error.code === 'UNAUTHENTICATED') {
        return { kind: 'refused', error };
      }
      throw error;
    }
  }

  /** @throws DomainError UNAUTHENTICATED, or UNAVAILABLE after too many failures. */
  signIn(input: { email: string; password: string; address: string }): Promise<SignedIn> {
    const { email, password, address } = input;
    return prove<SignedIn>(this.#password, { body: { email, password }, address });
  }

  /** A user by Basic credentials: email and password, or any name with an API token as password. */
  async basic(name: string, password: string, address: string): Promise<Caller> {
    if (password.startsWith('bh_') && !name.includes('@')) {
      return (await prove<Proven>(this.#apiToken, { bearer: password })).caller;
    }
    return (await this.signIn({ email: name, password, address })).caller;
  }

  /** Makes the session token of somebody who has just signed in. */
  startSession(signedIn: SignedIn): Promise<{ token: string; expiresAt: Date }> {
    return this.sessions.issue({ userId: signedIn.caller.userId, epoch: signedIn.epoch });
  }

  #bearer(bearer: string): Promise<Proven> {
    return prove<Proven>(jwt.test(bearer) ? this.#session : this.#apiToken, { bearer });
  }
}
