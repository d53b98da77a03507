/**
 * A fleet of three hosts with two replicas of the API and two edges, and what must hold of it after
 * whatever happened: seen from outside, by what the API says, what runs on each host, and what the
 * edges answer.
 */
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { startPlatform, stopPlatform } from '../../deploy/platform.ts';
import { load, visit } from './client.ts';
import { ServiceClock } from './clock.ts';
import { Host, controlAddress, makeBridge, removeBridge, runningIn } from './hosts.ts';
import { Platform, e2eOptions } from './platform.ts';
import { TenantFixture } from './tenant.ts';
import { until } from './until.ts';

export const fleetOptions = {
  ...e2eOptions,
  stateDir: '/tmp/bulkhead-e2e-fleet',
  portBase: 16_200,
  apiReplicas: 2,
  edges: 2,
  listen: controlAddress,
  node: {
    ...{ cgroup: 'bhe2ef', nftTable: 'bhe2ef', vethPrefix: 'bhf', network: '10.252.0.0/16' },
    ...{ idBase: 3_221_225_472, diskPoolMiB: 4096 },
  },
};
const { root, stateDir, portBase } = fleetOptions;
/** Of each instance. */
const needs = { cpuMillis: 50, memoryMiB: 64, diskMiB: 256 };
const write = () => undefined;

export interface NodeView {
  id: string;
  name: string;
  state: string;
  network: string;
  instances: { nodes: { id: string; app: string }[] };
}

export class Fleet {
  readonly second = new Host(2, portBase);
  readonly third = new Host(3, portBase);
  readonly hosts = [this.second, this.third];
  /** Instances that each app should have. */
  readonly #wanted = new Map<string, number>();
  #platform: Platform | null = null;
  #tenant: TenantFixture | null = null;
  #image = '';

  async start(): Promise<void> {
    await stopPlatform({ root, stateDir, purge: true, write });
    for (const host of this.hosts) await host.destroy();
    await makeBridge();
    await startPlatform({ ...fleetOptions, write });
    this.#platform = await Platform.connect(fleetOptions);
    this.#tenant = await TenantFixture.create(this.platform.apiUrl);
    this.#image = await this.platform.push(this.tenant, 'hello', 'hello:1');
  }

  async stop(): Promise<void> {
    await this.#platform?.release();
    for (const host of this.hosts) await host.destroy();
    await stopPlatform({ root, stateDir, purge: true, write });
    await removeBridge();
    ServiceClock.sweep();
  }

  get platform(): Platform {
    if (this.#platform === null) throw new Error('the fleet was not started');
    return this.#platform;
  }
  get tenant(): TenantFixture {
    if (this.#tenant === null) throw new Error('the fleet was not started');
    return this.#tenant;
  }

  ask(query: string, variables = {}) {
    return this.platform.operator.ask(query, variables);
  }

  async nodes(): Promise<NodeView[]> {
    const { nodes } = await this.ask(`{ nodes(first: 10) { nodes { id name state network
      instances(first: 100) { nodes { id app } } } } }`);
    return nodes.nodes;
  }
  async node(name: string): Promise<NodeView> {
    const found = (await this.nodes()).find((each) => each.name === name);
    if (found === undefined) throw new Error(`there is no node ${name}`);
    return found;
  }
  stateOf(name: string, state: string, timeoutMs?: number): Promise<unknown> {
    const reached = async () => (await this.node(name)).state === state;
    return until(`${name} is ${state}`, reached, timeoutMs);
  }
  async token(): Promise<string> {
    const made = await this.ask(
      'mutation { createJoinToken(input: { ttlMinutes: 5 }) { secret } }',
    );
    return made.createJoinToken.secret;
  }
  change(mutation: string, name: string) {
    return this.ask(`mutation ($node: String!) { ${mutation}(input: { node: $node }) { id } }`, {
      node: name,
    });
  }

  /** Makes an app of that many instances and waits until they are ready. */
  async deploy(app: string, count: number): Promise<void> {
    await this.tenant.createApp(app);
    this.#wanted.set(app, count);
    await this.tenant.succeeded(await this.release(app));
  }
  /** A new release of an app, good unless told otherwise; gives the deployment's id. */
  release(
    app: string,
    more: { image?: string; command?: string[]; path?: string } = {},
  ): Promise<string> {
    const { image = this.#image, path = '/healthz', ...process } = more;
    const count = this.#wanted.get(app) ?? 1;
    const healthCheck = { kind: 'HTTP', path, intervalSeconds: 1 };
    return this.tenant.deploy(app, image, [
      { name: 'web', port: 8080, ...needs, count, healthCheck, ...process },
    ]);
  }
  async destroy(app: string): Promise<void> {
    await this.tenant.destroyApp(app);
    this.#wanted.delete(app);
  }

  /** Requests without pause through every edge; what failed is told by edge. */
  traffic(app: string) {
    const host = this.tenant.host(app);
    const loads = this.platform.edgePorts.map((port) => load(port, host, '/', { connections: 2 }));
    return { stop: () => Promise.all(loads.map((each) => each.stop())) };
  }

  /**
   * Waits until desired equals actual on every host and in NATS, no instance is on two, every app is
   * whole, the ledger is the sum of what there is, and each edge leads to all that is ready and to
   * nothing else; tells what does not hold.
   */
  async sound(): Promise<void> {
    let problems: string[] = [];
    await until('everything is as it should be', async () => {
      problems = await this.#problems();
      return problems.length === 0;
    }).catch((error: unknown) => {
      throw new Error(`not as it should be:\n${problems.join('\n')}`, { cause: error });
    });
  }

  async #problems(): Promise<string[]> {
    const problems: string[] = [];
    const nodes = await this.nodes();
    const placed = nodes.flatMap(({ instances }) => instances.nodes.map(({ id }) => id));
    if (new Set(placed).size !== placed.length) problems.push('an instance is on two nodes');
    const actual: [string, string[]][] = [
      ['node-1', runningIn(fleetOptions.node.cgroup)],
      ...this.hosts.map((host): [string, string[]] => [host.name, host.running()]),
    ];
    for (const [name, running] of actual) {
      const node = nodes.find((each) => each.name === name);
      // One that was removed runs on what it has, and nobody hears of it.
      if (node === undefined) continue;
      const ids = node.instances.nodes.map(({ id }) => id).sort();
      if (ids.join() !== running.join())
        problems.push(`${name} runs ${running.join(' ')} instead of ${ids.join(' ')}`);
    }
    for (const [app, count] of this.#wanted) {
      const instances = await this.tenant.instances(app);
      const ready = instances.filter(
        ({ state, desired }) => state === 'READY' && desired === 'RUNNING',
      );
      if (ready.length !== count || instances.length !== count)
        problems.push(`${app} has ${ready.length} ready of ${instances.length}, not ${count}`);
      const ids = ready.map(({ id }) => id).sort();
      for (const seen of await this.#behindEdges(app, 3 * count))
        if (seen.join() !== ids.join())
          problems.push(`an edge leads ${app} to ${seen.join(' ')} instead of ${ids.join(' ')}`);
    }
    const told = await this.platform.keysOf('desired').catch((error: unknown) => [String(error)]);
    const placedKeys = nodes.flatMap(({ id, instances }) =>
      instances.nodes.map((instance) => `${id}.${instance.id}`),
    );
    if (told.sort().join() !== placedKeys.sort().join())
      problems.push(`NATS tells nodes of ${told.join(' ')} instead of ${placedKeys.join(' ')}`);
    const all = [...this.#wanted.values()].reduce((sum, count) => sum + count, 0);
    const ledger = await this.tenant.quota();
    for (const [resource, each] of Object.entries({ instances: 1, ...needs }))
      if (ledger[resource] !== each * all)
        problems.push(`the ledger has ${ledger[resource]} ${resource}, not ${each * all}`);
    return problems;
  }

  /** Which instances answer through each edge, by what they say of themselves. */
  #behindEdges(app: string, visits: number): Promise<string[][]> {
    const host = this.tenant.host(app);
    const once = async (port: number) => {
      const { status, body } = await visit(port, host);
      return (
        /answered by instance <code>(\w+)</.exec(body)?.[1] ?? `${status}: ${body.slice(0, 50)}`
      );
    };
    return Promise.all(
      this.platform.edgePorts.map(async (port) => {
        const seen = new Set<string>();
        for (let visited = 0; visited < visits; visited++) seen.add(await once(port));
        return [...seen].sort();
      }),
    );
  }

  /** Directory of a service of the control plane, or of a host's agent. */
  serviceDir(name: string, of: Host | null = null): string {
    const [dir] = globSync(join(of?.stateDir ?? stateDir, 'service', name));
    if (dir === undefined) throw new Error(`there is no service ${name}`);
    return dir;
  }
}
