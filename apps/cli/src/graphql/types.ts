// The shapes that our operations ask for, written by hand next to the documents in operations.ts.
// Dates are ISO strings.

export type Role = 'OWNER' | 'ADMIN' | 'DEVELOPER' | 'VIEWER';
export const roles: readonly Role[] = ['OWNER', 'ADMIN', 'DEVELOPER', 'VIEWER'];

export interface Page<Node> {
  nodes: Node[];
  totalCount: number;
  pageInfo: { hasNextPage: boolean; endCursor: string | null };
}

export interface Viewer {
  id: string;
  email: string;
  name: string;
  operator: boolean;
  via: 'SESSION' | 'TOKEN';
  memberships: { role: Role; tenant: { slug: string; name: string } }[];
}

export interface QuotaUsage {
  resource: string;
  used: number;
  limit: number;
  unit: string;
}

export interface TenantSummary {
  id: string;
  slug: string;
  name: string;
  createdAt: string;
}

export interface TenantInfo extends TenantSummary {
  quota: QuotaUsage[];
  apps: { totalCount: number };
  members: { totalCount: number };
}

export interface Member {
  id: string;
  email: string;
  name: string;
  role: Role;
  createdAt: string;
}

export interface ApiToken {
  id: string;
  name: string;
  role: Role;
  prefix: string;
  createdAt: string;
  expiresAt: string | null;
  lastUsedAt: string | null;
}

export interface AuditEntry {
  id: string;
  at: string;
  actor: string;
  action: string;
  target: string;
  /** A JSON object. */
  detail: string;
}

export interface Image {
  repository: string;
  digest: string;
  reference: string;
  size: number;
  app: string;
  release: number;
  createdAt: string;
}

export interface HealthCheck {
  kind: 'HTTP' | 'TCP' | 'COMMAND';
  path: string | null;
  command: string[] | null;
  intervalSeconds: number;
  timeoutSeconds: number;
  failureThreshold: number;
  successThreshold: number;
  startupGraceSeconds: number;
}

export type ProcessPriority = 'LOW' | 'NORMAL' | 'HIGH';
export type ProcessProtocol = 'HTTP1' | 'HTTP2';

export interface Pool {
  name: string;
  cpuOvercommit: number;
  open: boolean;
  tenants: string[];
  nodes: number;
}

export interface SetPoolInput {
  name: string;
  cpuOvercommit?: number;
  open?: boolean;
  grant?: string[];
  revoke?: string[];
}

export interface Process {
  name: string;
  count: number;
  ready: number;
  command: string[] | null;
  port: number | null;
  cpuMillis: number;
  memoryMiB: number;
  diskMiB: number;
  cpuCapMillis: number;
  pids: number;
  ioBytesPerSecond: number;
  ioOperationsPerSecond: number;
  networkBytesPerSecond: number;
  logBytesPerSecond: number;
  readOnlyRoot: boolean;
  mostPerNode: number;
  protocol: ProcessProtocol;
  priority: ProcessPriority;
  pool: string;
  nodeLabels: Label[];
  healthCheck: HealthCheck | null;
}

export type AppHealth =
  'NEW' | 'RUNNING' | 'DEPLOYING' | 'DEGRADED' | 'CRASHED' | 'PAUSED' | 'STOPPED' | 'DELETING';

export interface AppSummary {
  id: string;
  name: string;
  state: 'ACTIVE' | 'STOPPED' | 'DELETING';
  health: AppHealth;
  url: string;
  createdAt: string;
  processes: { name: string; count: number; ready: number }[];
  currentRelease: { version: number; image: string; createdAt: string } | null;
}

export interface AppInfo extends Omit<AppSummary, 'processes' | 'currentRelease'> {
  processes: Process[];
  currentRelease: Release | null;
  latestDeployment: DeploymentSummary | null;
  strategy: Strategy | null;
}

export interface Release {
  id: string;
  version: number;
  image: string;
  digest: string;
  description: string;
  createdAt: string;
  createdBy: string | null;
  current: boolean;
  configNames: string[];
  processes: Process[];
}

export type ReleaseSummary = Omit<Release, 'configNames' | 'processes'>;

export type DeploymentKind =
  'DEPLOY' | 'CONFIG' | 'SCALE' | 'RESTART' | 'ROLLBACK' | 'STOP' | 'START' | 'RESIZE';
export type DeploymentStatus = 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'SUPERSEDED';

export interface DeploymentFailure {
  code: string;
  message: string;
  process: string | null;
  instance: string | null;
  exitCode: number | null;
  lastLines: string[];
}

export interface CanaryStep {
  share: string;
  pauseSeconds: number | null;
}

export interface Strategy {
  kind: 'ROLLING' | 'CANARY' | 'BLUE_GREEN';
  maxSurge: string;
  maxUnavailable: string;
  progressSeconds: number;
  steps: CanaryStep[];
  manual: boolean | null;
  keepOldSeconds: number | null;
}

export type StrategyInput = Partial<Strategy>;

/** It stands at a gate. */
export interface DeploymentPause {
  step: number;
  since: string;
  /** Null: until it is promoted. */
  until: string | null;
}

export interface DeploymentSummary {
  id: string;
  kind: DeploymentKind;
  status: DeploymentStatus;
  createdAt: string;
  finishedAt: string | null;
  createdBy: string | null;
  step: number;
  steps: number;
  pause: DeploymentPause | null;
  from: { version: number } | null;
  to: { version: number } | null;
  failure: { code: string; message: string } | null;
}

export type InstanceState =
  | 'PENDING'
  | 'ASSIGNED'
  | 'PULLING'
  | 'STARTING'
  | 'RUNNING'
  | 'READY'
  | 'UNREADY'
  | 'PAUSED'
  | 'BACKOFF'
  | 'CRASHLOOP'
  | 'FAILED'
  | 'STOPPING'
  | 'ENDED'
  | 'GONE';

export interface Instance {
  id: string;
  process: string;
  oneOff: boolean;
  release: number;
  state: InstanceState;
  desired: 'RUNNING' | 'DRAINING' | 'GONE';
  paused: boolean;
  message: string | null;
  restarts: number;
  node: string | null;
  createdAt: string;
  readyAt: string | null;
  goneAt: string | null;
  lastExit: InstanceExit | null;
}

export type ExitReason =
  | 'EXITED'
  | 'SIGNAL'
  | 'OOM'
  | 'DISK_FULL'
  | 'HEALTH'
  | 'START_FAILED'
  | 'IMAGE_NOT_FOUND'
  | 'IMAGE_UNAUTHORISED'
  | 'IMAGE_WRONG_PLATFORM'
  | 'IMAGE_CORRUPT'
  | 'IMAGE_NO_SPACE'
  | 'REGISTRY_UNREACHABLE'
  | 'IMAGE_PULL_FAILED';

export interface InstanceExit {
  reason: ExitReason;
  exitCode: number | null;
  signal: string | null;
  message: string;
  lastLines: string[];
  at: string;
}

export interface Deployment extends Omit<DeploymentSummary, 'to' | 'failure'> {
  deadlineAt: string;
  strategy: Strategy;
  app: Pick<AppSummary, 'name' | 'url' | 'state' | 'processes'>;
  to: { version: number; image: string; digest: string } | null;
  failure: DeploymentFailure | null;
  events: { id: string; at: string; message: string }[];
  instances: Instance[];
}

export interface LogLine {
  cursor: string;
  at: string;
  instance: string;
  process: string;
  stream: string;
  text: string;
}

export interface LogPage {
  lines: LogLine[];
  end: string;
  more: boolean;
}

export interface Capacity {
  cpuMillis: number;
  memoryMiB: number;
  diskMiB: number;
  instances: number;
}

export interface Node {
  id: string;
  name: string;
  pool: string;
  state: 'JOINING' | 'READY' | 'SUSPECT' | 'LOST';
  cordoned: boolean;
  draining: boolean;
  labels: Label[];
  agentVersion: string | null;
  lastSeenAt: string | null;
  createdAt: string;
  instanceCount: number;
  missingWalls: string[];
  address: string | null;
  network: string | null;
  certificateEndsAt: string | null;
  capacity: Capacity;
  reserved: Capacity;
}

export interface NodeTop extends Node {
  use: { cpuMillis: number; memoryMiB: number; diskMiB: number | null; load: number } | null;
}

export interface JoinToken {
  id: string;
  name: string | null;
  pool: string;
  labels: Label[];
  createdBy: string;
  createdAt: string;
  expiresAt: string;
  usedAt: string | null;
}

export interface NodeInfo extends Node {
  kernel: string | null;
  os: string | null;
  cgroup: string | null;
  crun: string | null;
  conmon: string | null;
  diskLimit: string | null;
  instances: Page<NodeInstance>;
}

export interface Resync {
  until: string;
  instances: number;
  routes: number;
  stale: number;
  left: number;
}

export interface DrainMove {
  instance: string;
  tenant: string;
  app: string;
  process: string;
  to: string | null;
  why: string | null;
}

export interface NodeInstance {
  id: string;
  tenant: string;
  app: string;
  process: string;
  state: InstanceState;
  cpuMillis: number;
  memoryMiB: number;
}

export type HealthCheckInput = Partial<HealthCheck> & Pick<HealthCheck, 'kind'>;

export interface ProcessInput {
  name: string;
  command?: string[] | null;
  port?: number | null;
  count?: number | null;
  cpuMillis?: number | null;
  cpuCapMillis?: number | null;
  memoryMiB?: number | null;
  diskMiB?: number | null;
  pids?: number | null;
  ioBytesPerSecond?: number | null;
  ioOperationsPerSecond?: number | null;
  networkBytesPerSecond?: number | null;
  logBytesPerSecond?: number | null;
  readOnlyRoot?: boolean | null;
  mostPerNode?: number | null;
  protocol?: ProcessProtocol | null;
  priority?: ProcessPriority | null;
  pool?: string | null;
  nodeLabels?: Label[];
  graceSeconds?: number | null;
  healthCheck?: HealthCheckInput | null;
}

/** Opens one stream; as secret as a password, for half a minute. */
export interface StreamTicket {
  ticket: string;
  url: string | null;
  instance: string;
  expiresAt: string;
}

export interface TaskRun {
  instance: Instance;
  stream: StreamTicket | null;
}

export interface FileChange {
  change: 'ADDED' | 'CHANGED' | 'DELETED';
  kind: 'FILE' | 'DIRECTORY' | 'SYMLINK' | 'OTHER';
  path: string;
}

/** What an instance uses; rates are null in the first reading, disk where nothing is counted. */
export interface InstanceUsage {
  instance: string;
  process: string;
  at: string;
  cpuMillis: number | null;
  cpuCapMillis: number;
  throttled: number | null;
  memoryBytes: number;
  memoryLimitBytes: number;
  pids: number;
  pidsLimit: number;
  readBytesPerSecond: number | null;
  writtenBytesPerSecond: number | null;
  receivedBytesPerSecond: number | null;
  sentBytesPerSecond: number | null;
  diskBytes: number | null;
  diskLimitBytes: number | null;
}

export interface TrafficMinute {
  minute: string;
  status2xx: number;
  status3xx: number;
  status4xx: number;
  status5xx: number;
  failed: number;
  bytesIn: number;
  bytesOut: number;
  /** Until the answer began; null without requests. */
  meanMs: number | null;
  /** Within which so many of a hundred answers began; null without answers. */
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
}

export interface Label {
  name: string;
  value: string;
}
