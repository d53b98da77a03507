/**
 * A platform for service tests: real PostgreSQL, real nats-server, the real controllers, and agents
 * and edges that only pretend to run things.
 */
import { randomUUID } from 'node:crypto';
import type { ImageConfig } from '@bulkhead/protocol';
import type { Caller, InstanceRow, StrategyRequest, TenantTx } from '@bulkhead/tenancy';
import { createUser } from '@nats-io/nkeys';
import { createTestDatabase } from '@bulkhead/tenancy/testing';
import type { TestDatabase } from '@bulkhead/tenancy/testing';
import type { Permission } from '@bulkhead/tenancy';
import { eventually } from '../../testing/eventually.ts';
import { TestNatsServer } from '../../testing/nats-server.ts';
import { NatsLink } from '../../nats/nats.ts';
import { Controllers } from '../controllers.ts';
import type { ControllersOptions } from '../controllers.ts';
import { SimAgent } from './sim-agent.ts';
import { SimEdge } from './sim-edge.ts';

const password = 'correct horse battery';
const config: ImageConfig = {
  entrypoint: [],
  cmd: ['/hello'],
  env: [],
  workingDir: '/',
  user: '',
  exposedPorts: [8080],
  stopSignal: null,
};

/** A digest that is the same for the same name. */
export function digestOf(image: string): string {
  return `sha256:${Buffer.from(image).toString('hex').padEnd(64, '0').slice(0, 64)}`;
}

/** One replica of the API, as far as the controllers are concerned. */
export interface Replica {
  readonly controllers: Controllers;
  readonly nats: NatsLink;
  readonly errors: unknown[];
  stop(): Promise<void>;
}

export class Platform {
  readonly agents: SimAgent[] = [];
  readonly edges: SimEdge[] = [];
  readonly replicas: Replica[] = [];
  caller!: Caller;

  private constructor(
    readonly db: TestDatabase,
    readonly natsServer: TestNatsServer,
  ) {}

  /** Starts everything with one tenant `demo`, one replica, and as many nodes and edges as asked for. */
  static async start(options: { nodes?: number; edges?: number; replicas?: number } = {}) {
    const platform = new Platform(await createTestDatabase(), await TestNatsServer.start());
    try {
      await platform.#start(options);
      return platform;
    } catch (error) {
      await platform.stop();
      throw error;
    }
  }

  async #start(options: { nodes?: number; edges?: number; replicas?: number }): Promise<void> {
    const { tenancy } = this.db;
    await tenancy.ensureUser({ email: 'ada@example.org', password, name: 'Ada' });
    await tenancy.ensureTenant({ slug: 'demo', ownerEmail: 'ada@example.org' });
    const signedIn = await tenancy.signIn({
      email: 'ada@example.org',
      password,
      address: '127.0.0.1',
    });
    this.caller = signedIn.caller;
    for (let index = 0; index < (options.replicas ?? 1); index++) await this.addReplica();
    for (let index = 0; index < (options.nodes ?? 1); index++) await this.addNode();
    for (let index = 0; index < (options.edges ?? 1); index++) {
      this.edges.push(await SimEdge.start(this.natsServer.url, `edge${index + 1}`));
    }
    await eventually('the nodes are ready', async () => {
      const ready = await this.sql((prisma) => prisma.node.count({ where: { state: 'ready' } }));
      return ready === this.agents.length;
    });
  }

  async stop(): Promise<void> {
    await Promise.all(this.replicas.map((replica) => replica.stop()));
    await Promise.all([...this.agents, ...this.edges].map((each) => each.stop()));
    await this.natsServer.dispose();
    await this.db.drop();
  }

  async addReplica(over: Partial<ControllersOptions> = {}): Promise<Replica> {
    const nats = new NatsLink({
      url: this.natsServer.url,
      credsFile: null,
      logsMaxBytes: 1_048_576,
      log: () => undefined,
      checkEveryMs: 100,
    });
    nats.start();
    const errors: unknown[] = [];
    const quiet = () => undefined;
    const logger = { info: quiet, warn: quiet, error: (detail: unknown) => errors.push(detail) };
    const controllers = new Controllers({
      tenancy: this.db.tenancy,
      nats,
      logger: logger as unknown as ControllersOptions['logger'],
      platformDomain: 'localhost',
      ...over,
    });
    controllers.start();
    await nats.whenReady();
    const stop = async () => {
      await controllers.stop();
      await nats.stop();
    };
    const replica = { controllers, nats, errors, stop };
    this.replicas.push(replica);
    return replica;
  }

  async addNode(): Promise<SimAgent> {
    const name = `node${this.agents.length + 1}`;
    const agent = await SimAgent.start(this.natsServer.url, async (sealingKey) => {
      const node = await this.db.tenancy.registerNode({
        name,
        sealingKey,
        natsUser: createUser().getPublicKey(),
        registrySecret: randomUUID() + randomUUID(),
      });
      return node.id;
    });
    this.agents.push(agent);
    return agent;
  }

  sql<T>(
    work: (
      prisma: Parameters<Parameters<TestDatabase['tenancy']['platform']>[0]>[0]['prisma'],
    ) => Promise<T>,
  ): Promise<T> {
    return this.db.tenancy.platform((tx) => work(tx.prisma));
  }

  run<T>(permission: Permission, work: (tx: TenantTx) => Promise<T>): Promise<T> {
    return this.db.tenancy.run(this.caller, { tenant: 'demo', permission }, work);
  }

  /** Makes the app when it is new, and deploys `image`, which is a name and a fate. */
  async deploy(
    app: string,
    image = 'hello:1',
    processes?: Parameters<TenantTx['deployments']['deploy']>[0]['processes'],
    strategy?: StrategyRequest,
  ) {
    await this.run('app.create', (tx) => tx.apps.create({ name: app })).catch(() => undefined);
    const [name] = image.split(':');
    return this.run('app.deploy', (tx) =>
      tx.deployments.deploy({
        app,
        image: {
          reference: image,
          repository: `127.0.0.1:5000/demo/${name}`,
          digest: digestOf(image),
          size: 1000,
          config,
        },
        ...(processes === undefined ? {} : { processes }),
        ...(strategy === undefined ? {} : { strategy }),
      }),
    );
  }

  fate(image: string, fate: Parameters<SimAgent['fates']['set']>[1]): void {
    for (const agent of this.agents) agent.fates.set(digestOf(image), fate);
  }

  /** Waits for the end of a deployment and answers it. */
  async ended(id: string) {
    return eventually(`deployment ${id} ends`, async () => {
      const row = await this.sql((prisma) =>
        prisma.deployment.findUnique({
          where: { id },
          include: { events: { orderBy: { id: 'asc' } } },
        }),
      );
      return row && row.status !== 'running' ? row : null;
    });
  }

  async succeeded(deployment: { id: string }) {
    const ended = await this.ended(deployment.id);
    if (ended.status !== 'succeeded') {
      throw new Error(`${ended.status}: ${JSON.stringify(ended.failure)}`);
    }
    return ended;
  }

  /** Rows of an app's instances that are not gone. */
  instances(app: string): Promise<InstanceRow[]> {
    return this.sql((prisma) =>
      prisma.instance.findMany({
        where: { app: { name: app }, goneAt: null },
        orderBy: { id: 'asc' },
      }),
    );
  }

  async used(resource: string): Promise<number> {
    const usage = await this.run('tenant.read', (tx) => tx.quota.usage());
    return usage.find((each) => each.resource === resource)?.used ?? 0;
  }

  get edge(): SimEdge {
    const [edge] = this.edges;
    if (!edge) throw new Error('no edge');
    return edge;
  }

  get agent(): SimAgent {
    const [agent] = this.agents;
    if (!agent) throw new Error('no agent');
    return agent;
  }
}
