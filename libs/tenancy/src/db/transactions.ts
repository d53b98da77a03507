import type { Apps } from '../apps/apps.ts';
import type { TrafficMinutes } from '../apps/traffic.ts';
import type { PlatformApps } from '../apps/platform-apps.ts';
import type { Actor, AuditLog, AuditWriter } from '../audit/audit.ts';
import type { Config } from '../config/config.ts';
import type { Deployments } from '../deployments/deployments.ts';
import type { Gates } from '../deployments/gates.ts';
import type { PlatformDeployments } from '../deployments/platform-deployments.ts';
import type { Db } from './context.ts';
import type { Outbox } from './outbox.ts';
import type { Role } from '../generated/enums.ts';
import type { Instances } from '../instances/instances.ts';
import type { Orders } from '../instances/orders.ts';
import type { Members } from '../members/members.ts';
import type { Joining } from '../nodes/joining.ts';
import type { Nodes } from '../nodes/nodes.ts';
import type { Pools } from '../nodes/pools.ts';
import type { OperatorQuota, PlatformQuota, Quota } from '../quota/quota.ts';
import type { PlatformReleases, Releases } from '../releases/releases.ts';
import type { Tasks } from '../tasks/tasks.ts';
import type { AllTenants, TenantView, UserTenants } from '../tenants/tenants.ts';
import type { Tokens } from '../tokens/tokens.ts';

/** What a tenant's door opens: stores bound to one tenant and one caller, valid until the transaction ends. */
export interface TenantTx {
  readonly tenant: TenantView;
  /** The caller's role here, as lowered by a token. */
  readonly role: Role;
  readonly members: Members;
  readonly tokens: Tokens;
  readonly apps: Apps;
  readonly config: Config;
  readonly releases: Releases;
  readonly deployments: Deployments;
  readonly gates: Gates;
  readonly instances: Instances;
  readonly traffic: TrafficMinutes;
  readonly orders: Orders;
  readonly tasks: Tasks;
  readonly quota: Quota;
  readonly audit: AuditLog;
}

/** What a user's own door opens. */
export interface UserTx {
  readonly tenants: UserTenants;
}

/** What an operator's door opens. */
export interface OperatorTx {
  readonly nodes: Nodes;
  readonly joining: Joining;
  readonly pools: Pools;
  readonly tenants: AllTenants;
  readonly quota: OperatorQuota;
}

/** What the controllers' door opens: every tenant's rows, the typed client and raw SQL. */
export interface PlatformTx {
  readonly prisma: Db;
  /** By PostgreSQL's clock, as the transaction began. */
  readonly now: Date;
  readonly apps: PlatformApps;
  readonly releases: PlatformReleases;
  readonly deployments: PlatformDeployments;
  readonly quota: PlatformQuota;
  readonly nodes: Nodes;
  readonly joining: Joining;
  readonly outbox: Outbox;
  /** For what a tenant's member did that ends after they left: a session in a container. */
  readonly auditOf: (tenantId: string, actor: Actor) => AuditWriter;
}
