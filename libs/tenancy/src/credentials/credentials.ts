import { conflict, forbidden, unauthenticated } from '@bulkhead/protocol';
import { z } from 'zod';
import { AuditWriter } from '../audit/audit.ts';
import { accessChanged } from '../db/access-changed.ts';
import type { Db } from '../db/context.ts';
import { isDuplicate } from '../db/errors.ts';
import { isUuid } from '../db/ids.ts';
import { parse } from '../db/parse.ts';
import type { User } from '../generated/client.ts';
import type { Caller } from '../roles/caller.ts';
import { hashSecret, isTokenSecret } from '../tokens/secret.ts';
import { SignInAttempts } from './attempts.ts';
import { normaliseEmail } from './email.ts';
import { hashPassword, isPassword } from './passwords.ts';

export interface SignedIn {
  readonly caller: Caller;
  /** Goes into the session token; `callerFromSession` compares it. */
  readonly epoch: number;
}

/** Runs on the platform's door; it is closed to everything else while a password is hashed. */
type Platform = <T>(work: (db: Db, now: Date) => Promise<T>) => Promise<T>;

/** `lastUsedAt` says when within this, so that a busy token does not write with every request. */
const lastUsedGrainMs = 60_000;

/** Turns what people and programs show into callers. Nothing else makes one. */
export class Credentials {
  readonly #platform: Platform;
  readonly #attempts = new SignInAttempts();

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  async signUp(input: {
    email: string;
    name?: string | null | undefined;
    password: string;
    address: string;
  }): Promise<SignedIn> {
    const email = normaliseEmail(input.email);
    await this.#attempts.signUp(input.address);
    const passwordHash = await hashPassword(input.password);
    const name = input.name?.trim() || (email.split('@')[0] ?? email);
    return this.#platform(async (db, now) => {
      const user = await createUser(db, { email, name, passwordHash, createdAt: now });
      const actor = { id: user.id, name: email };
      await new AuditWriter(db, null, actor, now).write('user.signUp', email);
      return signedIn(user);
    });
  }

  async signIn(input: { email: string; password: string; address: string }): Promise<SignedIn> {
    const email = input.email.trim().toLowerCase();
    const succeeded = await this.#attempts.begin(email, input.address);
    const user = await this.#platform((db) => db.user.findUnique({ where: { email } }));
    const right = await isPassword(input.password, user?.passwordHash ?? null);
    if (!user || !right || user.disabledAt) throw unauthenticated('wrong email or password');
    await succeeded();
    return signedIn(user);
  }

  async callerFromSession(session: { userId: string; epoch: number }): Promise<Caller> {
    const user = isUuid(session.userId)
      ? await this.#platform((db) => db.user.findUnique({ where: { id: session.userId } }))
      : null;
    if (!user || user.disabledAt || user.sessionEpoch !== session.epoch) {
      throw unauthenticated('this session has ended; sign in again');
    }
    return signedIn(user).caller;
  }

  async callerFromToken(secret: string): Promise<Caller> {
    const refusal = unauthenticated('this token is unknown, revoked or expired; make a new one');
    if (!isTokenSecret(secret)) throw refusal;
    return this.#platform(async (db, now) => {
      const token = await db.apiToken.findUnique({
        where: { hash: hashSecret(secret) },
        include: { user: { include: { members: true } } },
      });
      if (!token || token.user.disabledAt || (token.expiresAt && token.expiresAt <= now)) {
        throw refusal;
      }
      const { id, tenantId, role, user } = token;
      if (!user.members.some((member) => member.tenantId === tenantId)) throw refusal;
      if (!token.lastUsedAt || now.getTime() - token.lastUsedAt.getTime() > lastUsedGrainMs) {
        await db.apiToken.updateMany({ where: { id }, data: { lastUsedAt: now } });
      }
      return {
        kind: 'user',
        userId: user.id,
        email: user.email,
        name: user.name,
        operator: false,
        via: 'token',
        token: { id, tenantId, role },
      };
    });
  }

  async signOutEverywhere(caller: Caller): Promise<void> {
    if (caller.token) throw forbidden('a token cannot end sessions; sign in for this');
    await this.#platform(async (db, now) => {
      await db.user.update({
        where: { id: caller.userId },
        data: { sessionEpoch: { increment: 1 } },
      });
      await accessChanged(db, caller.userId);
      const actor = { id: caller.userId, name: caller.email };
      await new AuditWriter(db, null, actor, now).write('user.signOutEverywhere', caller.email);
    });
  }
}

const userName = z.string().trim().min(1).max(100);

/** Throws CONFLICT when the email is taken. */
export async function createUser(
  db: Db,
  data: { email: string; name: string; passwordHash: string; createdAt: Date; operator?: boolean },
): Promise<User> {
  const name = parse(userName, data.name, 'name');
  try {
    return await db.user.create({ data: { ...data, name } });
  } catch (error) {
    if (isDuplicate(error)) throw conflict(`${data.email} has signed up already; sign in instead`);
    throw error;
  }
}

function signedIn(user: User): SignedIn {
  return {
    epoch: user.sessionEpoch,
    caller: {
      kind: 'user',
      userId: user.id,
      email: user.email,
      name: user.name,
      operator: user.operator,
      via: 'session',
    },
  };
}
