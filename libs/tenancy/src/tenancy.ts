import { unavailable } from '@bulkhead/protocol';
import { PrismaPg } from '@prisma/adapter-pg';
import type { JWK } from 'jose';
import { enterTenant, isRefusal, requireOperator, type TenantRef } from './access.ts';
import { Apps } from './apps/apps.ts';
import { TrafficMinutes } from './apps/traffic.ts';
import { PlatformApps } from './apps/platform-apps.ts';
import { AuditLog, AuditWriter, type Actor } from './audit/audit.ts';
import { ensureTenant, ensureUser, type FirstUser } from './bootstrap.ts';
import { ConfigCipher } from './config/cipher.ts';
import { Config } from './config/config.ts';
import { Credentials, type SignedIn } from './credentials/credentials.ts';
import { TenantContext, type Db } from './db/context.ts';
import { translateError } from './db/errors.ts';
import { listen } from './db/listen.ts';
import { Outbox } from './db/outbox.ts';
import { bindPlatform, bindTenant } from './db/scope.ts';
import { nameStatements } from './db/statements.ts';
import type { OperatorTx, PlatformTx, TenantTx, UserTx } from './db/transactions.ts';
import { Deployments } from './deployments/deployments.ts';
import { Gates } from './deployments/gates.ts';
import { Mover } from './deployments/mover.ts';
import { PlatformDeployments } from './deployments/platform-deployments.ts';
import { PrismaClient } from './generated/client.ts';
import { Instances } from './instances/instances.ts';
import { Orders } from './instances/orders.ts';
import { Members } from './members/members.ts';
import { Joining } from './nodes/joining.ts';
import { Nodes, type NodeRegistration, type NodeView } from './nodes/nodes.ts';
import { Pools } from './nodes/pools.ts';
import { mayPull, nodeFromRegistrySecret } from './nodes/registry-access.ts';
import { OperatorQuota, PlatformQuota, Quota } from './quota/quota.ts';
import { PlatformReleases, Releases } from './releases/releases.ts';
import type { Caller } from './roles/caller.ts';
import type { OperatorPermission, Permission } from './roles/permissions.ts';
import { Tasks } from './tasks/tasks.ts';
import { defaultTenantsPerUser } from './tenants/owned.ts';
import { AllTenants, UserTenants, type TenantView } from './tenants/tenants.ts';
import { Tokens } from './tokens/tokens.ts';

export type { TenantRef };

export interface TenancyOptions {
  /** PostgreSQL. Its role must be neither superuser nor BYPASSRLS: row-level security is the second wall. */
  readonly databaseUrl: string;
  /** 256-bit symmetric key (JWK kty oct) that seals config at rest. Not kept in the database. */
  readonly configKey: JWK;
  /** Most connections of this process; 10 when absent. */
  readonly poolSize?: number;
  /** How many tenants a user may own who is no operator; 3 when absent. */
  readonly maxTenantsPerUser?: number;
  /** A clock in place of PostgreSQL's, for tests of expiry. */
  readonly now?: () => Date;
}

const platformActor: Actor = { id: null, name: 'platform' };

/** How long a transaction may wait for a connection, and take. Milliseconds. */
const transactionLimits = { maxWait: 10_000, timeout: 15_000 };

/**
 * The only door to the database. Every transaction is opened by one of the doors below, which binds
 * it to what it may see, in code by its stores and in PostgreSQL by row-level security.
 */
export class Tenancy {
  readonly #prisma: PrismaClient;
  readonly #databaseUrl: string;
  readonly #cipher: ConfigCipher;
  readonly #now: (() => Date) | null;
  /** What PostgreSQL's clock showed last, and when that was by a steady clock, in milliseconds. */
  #seen: { readonly time: number; readonly at: number } | null = null;
  readonly #credentials: Credentials;
  readonly #mayOwn: number;

  private constructor(options: TenancyOptions) {
    this.#cipher = new ConfigCipher(options.configKey);
    this.#now = options.now ?? null;
    this.#databaseUrl = options.databaseUrl;
    this.#mayOwn = options.maxTenantsPerUser ?? defaultTenantsPerUser;
    this.#prisma = new PrismaClient({
      adapter: new PrismaPg(
        {
          connectionString: options.databaseUrl,
          max: options.poolSize ?? 10,
          connectionTimeoutMillis: 5000,
          application_name: 'bulkhead',
        },
        { statementNameGenerator: nameStatements() },
      ),
      transactionOptions: transactionLimits,
    });
    this.#credentials = new Credentials((work) => this.#asPlatform(work));
  }

  /**
   * Throws UNAVAILABLE when the database does not answer, and an Error when its role could see past
   * row-level security.
   */
  static async connect(options: TenancyOptions): Promise<Tenancy> {
    const tenancy = new Tenancy(options);
    try {
      await tenancy.#refusePowerfulRole();
      // It knows the time from now on.
      await tenancy.#asPlatform(async () => undefined);
    } catch (error) {
      await tenancy.close();
      throw translateError(error);
    }
    return tenancy;
  }

  /**
   * The time by PostgreSQL's clock as of the latest transaction, and on from there by a steady clock.
   * All replicas agree on it, however wrong the clock of one is, or becomes.
   */
  readonly now = (): Date => {
    if (this.#now !== null) return this.#now();
    if (this.#seen === null) throw new Error('no transaction has told the time yet');
    return new Date(this.#seen.time + performance.now() - this.#seen.at);
  };

  async close(): Promise<void> {
    await this.#prisma.$disconnect();
  }

  /** For /readyz: throws UNAVAILABLE when the database does not answer. */
  async ping(): Promise<void> {
    try {
      await this.#prisma.$queryRaw`SELECT 1`;
    } catch (error) {
      const refusal = unavailable('the database does not answer');
      refusal.cause = error;
      throw refusal;
    }
  }

  /**
   * The tenant's door. NOT_FOUND when there is no such tenant or the caller is no member of it (or
   * the token is of another): existence is private. FORBIDDEN when the member's role lacks the
   * permission. The transaction commits when `work` resolves and rolls back when it throws.
   * Do no network calls inside: resolve an image before.
   */
  run<T>(
    caller: Caller,
    access: TenantRef & { readonly permission: Permission },
    work: (tx: TenantTx) => Promise<T>,
  ): Promise<T> {
    return this.#asPlatform(async (db, now) => {
      const { tenant, role } = await enterTenant(db, caller, access, access.permission, now);
      await bindTenant(db, tenant.id);
      const actor = { id: caller.userId, name: caller.email };
      const audit = new AuditWriter(db, tenant.id, actor, now);
      const cipher = this.#cipher;
      const context = new TenantContext({ db, tenant, caller, role, cipher, now, audit });
      const mover = new Mover(context);
      return work({
        tenant,
        role,
        members: new Members(context, this.#mayOwn),
        tokens: new Tokens(context),
        apps: new Apps(context),
        config: new Config(context, mover),
        releases: new Releases(context),
        deployments: new Deployments(context, mover),
        gates: new Gates(context),
        instances: new Instances(context),
        traffic: new TrafficMinutes(context),
        orders: new Orders(context),
        tasks: new Tasks(context),
        quota: new Quota(context),
        audit: new AuditLog(context),
      });
    });
  }

  /** The door for what a user owns outside any tenant. */
  asUser<T>(caller: Caller, work: (tx: UserTx) => Promise<T>): Promise<T> {
    return this.#asPlatform((db, now) =>
      work({ tenants: new UserTenants(db, caller, now, this.#mayOwn) }),
    );
  }

  /** The operators' door: FORBIDDEN for everybody else and through tokens. Every operator has every right in it. */
  asOperator<T>(
    caller: Caller,
    access: { readonly permission: OperatorPermission },
    work: (tx: OperatorTx) => Promise<T>,
  ): Promise<T> {
    return this.#asPlatform(async (db, now) => {
      await requireOperator(db, caller, access.permission);
      const actor = { id: caller.userId, name: caller.email };
      const auditOf = (tenantId: string | null) => new AuditWriter(db, tenantId, actor, now);
      return work({
        nodes: new Nodes(db, auditOf(null)),
        joining: new Joining(db, auditOf(null), now),
        pools: new Pools(db, auditOf(null)),
        tenants: new AllTenants(db),
        quota: new OperatorQuota(db, auditOf),
      });
    });
  }

  /** The controllers' door: sees every tenant. Not for requests. */
  platform<T>(work: (tx: PlatformTx) => Promise<T>): Promise<T> {
    return this.#asPlatform((db, now) => {
      const audit = new AuditWriter(db, null, platformActor, now);
      return work({
        prisma: db,
        now,
        apps: new PlatformApps(db),
        releases: new PlatformReleases(this.#cipher),
        deployments: new PlatformDeployments(db, now),
        quota: new PlatformQuota(db),
        nodes: new Nodes(db, audit),
        joining: new Joining(db, audit, now),
        outbox: new Outbox(db),
        auditOf: (tenantId, actor) => new AuditWriter(db, tenantId, actor, now),
      });
    });
  }

  /**
   * Calls `heard` whenever somebody notifies the channel, and after each (re)connection; `outbox` is
   * notified by every transaction that writes outbox rows, `accessChannel` with the id of a user who
   * may do less than before. After a (re)connection the payload is null: anything may have been
   * said. Answers how to stop.
   */
  listen(channel: string, heard: (payload: string | null) => void): () => Promise<void> {
    return listen(this.#databaseUrl, channel, heard);
  }

  /** Whether `run` would let the caller in: for token issuers that answer with less instead of refusing. */
  async may(
    caller: Caller,
    access: TenantRef & { readonly permission: Permission },
  ): Promise<boolean> {
    try {
      await this.#asPlatform((db, now) => enterTenant(db, caller, access, access.permission, now));
      return true;
    } catch (error) {
      if (isRefusal(error)) return false;
      throw error;
    }
  }

  /**
   * Makes a user. INVALID for a bad email or a password under 10 characters, CONFLICT when the email
   * is taken. `address` is the client's IP; too many from one give UNAVAILABLE.
   */
  signUp(input: {
    email: string;
    name?: string | null | undefined;
    password: string;
    address: string;
  }): Promise<SignedIn> {
    return this.#credentials.signUp(input);
  }

  /**
   * UNAUTHENTICATED with the same words and in the same time for a wrong password, an unknown email
   * and a disabled user; UNAVAILABLE after too many failures. `epoch` goes into the session token.
   */
  signIn(input: { email: string; password: string; address: string }): Promise<SignedIn> {
    return this.#credentials.signIn(input);
  }

  /** The user behind a verified session token. UNAUTHENTICATED when signed out everywhere since, disabled or deleted. */
  callerFromSession(session: { userId: string; epoch: number }): Promise<Caller> {
    return this.#credentials.callerFromSession(session);
  }

  /** The user behind an API token. UNAUTHENTICATED when unknown, revoked, expired, or its user is no member any more. */
  callerFromToken(secret: string): Promise<Caller> {
    return this.#credentials.callerFromToken(secret);
  }

  /** Ends every session of the caller. FORBIDDEN through a token. */
  signOutEverywhere(caller: Caller): Promise<void> {
    return this.#credentials.signOutEverywhere(caller);
  }

  /** The node that shows this secret to the registry's token endpoint; UNAUTHENTICATED otherwise. */
  nodeFromRegistrySecret(nodeId: string, secret: string): Promise<{ id: string; name: string }> {
    return this.#asPlatform((db) => nodeFromRegistrySecret(db, nodeId, secret));
  }

  /** Whether an instance placed on the node and not gone has an image of `repository` (registry/repository, as in releases). */
  mayPull(nodeId: string, repository: string): Promise<boolean> {
    return this.#asPlatform((db) => mayPull(db, nodeId, repository));
  }

  /** For the bootstrap, idempotent. An existing user becomes an operator and keeps the password. */
  ensureOperator(input: FirstUser): Promise<{ userId: string; created: boolean }> {
    return ensureUser((work) => this.#asPlatform(work), { ...input, operator: true });
  }

  /** For the bootstrap, idempotent: a user who may sign in; an existing one keeps the password. */
  ensureUser(input: FirstUser): Promise<{ userId: string; created: boolean }> {
    return ensureUser((work) => this.#asPlatform(work), { ...input, operator: false });
  }

  /** For the bootstrap, idempotent: the user is made an owner of the tenant, which is made if missing. */
  ensureTenant(input: { slug: string; name?: string; ownerEmail: string }): Promise<TenantView> {
    return this.#asPlatform((db, now) => ensureTenant(db, now, input));
  }

  /** For the bootstrap, idempotent: see `Nodes.register`. */
  registerNode(input: NodeRegistration): Promise<NodeView> {
    return this.platform((tx) => tx.nodes.register(input));
  }

  /** Every transaction begins here, with the platform's scope; a tenant's door narrows it before anything else runs. */
  async #asPlatform<T>(work: (db: Db, now: Date) => Promise<T>): Promise<T> {
    try {
      return await this.#prisma.$transaction(async (db) => {
        const at = await bindPlatform(db);
        this.#seen = { time: at.getTime(), at: performance.now() };
        return work(db, this.#now?.() ?? at);
      });
    } catch (error) {
      throw translateError(error);
    }
  }

  async #refusePowerfulRole(): Promise<void> {
    const [role] = await this.#prisma.$queryRaw<{ name: string; powerful: boolean }[]>`
      SELECT rolname::text AS "name", (rolsuper OR rolbypassrls) AS "powerful"
      FROM pg_roles WHERE rolname = current_user`;
    if (role && !role.powerful) return;
    throw new Error(
      `the database role ${role?.name ?? ''} is a superuser or has BYPASSRLS, which would switch off the wall ` +
        'between tenants; use an ordinary role that owns the database (see ensureDatabase)',
    );
  }
}
