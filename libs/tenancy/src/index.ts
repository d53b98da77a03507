export { Tenancy, type TenancyOptions, type TenantRef } from './tenancy.ts';
export { migrate, ensureDatabase } from './db/migrate.ts';
export { accessChannel } from './db/access-changed.ts';
export type * from './db/transactions.ts';
export type { Page, PageArgs } from './db/page.ts';
export type { SignedIn } from './credentials/credentials.ts';
export type { Caller } from './roles/caller.ts';
export {
  isAbove,
  lowerRole,
  operatorPermissions,
  permissions,
  roleMay,
  roles,
  type OperatorPermission,
  type Permission,
} from './roles/permissions.ts';
export type { MembershipView, TenantView } from './tenants/tenants.ts';
export type { MemberView } from './members/members.ts';
export type { TokenView } from './tokens/tokens.ts';
export type { AppHealth, AppStatus, AppView, ProcessView } from './apps/apps.ts';
export { trafficHours, type TrafficMinute } from './apps/traffic.ts';
export type { ConfigVarView } from './config/config.ts';
export type { ImageView, ReleaseView, ResolvedImage } from './releases/releases.ts';
export type { HealthCheckRequest, ProcessRequest } from './releases/plan-processes.ts';
export type { StrategyRequest } from './deployments/strategy.ts';
export type { PauseView } from './deployments/view.ts';
export type { DeploymentEventView, DeploymentView } from './deployments/deployments.ts';
export type { TaskRequest } from './tasks/tasks.ts';
export type { InstancePlace, InstanceView } from './instances/instances.ts';
export { quotaResources, type QuotaResource, type QuotaUsageView } from './quota/resources.ts';
export type { AuditEntryView } from './audit/audit.ts';
export type { JoinTokenView } from './nodes/joining.ts';
export type { PoolChange, PoolView } from './nodes/pools.ts';
export type { CapacityView, NodeInstanceView, NodeRegistration, NodeView } from './nodes/nodes.ts';
/** The database's words. `Prisma` is here for the controllers' typed SQL; its client is not. */
export type * from './generated/enums.ts';
export { Prisma } from './generated/client.ts';
export type {
  App as AppRow,
  Deployment as DeploymentRow,
  Formation as FormationRow,
  Instance as InstanceRow,
  Node as NodeRow,
  Outbox as OutboxRow,
  Release as ReleaseRow,
  Route as RouteRow,
} from './generated/client.ts';
