import { EventEmitter, on } from 'node:events';
import { GraphQLError } from 'graphql';
import type { ErrorCode } from '@bulkhead/protocol';
import type { DeploymentKind, Instance, Role, StrategyInput } from '../graphql/types.ts';
import { FakeApp, FakeDeployment, type FakeProcess } from './fake-app.ts';
import { FakeRemote, type RunInput } from './fake-remote.ts';

// The API of the tests: the real schema, resolved by plain objects in memory (graphql-js calls
// methods with the field's arguments). It knows just enough to answer every operation of the
// command line and to refuse what the real one refuses.

export function refuse(code: ErrorCode, message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { code } });
}

export interface Context {
  readonly authorization: string | null;
}

export function connection<T>(
  items: readonly T[],
  args: { first?: number | null; after?: string | null },
) {
  const start = args.after ? Number(args.after) : 0;
  const nodes = items.slice(start, start + (args.first ?? 50));
  const end = start + nodes.length;
  return {
    nodes,
    edges: nodes.map((node, i) => ({ node, cursor: String(start + i + 1) })),
    totalCount: items.length,
    pageInfo: {
      hasNextPage: end < items.length,
      hasPreviousPage: start > 0,
      startCursor: null,
      endCursor: nodes.length > 0 ? String(end) : null,
    },
  };
}

export interface FakeUser {
  readonly id: string;
  readonly email: string;
  readonly name: string;
  readonly password: string;
  readonly operator: boolean;
}

let counter = 0;
export const newId = (prefix: string) => `${prefix}${String((counter += 1)).padStart(12, '0')}`;

type Page = { first?: number; after?: string };

export class FakeTenant {
  readonly id = newId('t');
  readonly createdAt = new Date(Date.now() - 86_400_000).toISOString();
  readonly roles = new Map<FakeUser, Role>();
  readonly appMap = new Map<string, FakeApp>();
  readonly limits = new Map([
    ['apps', 5],
    ['instances', 10],
    ['memoryMiB', 4096],
  ]);
  readonly tokenList: {
    id: string;
    name: string;
    role: Role;
    prefix: string;
    createdAt: string;
    expiresAt: string | null;
    lastUsedAt: null;
    secret: string;
    user: FakeUser;
  }[] = [];
  readonly auditList: {
    id: string;
    at: string;
    actor: string;
    action: string;
    target: string;
    detail: string;
  }[] = [];
  readonly slug: string;
  readonly name: string;

  constructor(slug: string, name: string) {
    this.slug = slug;
    this.name = name;
  }

  apps = (args: Page) => connection([...this.appMap.values()], args);
  tokens = (args: Page) => connection(this.tokenList, args);
  auditLog = (args: Page) => connection(this.auditList, args);
  members = (args: Page) =>
    connection(
      [...this.roles].map(([user, role]) => this.member(user, role)),
      args,
    );
  images = (args: Page) =>
    connection(
      [...this.appMap.values()].flatMap((app) =>
        app.releaseList.map((release) => ({
          repository: release.image.split(':')[0],
          digest: release.digest,
          reference: release.image,
          size: 12_345_678,
          app: app.name,
          release: release.version,
          createdAt: release.createdAt,
        })),
      ),
      args,
    );
  quota = () =>
    [...this.limits].map(([resource, limit]) => ({
      resource,
      used: resource === 'apps' ? this.appMap.size : 0,
      limit,
      unit: resource === 'memoryMiB' ? 'MiB' : '',
    }));

  member(user: FakeUser, role: Role) {
    return { id: user.id, email: user.email, name: user.name, role, createdAt: this.createdAt };
  }

  audit(actor: FakeUser, action: string, target: string): void {
    this.auditList.unshift({
      id: newId('a'),
      at: new Date().toISOString(),
      actor: actor.email,
      action,
      target,
      detail: JSON.stringify({ version: 3, note: 'a\u001b[2Jb' }),
    });
  }
}

interface AppOrder {
  input: { tenant: string; app: string };
}
interface InstanceOrder {
  input: { tenant: string; app: string; instance: string };
}

function hold(instance: Instance, paused: boolean): Instance {
  return Object.assign(instance, { paused, state: paused ? 'PAUSED' : 'READY' });
}

interface FakeJoinToken {
  id: string;
  name: string | null;
  pool: string;
  labels: { name: string; value: string }[];
  createdBy: string;
  createdAt: string;
  expiresAt: string;
  usedAt: string | null;
}

interface FakeNodeState {
  cordoned: boolean;
  draining: boolean;
  labels: Record<string, string>;
}

/** The root value: one method per query, mutation and subscription. */
export class FakePlatform {
  readonly users: FakeUser[] = [];
  readonly tenantMap = new Map<string, FakeTenant>();
  readonly sessions = new Map<string, FakeUser>();
  readonly deploymentMap = new Map<string, FakeDeployment>();
  readonly changed = new EventEmitter().setMaxListeners(100);
  readonly remote = new FakeRemote();
  /** Lines on a page of logs when the asker does not say. */
  logPageLines = 1000;

  addUser(email: string, password: string, operator = false): FakeUser {
    const user = { id: newId('u'), email, name: email.split('@')[0] ?? '', password, operator };
    this.users.push(user);
    return user;
  }

  addTenant(slug: string, members: readonly (readonly [FakeUser, Role])[]): FakeTenant {
    const tenant = new FakeTenant(slug, slug.toUpperCase());
    for (const [user, role] of members) tenant.roles.set(user, role);
    this.tenantMap.set(slug, tenant);
    return tenant;
  }

  session(user: FakeUser): string {
    const token = newId('session-');
    this.sessions.set(token, user);
    return token;
  }

  #user({ authorization }: Context): FakeUser {
    const token = authorization?.replace(/^Bearer /, '');
    const apiToken = [...this.tenantMap.values()]
      .flatMap((tenant) => tenant.tokenList)
      .find((one) => one.secret === token);
    const user = (token === undefined ? undefined : this.sessions.get(token)) ?? apiToken?.user;
    if (!user) throw refuse('UNAUTHENTICATED', 'sign in first');
    return user;
  }

  #tenant(slug: string, context: Context, write = false): FakeTenant {
    const user = this.#user(context);
    const tenant = this.tenantMap.get(slug);
    const role = tenant?.roles.get(user);
    if (!tenant || (!role && !user.operator)) throw refuse('NOT_FOUND', `tenant ${slug} not found`);
    if (write && role === 'VIEWER') throw refuse('FORBIDDEN', 'a viewer may not change anything');
    return tenant;
  }

  #app(tenant: string, name: string, context: Context, write = false): FakeApp {
    const app = this.#tenant(tenant, context, write).appMap.get(name);
    if (!app) throw refuse('NOT_FOUND', `app ${name} not found`);
    return app;
  }

  #viewer(user: FakeUser, via: 'SESSION' | 'TOKEN') {
    const memberships = [...this.tenantMap.values()].flatMap((tenant) => {
      const role = tenant.roles.get(user);
      return role ? [{ role, tenant }] : [];
    });
    return { ...user, via, memberships };
  }

  me(_args: unknown, context: Context) {
    const user = this.#user(context);
    return this.#viewer(user, context.authorization?.includes('session-') ? 'SESSION' : 'TOKEN');
  }
  tenant = ({ slug }: { slug: string }, context: Context) => this.#tenant(slug, context);
  app = ({ tenant, name }: { tenant: string; name: string }, context: Context) =>
    this.#app(tenant, name, context);
  deployment({ id }: { id: string }, context: Context): FakeDeployment {
    this.#user(context);
    const deployment = this.deploymentMap.get(id);
    if (!deployment) throw refuse('NOT_FOUND', `deployment ${id} not found`);
    return deployment;
  }
  tenants(args: Page, context: Context) {
    if (!this.#user(context).operator)
      throw refuse('FORBIDDEN', 'only operators may list every tenant');
    return connection([...this.tenantMap.values()], args);
  }
  /** Changes that still wait, less with every look. */
  readonly #resyncWaits = [2, 0];
  resync(_args: object, context: Context) {
    if (!this.#user(context).operator) throw refuse('FORBIDDEN', 'only operators may resync');
    return { until: '7', instances: 2, routes: 1, stale: 1, left: 0 };
  }
  resyncWaiting = () => this.#resyncWaits.shift() ?? 0;
  /** Walls that the one node lacks. */
  missingWalls: readonly string[] = [];
  readonly #nodeState: FakeNodeState = { cordoned: false, draining: false, labels: {} };
  nodes(args: Page, context: Context) {
    if (!this.#user(context).operator) throw refuse('FORBIDDEN', 'only operators may see nodes');
    return connection([this.#node()], args);
  }
  node({ name }: { name: string }, context: Context) {
    if (!this.#user(context).operator) throw refuse('FORBIDDEN', 'only operators may see nodes');
    if (name !== 'node-1') throw refuse('NOT_FOUND', `node ${name} not found`);
    return this.#node();
  }
  #changeNode(node: string, context: Context, changes: Partial<FakeNodeState>) {
    const known = this.node({ name: node }, context);
    Object.assign(this.#nodeState, changes);
    return { ...known, ...this.#node() };
  }
  cordonNode = ({ input }: { input: { node: string } }, context: Context) =>
    this.#changeNode(input.node, context, { cordoned: true });
  uncordonNode = ({ input }: { input: { node: string } }, context: Context) =>
    this.#changeNode(input.node, context, { cordoned: false, draining: false });
  drainNode = ({ input }: { input: { node: string } }, context: Context) =>
    this.#changeNode(input.node, context, { cordoned: true, draining: true });
  cancelDrain = ({ input }: { input: { node: string } }, context: Context) =>
    this.#changeNode(input.node, context, { draining: false });
  labelNode(
    { input }: { input: { node: string; labels: { name: string; value: string | null }[] } },
    context: Context,
  ) {
    const labels = { ...this.#nodeState.labels };
    for (const { name, value } of input.labels) {
      if (value === null) delete labels[name];
      else labels[name] = value;
    }
    return this.#changeNode(input.node, context, { labels });
  }
  moveNode = ({ input }: { input: { node: string; pool: string } }, context: Context) => ({
    ...this.#changeNode(input.node, context, {}),
    pool: input.pool,
  });
  readonly #pools = [{ name: 'default', cpuOvercommit: 4, open: true, tenants: [], nodes: 1 }];
  pools(_args: object, context: Context) {
    this.node({ name: 'node-1' }, context);
    return this.#pools;
  }
  setPool({ input }: { input: { name: string; grant?: string[] } }, context: Context) {
    this.node({ name: 'node-1' }, context);
    const { grant: tenants = [], ...values } = input;
    return { ...{ cpuOvercommit: 4, open: false, nodes: 0 }, ...values, tenants };
  }
  readonly #joinTokens: FakeJoinToken[] = [];
  joinTokens(_args: object, context: Context) {
    this.node({ name: 'node-1' }, context);
    return this.#joinTokens;
  }
  createJoinToken({ input }: { input: Partial<FakeJoinToken> }, context: Context) {
    this.node({ name: 'node-1' }, context);
    const now = Date.now();
    const token = {
      id: `01a21951-b42d-749a-8d20-${String(this.#joinTokens.length).padStart(12, '0')}`,
      name: input.name ?? null,
      pool: input.pool ?? 'default',
      labels: input.labels ?? [],
      createdBy: 'op@example.com',
      createdAt: new Date(now).toISOString(),
      expiresAt: new Date(now + 3_600_000).toISOString(),
      usedAt: null,
    };
    this.#joinTokens.push(token);
    return { secret: 'bhj1.place.bh_secret', token };
  }
  revokeJoinToken({ input }: { input: { id: string } }, context: Context) {
    this.node({ name: 'node-1' }, context);
    const at = this.#joinTokens.findIndex(({ id }) => id === input.id);
    if (at < 0) throw refuse('NOT_FOUND', 'join token not found');
    this.#joinTokens.splice(at, 1);
    return true;
  }
  removeNode({ input }: { input: { node: string; force: boolean } }, context: Context) {
    this.node({ name: input.node }, context);
    if (!input.force)
      throw refuse(
        'CONFLICT',
        '1 instances are on node node-1: drain it first, or use force if it is lost for good',
      );
    return true;
  }
  drainPlan({ node }: { node: string }, context: Context) {
    this.node({ name: node }, context);
    const at = { instance: 'i000000000001', tenant: 'demo', app: 'hello', process: 'web' };
    return [{ ...at, to: null, why: 'no node can take it: 1 node is cordoned' }];
  }
  #node() {
    const now = new Date().toISOString();
    return {
      id: 'n000000000001',
      name: 'node-1',
      pool: 'default',
      state: 'READY',
      cordoned: this.#nodeState.cordoned,
      draining: this.#nodeState.draining,
      labels: Object.entries(this.#nodeState.labels).map(([name, value]) => ({ name, value })),
      agentVersion: '0.1.0',
      lastSeenAt: now,
      createdAt: now,
      kernel: '6.18',
      os: 'Debian 12',
      cgroup: 'v1',
      crun: '1.8.1',
      conmon: '2.1.6',
      diskLimit: 'btrfs',
      missingWalls: [...this.missingWalls],
      address: null,
      network: null,
      certificateEndsAt: null,
      use: { cpuMillis: 250, memoryMiB: 4096, diskMiB: 100, load: 0.5 },
      capacity: { cpuMillis: 2000, memoryMiB: 24_000, diskMiB: 100_000, instances: 1000 },
      reserved: { cpuMillis: 100, memoryMiB: 128, diskMiB: 512, instances: 1 },
      instanceCount: this.#nodeState.draining ? 0 : 1,
      instances: (args: Page) =>
        connection(
          [
            {
              id: 'i000000000001',
              tenant: 'demo',
              app: 'hello',
              process: 'web',
              oneOff: false,
              state: 'READY',
              cpuMillis: 100,
              memoryMiB: 128,
            },
          ],
          args,
        ),
    };
  }

  signUp({ input }: { input: { email: string; password: string } }) {
    if (input.password.length < 10)
      throw refuse('INVALID', 'the password needs at least 10 characters');
    if (this.users.some((user) => user.email === input.email))
      throw refuse('CONFLICT', `${input.email} has an account`);
    const user = this.addUser(input.email, input.password);
    return {
      token: this.session(user),
      expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
      viewer: this.#viewer(user, 'SESSION'),
    };
  }
  signIn({ input }: { input: { email: string; password: string } }) {
    const user = this.users.find(
      (one) => one.email === input.email && one.password === input.password,
    );
    if (!user) throw refuse('UNAUTHENTICATED', 'wrong email or password');
    return {
      token: this.session(user),
      expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
      viewer: this.#viewer(user, 'SESSION'),
    };
  }
  signOutEverywhere(_args: unknown, context: Context): boolean {
    const user = this.#user(context);
    for (const [token, owner] of this.sessions) if (owner === user) this.sessions.delete(token);
    return true;
  }
  createTenant({ input }: { input: { slug: string; name: string | null } }, context: Context) {
    if (this.tenantMap.has(input.slug)) throw refuse('CONFLICT', `the name ${input.slug} is taken`);
    return this.addTenant(input.slug, [[this.#user(context), 'OWNER']]);
  }
  addMember({ input }: { input: { tenant: string; email: string; role: Role } }, context: Context) {
    const tenant = this.#tenant(input.tenant, context, true);
    const user = this.users.find((one) => one.email === input.email);
    if (!user) throw refuse('NOT_FOUND', `nobody signed up as ${input.email}`);
    tenant.roles.set(user, input.role);
    return tenant.member(user, input.role);
  }
  setMemberRole = this.addMember.bind(this);
  removeMember({ input }: { input: { tenant: string; email: string } }, context: Context): boolean {
    const tenant = this.#tenant(input.tenant, context, true);
    for (const user of tenant.roles.keys())
      if (user.email === input.email) return tenant.roles.delete(user);
    throw refuse('NOT_FOUND', `${input.email} not found`);
  }
  createApiToken(
    {
      input,
    }: { input: { tenant: string; name: string; role: Role; expiresInDays: number | null } },
    context: Context,
  ) {
    const user = this.#user(context);
    const tenant = this.#tenant(input.tenant, context, true);
    const secret = `bh_${newId('secret')}`;
    const expiresAt =
      input.expiresInDays === null
        ? null
        : new Date(Date.now() + input.expiresInDays * 86_400_000).toISOString();
    const token = {
      id: newId('k'),
      name: input.name,
      role: input.role,
      prefix: secret.slice(0, 6),
      createdAt: new Date().toISOString(),
      expiresAt,
      lastUsedAt: null,
      secret,
      user,
    };
    tenant.tokenList.push(token);
    return { secret, token };
  }
  revokeApiToken({ input }: { input: { tenant: string; id: string } }, context: Context): boolean {
    const { tokenList } = this.#tenant(input.tenant, context, true);
    tokenList.splice(
      tokenList.findIndex((token) => token.id === input.id),
      1,
    );
    return true;
  }
  setQuota(
    { input }: { input: { tenant: string; resource: string; limit: number } },
    context: Context,
  ) {
    if (!this.#user(context).operator) throw refuse('FORBIDDEN', 'only operators may set quotas');
    const tenant = this.#tenant(input.tenant, context);
    if (!tenant.limits.has(input.resource))
      throw refuse('INVALID', `there is no resource ${input.resource}`);
    tenant.limits.set(input.resource, input.limit);
    return tenant.quota();
  }
  createApp({ input }: { input: { tenant: string; name: string } }, context: Context): FakeApp {
    const tenant = this.#tenant(input.tenant, context, true);
    if (!/^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$/.test(input.name))
      throw refuse('INVALID', `"${input.name}" is no name for an app`);
    if (tenant.appMap.has(input.name)) throw refuse('CONFLICT', `the name ${input.name} is taken`);
    if (tenant.appMap.size >= (tenant.limits.get('apps') ?? 0))
      throw refuse('QUOTA_EXCEEDED', 'apps: 5 of 5 used');
    const app = new FakeApp(this, tenant, input.name);
    tenant.appMap.set(input.name, app);
    tenant.audit(this.#user(context), 'app.create', input.name);
    return app;
  }
  destroyApp({ input }: { input: { tenant: string; app: string } }, context: Context): FakeApp {
    const app = this.#app(input.tenant, input.app, context, true);
    app.state = 'DELETING';
    setTimeout(() => this.tenantMap.get(input.tenant)?.appMap.delete(input.app), 100);
    return app;
  }
  setConfig(
    {
      input,
    }: { input: { tenant: string; app: string; vars: { name: string; value: string | null }[] } },
    context: Context,
  ) {
    const app = this.#app(input.tenant, input.app, context, true);
    let changed = false;
    for (const { name, value } of input.vars) {
      changed ||= (app.vars.get(name) ?? null) !== value;
      if (value === null) app.vars.delete(name);
      else app.vars.set(name, value);
    }
    const deployment = changed && app.currentRelease() ? this.#begin(app, context, 'CONFIG') : null;
    return { app, deployment };
  }
  deploy(
    {
      input,
    }: {
      input: {
        tenant: string;
        app: string;
        image: string;
        processes: FakeProcess[] | null;
        description: string | null;
        strategy: StrategyInput | null;
      };
    },
    context: Context,
  ) {
    const app = this.#app(input.tenant, input.app, context, true);
    if (input.image.includes('greedy'))
      throw refuse('QUOTA_EXCEEDED', 'memoryMiB: needs 8192, 4096 free');
    const { image, processes, description, strategy } = input;
    return this.#begin(app, context, 'DEPLOY', image, processes, description, strategy);
  }
  scale(
    {
      input,
    }: { input: { tenant: string; app: string; formation: { process: string; count: number }[] } },
    context: Context,
  ) {
    const app = this.#app(input.tenant, input.app, context, true);
    for (const { process, count } of input.formation) {
      const known = app.processList.find((one) => one.name === process);
      if (!known) throw refuse('INVALID', `${app.name} has no process ${process}`);
      known.count = count;
    }
    return this.#begin(app, context, 'SCALE');
  }
  resize = (
    {
      input,
    }: { input: { tenant: string; app: string; process: string; memoryMiB: number | null } },
    context: Context,
  ) => {
    const app = this.#app(input.tenant, input.app, context, true);
    const known = app.processList.find((one) => one.name === input.process);
    if (!known) throw refuse('INVALID', `${app.name} has no process ${input.process}`);
    known.memoryMiB = input.memoryMiB ?? known.memoryMiB;
    return this.#begin(app, context, 'RESIZE');
  };
  restart = ({ input }: { input: { tenant: string; app: string } }, context: Context) =>
    this.#begin(this.#app(input.tenant, input.app, context, true), context, 'RESTART');
  promote(
    { input }: { input: { tenant: string; app: string; deployment: string; step: number | null } },
    context: Context,
  ): FakeDeployment {
    this.#app(input.tenant, input.app, context, true);
    const deployment = this.deployment({ id: input.deployment }, context);
    if (deployment.pause === null) throw refuse('CONFLICT', 'nothing to promote: it has succeeded');
    deployment.promote();
    return deployment;
  }
  abort(
    { input }: { input: { tenant: string; app: string; deployment: string } },
    context: Context,
  ): FakeDeployment {
    this.#app(input.tenant, input.app, context, true);
    const deployment = this.deployment({ id: input.deployment }, context);
    if (deployment.status !== 'RUNNING') throw refuse('CONFLICT', 'nothing to abort: it is over');
    deployment.abort(this.#user(context).email);
    return deployment;
  }
  rollback(
    { input }: { input: { tenant: string; app: string; version: number | null } },
    context: Context,
  ) {
    const app = this.#app(input.tenant, input.app, context, true);
    const version = input.version ?? (app.currentRelease()?.version ?? 0) - 1;
    const old = app.releaseList.find((release) => release.version === version);
    if (!old) throw refuse('NOT_FOUND', `release v${String(version)} not found`);
    return this.#begin(
      app,
      context,
      'ROLLBACK',
      old.image,
      null,
      `Roll back to v${String(version)}`,
    );
  }
  stopApp = ({ input }: { input: { tenant: string; app: string } }, context: Context) =>
    this.#begin(this.#app(input.tenant, input.app, context, true), context, 'STOP');
  startApp = ({ input }: { input: { tenant: string; app: string } }, context: Context) =>
    this.#begin(this.#app(input.tenant, input.app, context, true), context, 'START');

  pauseApp = ({ input }: AppOrder, context: Context) => {
    const app = this.#app(input.tenant, input.app, context, true);
    if (app.latestDeployment()?.status === 'RUNNING')
      throw refuse('CONFLICT', `a deployment of ${app.name} is on its way; pause when it is over`);
    for (const instance of app.instanceList) hold(instance, true);
    return app;
  };
  resumeApp = ({ input }: AppOrder, context: Context) => {
    const app = this.#app(input.tenant, input.app, context, true);
    for (const instance of app.instanceList) hold(instance, false);
    return app;
  };
  pauseInstance = (order: InstanceOrder, context: Context) =>
    hold(this.#instance(order, context), true);
  resumeInstance = (order: InstanceOrder, context: Context) =>
    hold(this.#instance(order, context), false);
  restartInstance = (order: InstanceOrder, context: Context) => this.#replace(order, context);
  deleteInstance = (order: InstanceOrder, context: Context) => this.#replace(order, context);

  #replace(order: InstanceOrder, context: Context): Instance {
    const instance = this.#instance(order, context);
    const app = this.#app(order.input.tenant, order.input.app, context, true);
    app.instanceList = app.instanceList.map((one) =>
      one === instance ? { ...one, id: newId('i') } : one,
    );
    return instance;
  }

  #instance({ input }: InstanceOrder, context: Context): Instance {
    const app = this.#app(input.tenant, input.app, context, true);
    const found = app.instanceList.find(({ id }) => id === input.instance);
    if (!found) throw refuse('NOT_FOUND', `instance ${input.instance} not found`);
    return found;
  }

  #begin(
    app: FakeApp,
    context: Context,
    kind: DeploymentKind,
    image?: string,
    processes: FakeProcess[] | null = null,
    description: string | null = null,
    strategy: StrategyInput | null = null,
  ) {
    const by = this.#user(context);
    const deployment = new FakeDeployment(app, kind, by.email, {
      image: image ?? null,
      processes,
      description,
      strategy,
    });
    this.deploymentMap.set(deployment.id, deployment);
    app.deploymentList.unshift(deployment);
    app.tenant.audit(by, `app.${kind.toLowerCase()}`, app.name);
    return deployment;
  }

  async *deploymentProgress({ id }: { id: string }, context: Context) {
    const deployment = this.deployment({ id }, context);
    yield { deploymentProgress: deployment };
    if (deployment.status !== 'RUNNING') return;
    for await (const _ of on(this.changed, id)) {
      yield { deploymentProgress: deployment };
      if (deployment.status !== 'RUNNING') return;
    }
  }

  #changed<Input extends Place, Answer>(work: (app: FakeApp, input: Input) => Answer) {
    return ({ input }: { input: Input }, context: Context): Answer =>
      work(this.#app(input.tenant, input.app, context, true), input);
  }
  exec = this.#changed((app, input: RunInput) => this.remote.exec(app, input));
  runTask = this.#changed((app, input: RunInput) => this.remote.runTask(app, input));
  attachTask = this.#changed((app, input: Place) => this.remote.attachTask(app, input));
  stopTask = this.#changed((app, input: Place) => this.remote.stopTask(app, input));
  copyFromInstance = this.#changed((app, input: Place & { path: string }) =>
    this.remote.copy(app, 'copy-out', input),
  );
  copyToInstance = this.#changed((app, input: Place & { path: string }) =>
    this.remote.copy(app, 'copy-in', input),
  );
  forwardPort = this.#changed((app, input: Place & { port: number }) =>
    this.remote.forwardPort(app, input),
  );
  instanceChanges = (args: Place, context: Context) =>
    this.remote.instanceChanges(this.#app(args.tenant, args.app, context), args);
  /** One root field for the query and the subscription of that name; graphql-js tells us which. */
  usage(args: Place, context: Context, info: { operation: { operation: string } }) {
    const app = this.#app(args.tenant, args.app, context);
    return info.operation.operation === 'query' ? this.remote.usage(app) : this.#followUsage(app);
  }
  async *#followUsage(app: FakeApp) {
    for (;;) {
      yield { usage: this.remote.usage(app) };
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  logPage(
    args: FakeLogArguments & { first?: number | null; last?: number | null; after?: string | null },
    context: Context,
  ) {
    const kept = this.#lines(args, context);
    const end = this.#app(args.tenant, args.app, context).lines.at(-1)?.cursor ?? '0';
    if (args.last != null)
      return { lines: args.last === 0 ? [] : kept.slice(-args.last), end, more: false };
    const rest = kept.filter((line) => line.cursor > (args.after ?? ''));
    const lines = rest.slice(0, args.first ?? this.logPageLines);
    const more = lines.length < rest.length;
    return { lines, end: (more ? lines.at(-1)?.cursor : undefined) ?? end, more };
  }
  #lines(args: FakeLogArguments, context: Context) {
    const is = <T>(wanted: T | null | undefined, value: T) => wanted == null || wanted === value;
    return this.#app(args.tenant, args.app, context).lines.filter(
      (line) =>
        is(args.process, line.process) &&
        is(args.instance, line.instance) &&
        !(args.since && line.at < args.since) &&
        !(args.until && line.at > args.until),
    );
  }
  async *logs(args: FakeLogArguments & { after?: string | null }, context: Context) {
    const app = this.#app(args.tenant, args.app, context);
    const live = on(this.changed, `logs:${app.id}`);
    const wanted = () =>
      this.#lines(args, context).filter((line) => line.cursor > (args.after ?? ''));
    let sent = 0;
    do {
      const lines = wanted();
      for (; sent < lines.length; sent += 1) yield { logs: lines[sent] };
    } while (!(await live.next()).done);
  }
}

interface Place {
  readonly tenant: string;
  readonly app: string;
  readonly instance?: string | null;
}

interface FakeLogArguments {
  readonly tenant: string;
  readonly app: string;
  readonly process?: string | null;
  readonly instance?: string | null;
  readonly since?: string | null;
  readonly until?: string | null;
}
