/**
 * How a caller proves who they are: three Passport strategies, and the step that runs one. They are
 * run by themselves, without Passport's middleware, because the same proof comes by HTTP header, by
 * a socket's first message and by the registry's Basic authentication.
 */
import type { Strategy } from 'passport';
import { Strategy as CustomStrategy } from 'passport-custom';
import { Strategy as LocalStrategy } from 'passport-local';
import { unauthenticated } from '@bulkhead/protocol';
import type { Caller, Tenancy } from '@bulkhead/tenancy';
import type { SessionTokens } from './session-tokens.ts';

/** What a strategy reads; Passport calls it the request. */
export interface PasswordProof {
  body: { email: string; password: string };
  /** The client's IP, for the limit on attempts. */
  address: string;
}
export interface BearerProof {
  bearer: string;
}

/** Who was proven, and until when that holds without asking again. */
export interface Proven {
  caller: Caller;
  expiresAt: Date | null;
}
export interface SignedIn {
  caller: Caller;
  epoch: number;
}

type Done = (error: unknown, user?: unknown) => void;

function settle(work: Promise<unknown>, done: Done): void {
  work.then((user) => done(null, user), done);
}

/** Email and password. */
export function passwordStrategy(tenancy: Tenancy): Strategy {
  return new LocalStrategy(
    { usernameField: 'email', passwordField: 'password', passReqToCallback: true },
    (request, email, password, done) => {
      const { address } = request as unknown as PasswordProof;
      settle(tenancy.signIn({ email, password, address }), done as Done);
    },
  );
}

/** The JWT that sign-in gave. */
export function sessionStrategy(tenancy: Tenancy, sessions: SessionTokens): Strategy {
  const prove = async ({ bearer }: BearerProof): Promise<Proven> => {
    const session = await sessions.read(bearer);
    return { caller: await tenancy.callerFromSession(session), expiresAt: session.expiresAt };
  };
  return new CustomStrategy((request, done) =>
    settle(prove(request as unknown as BearerProof), done as Done),
  );
}

/** An API token: lives until it expires or is revoked, and tenancy looks at both each time. */
export function apiTokenStrategy(tenancy: Tenancy): Strategy {
  const prove = async ({ bearer }: BearerProof): Promise<Proven> => ({
    caller: await tenancy.callerFromToken(bearer),
    expiresAt: null,
  });
  return new CustomStrategy((request, done) =>
    settle(prove(request as unknown as BearerProof), done as Done),
  );
}

/**
 * Runs one strategy on one proof.
 * @throws DomainError as the strategy does; UNAUTHENTICATED when it just says no.
 */
export function prove<User>(strategy: Strategy, proof: PasswordProof | BearerProof): Promise<User> {
  return new Promise((resolve, reject) => {
    // Passport's contract: each run is a child of the strategy with the outcomes as methods.
    const attempt = Object.create(strategy) as Record<string, unknown> & {
      authenticate(proof: PasswordProof | BearerProof, options: object): void;
    };
    const refuse = () => reject(unauthenticated('These credentials are not complete'));
    attempt['success'] = (user: unknown) => resolve(user as User);
    attempt['error'] = reject;
    attempt['fail'] = refuse;
    attempt['pass'] = refuse;
    attempt['redirect'] = refuse;
    attempt.authenticate(proof, {});
  });
}
