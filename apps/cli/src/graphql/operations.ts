import type * as T from './types.ts';

/**
 * One operation of the API. The type parameters say what goes in and what comes out; a test holds
 * every document against the committed schema.
 */
export interface Operation<Result, Variables> {
  readonly document: string;
  /** Never set; carries the types. */
  readonly types?: (variables: Variables) => Result;
}

const operation = <Result, Variables = Record<string, never>>(
  document: string,
): Operation<Result, Variables> => ({ document });

type App = { tenant: string; app: string };
type Paged<Variables> = Variables & { first: number; after: string | null };
type Deployed<Name extends string> = Record<Name, { id: string }>;

const viewer = `id email name operator via memberships { role tenant { slug name } }`;
const page = `totalCount pageInfo { hasNextPage endCursor }`;
const tenant = `id slug name createdAt`;
const quota = `resource used limit unit`;
const token = `id name role prefix createdAt expiresAt lastUsedAt`;
const member = `id email name role createdAt`;
const health = `kind path command intervalSeconds timeoutSeconds failureThreshold successThreshold
  startupGraceSeconds`;
const process = `name count ready command port cpuMillis memoryMiB diskMiB cpuCapMillis pids
  ioBytesPerSecond ioOperationsPerSecond networkBytesPerSecond logBytesPerSecond readOnlyRoot mostPerNode protocol priority pool nodeLabels { name value } healthCheck { ${health} }`;
const app = `id name state health url createdAt`;
const appSummary = `${app} processes { name count ready } currentRelease { version image createdAt }`;
const releaseSummary = `id version image digest description createdAt createdBy current`;
const release = `${releaseSummary} configNames processes { ${process} }`;
const strategy = `kind maxSurge maxUnavailable progressSeconds steps { share pauseSeconds } manual keepOldSeconds`;
const deploymentBase = `id kind status createdAt finishedAt createdBy step steps pause { step since until } from { version }`;
const deploymentSummary = `${deploymentBase} to { version } failure { code message }`;
const instance = `id process oneOff release state desired paused message restarts node createdAt readyAt goneAt
  lastExit { reason exitCode signal message lastLines at }`;
const deployment = `${deploymentBase} deadlineAt strategy { ${strategy} }
  app { name url state processes { name count ready } }
  to { version image digest }
  failure { code message process instance exitCode lastLines }
  events { id at message }
  instances { ${instance} }`;
const node = `id name pool state cordoned draining labels { name value } agentVersion lastSeenAt createdAt instanceCount missingWalls
  address network certificateEndsAt
  capacity { cpuMillis memoryMiB diskMiB instances } reserved { cpuMillis memoryMiB diskMiB instances }`;

const joinToken = 'id name pool labels { name value } createdBy createdAt expiresAt usedAt';

export const me = operation<{ me: T.Viewer }>(`query Me { me { ${viewer} } }`);

export const signUp = operation<
  { signUp: { token: string; expiresAt: string; viewer: T.Viewer } },
  { input: { email: string; name: string | null; password: string } }
>(
  `mutation SignUp($input: SignUpInput!) { signUp(input: $input) { token expiresAt viewer { ${viewer} } } }`,
);

export const signIn = operation<
  { signIn: { token: string; expiresAt: string; viewer: T.Viewer } },
  { input: { email: string; password: string } }
>(
  `mutation SignIn($input: SignInInput!) { signIn(input: $input) { token expiresAt viewer { ${viewer} } } }`,
);

export const signOutEverywhere = operation<{ signOutEverywhere: boolean }>(
  `mutation SignOutEverywhere { signOutEverywhere }`,
);

export const tenantInfo = operation<{ tenant: T.TenantInfo }, { tenant: string }>(
  `query TenantInfo($tenant: String!) { tenant(slug: $tenant) {
    ${tenant} quota { ${quota} } apps(first: 1) { totalCount } members(first: 1) { totalCount } } }`,
);

export const tenantQuota = operation<{ tenant: { quota: T.QuotaUsage[] } }, { tenant: string }>(
  `query TenantQuota($tenant: String!) { tenant(slug: $tenant) { quota { ${quota} } } }`,
);

export const allTenants = operation<{ tenants: T.Page<T.TenantSummary> }, Paged<unknown>>(
  `query AllTenants($first: Int, $after: String) {
    tenants(first: $first, after: $after) { ${page} nodes { ${tenant} } } }`,
);

export const createTenant = operation<
  { createTenant: T.TenantSummary },
  { input: { slug: string; name: string | null } }
>(
  `mutation CreateTenant($input: CreateTenantInput!) { createTenant(input: $input) { ${tenant} } }`,
);

export const members = operation<
  { tenant: { members: T.Page<T.Member> } },
  Paged<{ tenant: string }>
>(
  `query Members($tenant: String!, $first: Int, $after: String) { tenant(slug: $tenant) {
    members(first: $first, after: $after) { ${page} nodes { ${member} } } } }`,
);

type MemberInput = { input: { tenant: string; email: string; role: T.Role } };
export const addMember = operation<{ addMember: T.Member }, MemberInput>(
  `mutation AddMember($input: AddMemberInput!) { addMember(input: $input) { ${member} } }`,
);
export const setMemberRole = operation<{ setMemberRole: T.Member }, MemberInput>(
  `mutation SetMemberRole($input: SetMemberRoleInput!) { setMemberRole(input: $input) { ${member} } }`,
);
export const removeMember = operation<
  { removeMember: boolean },
  { input: { tenant: string; email: string } }
>(`mutation RemoveMember($input: RemoveMemberInput!) { removeMember(input: $input) }`);

export const tokens = operation<
  { tenant: { tokens: T.Page<T.ApiToken> } },
  Paged<{ tenant: string }>
>(
  `query Tokens($tenant: String!, $first: Int, $after: String) { tenant(slug: $tenant) {
    tokens(first: $first, after: $after) { ${page} nodes { ${token} } } } }`,
);
export const createApiToken = operation<
  { createApiToken: { secret: string; token: T.ApiToken } },
  { input: { tenant: string; name: string; role: T.Role; expiresInDays: number | null } }
>(
  `mutation CreateApiToken($input: CreateApiTokenInput!) {
    createApiToken(input: $input) { secret token { ${token} } } }`,
);
export const revokeApiToken = operation<
  { revokeApiToken: boolean },
  { input: { tenant: string; id: string } }
>(`mutation RevokeApiToken($input: RevokeApiTokenInput!) { revokeApiToken(input: $input) }`);

export const audit = operation<
  { tenant: { auditLog: T.Page<T.AuditEntry> } },
  Paged<{ tenant: string }>
>(
  `query Audit($tenant: String!, $first: Int, $after: String) { tenant(slug: $tenant) {
    auditLog(first: $first, after: $after) { ${page} nodes { id at actor action target detail } } } }`,
);

export const images = operation<{ tenant: { images: T.Page<T.Image> } }, Paged<{ tenant: string }>>(
  `query Images($tenant: String!, $first: Int, $after: String) { tenant(slug: $tenant) {
    images(first: $first, after: $after) {
      ${page} nodes { repository digest reference size app release createdAt } } } }`,
);

export const traffic = operation<
  { app: { traffic: T.TrafficMinute[] } },
  { tenant: string; app: string; minutes: number; step: number }
>(
  `query Traffic($tenant: String!, $app: String!, $minutes: Int!, $step: Int!) {
    app(tenant: $tenant, name: $app) { traffic(minutes: $minutes, step: $step) {
      minute status2xx status3xx status4xx status5xx failed bytesIn bytesOut
      meanMs p50Ms p95Ms p99Ms } } }`,
);

export const setQuota = operation<
  { setQuota: T.QuotaUsage[] },
  { input: { tenant: string; resource: string; limit: number } }
>(`mutation SetQuota($input: SetQuotaInput!) { setQuota(input: $input) { ${quota} } }`);

export const apps = operation<
  { tenant: { apps: T.Page<T.AppSummary> } },
  Paged<{ tenant: string }>
>(
  `query Apps($tenant: String!, $first: Int, $after: String) { tenant(slug: $tenant) {
    apps(first: $first, after: $after) { ${page} nodes { ${appSummary} } } } }`,
);

export const appInfo = operation<{ app: T.AppInfo }, App>(
  `query AppInfo($tenant: String!, $app: String!) { app(tenant: $tenant, name: $app) {
    ${app} processes { ${process} } currentRelease { ${release} } latestDeployment { ${deploymentSummary} }
    strategy { ${strategy} } } }`,
);

export const appUrl = operation<{ app: { name: string; url: string; state: string } }, App>(
  `query AppUrl($tenant: String!, $app: String!) { app(tenant: $tenant, name: $app) { name url state } }`,
);

export const latestDeployment = operation<
  { app: { name: string; latestDeployment: { id: string } | null } },
  App
>(
  `query LatestDeployment($tenant: String!, $app: String!) { app(tenant: $tenant, name: $app) {
    name latestDeployment { id } } }`,
);

export const createApp = operation<
  { createApp: T.AppSummary },
  { input: { tenant: string; name: string } }
>(`mutation CreateApp($input: CreateAppInput!) { createApp(input: $input) { ${appSummary} } }`);

export const destroyApp = operation<{ destroyApp: T.AppSummary }, { input: App }>(
  `mutation DestroyApp($input: AppInput!) { destroyApp(input: $input) { ${appSummary} } }`,
);

export const config = operation<{ app: { config: { name: string; value: string }[] } }, App>(
  `query Config($tenant: String!, $app: String!) { app(tenant: $tenant, name: $app) {
    config { name value } } }`,
);

export const setConfig = operation<
  {
    setConfig: {
      app: { currentRelease: { version: number } | null };
      deployment: { id: string } | null;
    };
  },
  {
    input: App & {
      vars: { name: string; value: string | null }[];
      strategy: T.StrategyInput | null;
    };
  }
>(
  `mutation SetConfig($input: SetConfigInput!) { setConfig(input: $input) {
    app { currentRelease { version } } deployment { id } } }`,
);

export const releases = operation<{ app: { releases: T.Page<T.ReleaseSummary> } }, Paged<App>>(
  `query Releases($tenant: String!, $app: String!, $first: Int, $after: String) {
    app(tenant: $tenant, name: $app) {
      releases(first: $first, after: $after) { ${page} nodes { ${releaseSummary} } } } }`,
);

/** Releases with everything: only for `releases info`, which looks for one version. */
export const releaseDetails = operation<{ app: { releases: T.Page<T.Release> } }, Paged<App>>(
  `query ReleaseDetails($tenant: String!, $app: String!, $first: Int, $after: String) {
    app(tenant: $tenant, name: $app) {
      releases(first: $first, after: $after) { ${page} nodes { ${release} } } } }`,
);

export const deployments = operation<
  { app: { deployments: T.Page<T.DeploymentSummary> } },
  Paged<App>
>(
  `query Deployments($tenant: String!, $app: String!, $first: Int, $after: String) {
    app(tenant: $tenant, name: $app) {
      deployments(first: $first, after: $after) { ${page} nodes { ${deploymentSummary} } } } }`,
);

export const instances = operation<
  { app: { name: string; instances: T.Page<T.Instance> } },
  Paged<App & { includeGone: boolean }>
>(
  `query Instances($tenant: String!, $app: String!, $first: Int, $after: String, $includeGone: Boolean) {
    app(tenant: $tenant, name: $app) { name
      instances(first: $first, after: $after, includeGone: $includeGone) { ${page} nodes { ${instance} } } } }`,
);

export const deploymentById = operation<{ deployment: T.Deployment }, { id: string }>(
  `query DeploymentById($id: ID!) { deployment(id: $id) { ${deployment} } }`,
);

export const deploymentProgress = operation<{ deploymentProgress: T.Deployment }, { id: string }>(
  `subscription DeploymentProgress($id: ID!) { deploymentProgress(id: $id) { ${deployment} } }`,
);

export const deploy = operation<
  Deployed<'deploy'>,
  {
    input: App & {
      image: string;
      processes: T.ProcessInput[] | null;
      description: string | null;
      strategy: T.StrategyInput | null;
    };
  }
>(`mutation Deploy($input: DeployInput!) { deploy(input: $input) { id } }`);

export const scale = operation<
  Deployed<'scale'>,
  { input: App & { formation: { process: string; count: number }[] } }
>(`mutation Scale($input: ScaleInput!) { scale(input: $input) { id } }`);

export const resize = operation<
  Deployed<'resize'>,
  {
    input: App & {
      process: string;
      cpuMillis: number | null;
      cpuCapMillis: number | null;
      memoryMiB: number | null;
      pids: number | null;
    };
  }
>(`mutation Resize($input: ResizeInput!) { resize(input: $input) { id } }`);

export const restart = operation<
  Deployed<'restart'>,
  { input: App; strategy: T.StrategyInput | null }
>(
  `mutation Restart($input: AppInput!, $strategy: StrategyInput) {
    restart(input: $input, strategy: $strategy) { id } }`,
);

export const promote = operation<
  Deployed<'promote'>,
  { input: App & { deployment: string; step: number | null; full: boolean } }
>(`mutation Promote($input: PromoteInput!) { promote(input: $input) { id } }`);

export const abort = operation<
  { abort: T.DeploymentSummary },
  { input: App & { deployment: string } }
>(`mutation Abort($input: AbortInput!) { abort(input: $input) { ${deploymentSummary} } }`);

export const rollback = operation<
  Deployed<'rollback'>,
  { input: App & { version: number | null; strategy: T.StrategyInput | null } }
>(`mutation Rollback($input: RollbackInput!) { rollback(input: $input) { id } }`);

export const stopApp = operation<Deployed<'stopApp'>, { input: App }>(
  `mutation StopApp($input: AppInput!) { stopApp(input: $input) { id } }`,
);

export const startApp = operation<Deployed<'startApp'>, { input: App }>(
  `mutation StartApp($input: AppInput!) { startApp(input: $input) { id } }`,
);

export const pauseApp = operation<{ pauseApp: { name: string } }, { input: App }>(
  `mutation PauseApp($input: AppInput!) { pauseApp(input: $input) { name } }`,
);

export const resumeApp = operation<{ resumeApp: { name: string } }, { input: App }>(
  `mutation ResumeApp($input: AppInput!) { resumeApp(input: $input) { name } }`,
);

type OneInstance = { input: App & { instance: string } };
export const pauseInstance = operation<{ pauseInstance: { id: string } }, OneInstance>(
  `mutation PauseInstance($input: InstanceInput!) { pauseInstance(input: $input) { id } }`,
);

export const resumeInstance = operation<{ resumeInstance: { id: string } }, OneInstance>(
  `mutation ResumeInstance($input: InstanceInput!) { resumeInstance(input: $input) { id } }`,
);

export const restartInstance = operation<{ restartInstance: { id: string } }, OneInstance>(
  `mutation RestartInstance($input: InstanceInput!) { restartInstance(input: $input) { id } }`,
);

export const deleteInstance = operation<{ deleteInstance: { id: string } }, OneInstance>(
  `mutation DeleteInstance($input: InstanceInput!) { deleteInstance(input: $input) { id } }`,
);

/** Which lines of an app's log; null: without that border. */
export type WhichLogs = App & {
  process: string | null;
  instance: string | null;
  since: string | null;
  until: string | null;
};
const whichLogs = `$tenant: String!, $app: String!, $process: String, $instance: String, $since: DateTime, $until: DateTime`;
const logArguments = `tenant: $tenant, app: $app, process: $process, instance: $instance, since: $since, until: $until`;
const logLine = `at instance process stream text cursor`;

export const logPage = operation<
  { logPage: T.LogPage },
  WhichLogs & { first?: number; last?: number; after?: string | null }
>(
  `query LogPage(${whichLogs}, $first: Int, $last: Int, $after: String) {
    logPage(${logArguments}, first: $first, last: $last, after: $after) { end more lines { ${logLine} } } }`,
);
export const followLogs = operation<{ logs: T.LogLine }, WhichLogs & { after: string }>(
  `subscription FollowLogs(${whichLogs}, $after: String) {
    logs(${logArguments}, after: $after) { ${logLine} } }`,
);

const ticket = `ticket url instance expiresAt`;
type TerminalInput = { term: string; columns: number; rows: number } | null;
/** An instance by its id, else one of the process. */
type Where = App & { instance: string | null; process: string | null };

export const exec = operation<
  { exec: T.StreamTicket },
  { input: Where & { command: string[]; stdin: boolean; terminal: TerminalInput } }
>(`mutation Exec($input: ExecInput!) { exec(input: $input) { ${ticket} } }`);

export const runTask = operation<
  { runTask: T.TaskRun },
  {
    input: App & {
      command: string[];
      process: string | null;
      release: number | null;
      cpuMillis: number | null;
      memoryMiB: number | null;
      terminal: TerminalInput;
      stdin: boolean;
      timeoutSeconds: number | null;
      detach: boolean;
    };
  }
>(
  `mutation RunTask($input: RunTaskInput!) { runTask(input: $input) { instance { ${instance} } stream { ${ticket} } } }`,
);

type Opened<Name extends string> = Record<Name, T.StreamTicket>;

export const attachTask = operation<
  Opened<'attachTask'>,
  { input: App & { instance: string; terminal: TerminalInput } }
>(`mutation AttachTask($input: AttachTaskInput!) { attachTask(input: $input) { ${ticket} } }`);

export const stopTask = operation<{ stopTask: T.Instance }, { input: App & { instance: string } }>(
  `mutation StopTask($input: TaskInput!) { stopTask(input: $input) { ${instance} } }`,
);

export const copyFromInstance = operation<
  Opened<'copyFromInstance'>,
  { input: Where & { path: string } }
>(
  `mutation CopyFromInstance($input: CopyInput!) { copyFromInstance(input: $input) { ${ticket} } }`,
);

export const copyToInstance = operation<
  Opened<'copyToInstance'>,
  { input: Where & { path: string } }
>(`mutation CopyToInstance($input: CopyInput!) { copyToInstance(input: $input) { ${ticket} } }`);

export const forwardPort = operation<Opened<'forwardPort'>, { input: Where & { port: number } }>(
  `mutation ForwardPort($input: ForwardPortInput!) { forwardPort(input: $input) { ${ticket} } }`,
);

export const instanceChanges = operation<
  { instanceChanges: { changes: T.FileChange[]; truncated: boolean } },
  App & { instance: string }
>(
  `query InstanceChanges($tenant: String!, $app: String!, $instance: ID!) {
    instanceChanges(tenant: $tenant, app: $app, instance: $instance) { truncated changes { change kind path } } }`,
);

const usageFields = `instance process at cpuMillis cpuCapMillis throttled memoryBytes memoryLimitBytes pids pidsLimit
    readBytesPerSecond writtenBytesPerSecond receivedBytesPerSecond sentBytesPerSecond diskBytes diskLimitBytes`;

export const usage = operation<{ usage: T.InstanceUsage[] }, App>(
  `query Usage($tenant: String!, $app: String!) { usage(tenant: $tenant, app: $app) { ${usageFields} } }`,
);
export const followUsage = operation<
  { usage: T.InstanceUsage[] },
  App & { intervalSeconds: number }
>(
  `subscription FollowUsage($tenant: String!, $app: String!, $intervalSeconds: Float!) {
    usage(tenant: $tenant, app: $app, intervalSeconds: $intervalSeconds) { ${usageFields} } }`,
);

export const nodes = operation<{ nodes: T.Page<T.Node> }, Paged<unknown>>(
  `query Nodes($first: Int, $after: String) { nodes(first: $first, after: $after) { ${page} nodes { ${node} } } }`,
);

export const nodeInfo = operation<{ node: T.NodeInfo }, { name: string }>(
  `query NodeInfo($name: String!) { node(name: $name) {
    ${node} kernel os cgroup crun conmon diskLimit
    instances(first: 200) { ${page} nodes { id tenant app process oneOff state cpuMillis memoryMiB } } } }`,
);

export const resync = operation<{ resync: T.Resync }, object>(
  'mutation Resync { resync { until instances routes stale left } }',
);
export const resyncWaiting = operation<{ resyncWaiting: number }, { until: string }>(
  'query ResyncWaiting($until: ID!) { resyncWaiting(until: $until) }',
);

type NodeOperation = { input: { node: string } };
export const cordonNode = operation<{ cordonNode: T.Node }, NodeOperation>(
  `mutation CordonNode($input: NodeInput!) { cordonNode(input: $input) { ${node} } }`,
);
export const uncordonNode = operation<{ uncordonNode: T.Node }, NodeOperation>(
  `mutation UncordonNode($input: NodeInput!) { uncordonNode(input: $input) { ${node} } }`,
);
export const drainNode = operation<{ drainNode: T.Node }, NodeOperation>(
  `mutation DrainNode($input: NodeInput!) { drainNode(input: $input) { ${node} } }`,
);
export const cancelDrain = operation<{ cancelDrain: T.Node }, NodeOperation>(
  `mutation CancelDrain($input: NodeInput!) { cancelDrain(input: $input) { ${node} } }`,
);
export const drainPlan = operation<{ drainPlan: T.DrainMove[] }, { node: string }>(
  `query DrainPlan($node: String!) { drainPlan(node: $node) { instance tenant app process to why } }`,
);
export const labelNode = operation<
  { labelNode: T.Node },
  { input: { node: string; labels: { name: string; value: string | null }[] } }
>(`mutation LabelNode($input: LabelNodeInput!) { labelNode(input: $input) { ${node} } }`);

export const moveNode = operation<{ moveNode: T.Node }, { input: { node: string; pool: string } }>(
  `mutation MoveNode($input: MoveNodeInput!) { moveNode(input: $input) { ${node} } }`,
);
const pool = 'name cpuOvercommit open tenants nodes';
export const pools = operation<{ pools: T.Pool[] }>(`query Pools { pools { ${pool} } }`);
export const setPool = operation<{ setPool: T.Pool }, { input: T.SetPoolInput }>(
  `mutation SetPool($input: SetPoolInput!) { setPool(input: $input) { ${pool} } }`,
);

export const nodesTop = operation<{ nodes: T.Page<T.NodeTop> }, Paged<unknown>>(
  `query NodesTop($first: Int, $after: String) { nodes(first: $first, after: $after) { ${page}
    nodes { ${node} use { cpuMillis memoryMiB diskMiB load } } } }`,
);
export const joinTokens = operation<{ joinTokens: T.JoinToken[] }>(
  `query JoinTokens { joinTokens { ${joinToken} } }`,
);
export const createJoinToken = operation<
  { createJoinToken: { secret: string; token: T.JoinToken } },
  {
    input: {
      name: string | null;
      pool: string | null;
      labels: { name: string; value: string }[];
      ttlMinutes: number | null;
    };
  }
>(
  `mutation CreateJoinToken($input: CreateJoinTokenInput!) {
    createJoinToken(input: $input) { secret token { ${joinToken} } } }`,
);
export const revokeJoinToken = operation<{ revokeJoinToken: boolean }, { input: { id: string } }>(
  'mutation RevokeJoinToken($input: RevokeJoinTokenInput!) { revokeJoinToken(input: $input) }',
);
export const removeNode = operation<
  { removeNode: boolean },
  { input: { node: string; force: boolean } }
>('mutation RemoveNode($input: RemoveNodeInput!) { removeNode(input: $input) }');
