import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeSealingKeyPair } from '@bulkhead/protocol';
import { nodePermissions } from '@bulkhead/protocol/bus-access';
import type { Caller, Tenancy } from '@bulkhead/tenancy';
import { makeImage, makeUser } from '@bulkhead/tenancy/testing';
import { createUser } from '@nats-io/nkeys';
import { until } from '../e2e/support/until.ts';
import type { Bench } from './fixture.ts';
import type { Host, Order } from './fleet/agents.ts';
import { startControlPlane, type ControlPlane } from './fleet/control-plane.ts';
import { asSuperuser, pgbench, topStatements } from './fleet/postgres.ts';
import { cpuSeconds, residentMiB } from './fleet/usage.ts';
import type { Result } from './measure.ts';

const size = {
  nodes: Number(process.env['FLEET_NODES'] ?? 1000),
  instances: Number(process.env['FLEET_INSTANCES'] ?? 100_000),
  steadySeconds: Number(process.env['FLEET_STEADY_SECONDS'] ?? 120),
};
const perApp = 50;
const appsPerTenant = 100;
const appPort = 16_088;
/** Deploys asked for at once. */
const callers = 4;
const deadlineMs = 3_600_000;
/** Between two looks at how far it has come; each counts the whole fleet. */
const lookMs = 1_000;

const say = (text: string) => process.stdout.write(`  ${text}\n`);

/**
 * A fleet without containers: the API as it is built, PostgreSQL and NATS as production has them, and
 * a process with the agents of all nodes, whose runtime keeps containers in memory. All of it shares
 * this machine, so the agents' own work is in every time.
 */
export async function fleetBench(bench: Bench): Promise<Result[]> {
  const ends: (() => Promise<unknown>)[] = [];
  const endAll = async () => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  bench.finally(endAll);
  const dir = join(bench.dir, 'fleet');
  await mkdir(dir, { mode: 0o711 });
  // Hosts sync what they are told; a thousand of them would wait for one disk.
  const hostsDir = await mkdtemp('/dev/shm/bulkhead-fleet-');
  ends.push(() => rm(hostsDir, { recursive: true, force: true }));
  try {
    await listenForApps(ends);
    const plane = await startControlPlane(dir, ends);
    const agents = startAgents(ends);
    const hosts = await registerNodes(plane);
    const maxInstances = Math.ceil((size.instances / size.nodes) * 1.25);
    const { natsUrl } = plane;
    await agents.order({ do: 'start', dir: hostsDir, natsUrl, hosts, maxInstances });
    await until('all nodes are ready', async () => {
      const ready = await count(plane, `SELECT count(*) FROM "Node" WHERE "state" = 'ready'`);
      return ready === size.nodes;
    });
    const apps = await makeApps(plane.tenancy);
    say(`${size.nodes} nodes are ready, ${apps.length} apps are made`);
    const filled = await fill(plane, agents.pid, apps);
    const steady = await restAndMeasure(plane, agents.pid);
    const recovered = await loseSome(plane, agents, hosts);
    const tps = await pgbench(plane.postgres, { clients: 8, seconds: 10 }, dir);
    say(`pgbench: ${tps.toFixed(0)} simple updates a second`);
    const heartbeats = size.nodes / 2;
    return [
      {
        bench: 'fleet',
        work: `${size.instances} instances on ${size.nodes} nodes: from the first deploy until all are placed, told to their agents and reported ready`,
        rival: 'pgbench, as many simple updates on the same PostgreSQL',
        unit: 's',
        ours: [filled],
        theirs: [size.instances / tps],
      },
      {
        bench: 'fleet',
        work: `the same at rest: CPU of API, PostgreSQL and NATS (${steady.parts})`,
        rival: 'what this machine has',
        unit: '% of a core',
        ours: [steady.percent],
        theirs: [200],
      },
      {
        bench: 'fleet',
        work: 'the same at rest: messages through NATS, in and out',
        rival: 'heartbeats alone',
        unit: 'messages/s',
        ours: [steady.messages],
        theirs: [2 * heartbeats],
      },
      {
        bench: 'fleet',
        work: `${recovered.nodes} nodes with ${recovered.instances} instances fall silent: from when they are believed lost until all serve elsewhere`,
        rival: 'the target',
        unit: 's',
        ours: [recovered.seconds],
        theirs: [10],
      },
    ];
  } finally {
    await endAll();
  }
}

/** What every instance listens on: its agent looks whether it does. Not among the agents, who are busy. */
async function listenForApps(ends: (() => Promise<unknown>)[]): Promise<void> {
  const server = createServer((socket) => socket.on('error', () => undefined).resume());
  server.listen(appPort, '127.0.0.1', 4096);
  await once(server, 'listening');
  ends.push(async () => server.close());
}

interface Agents {
  readonly pid: number;
  order(order: Order): Promise<void>;
}

function startAgents(ends: (() => Promise<unknown>)[]): Agents {
  const child = fork(join(import.meta.dirname, 'fleet/agents.ts'), {
    execArgv: [...process.execArgv, '--max-old-space-size=8192'],
  });
  ends.push(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return {
    pid: child.pid!,
    order: async (order) => {
      child.send(order);
      const [answer] = (await Promise.race([
        once(child, 'message'),
        once(child, 'exit').then(() => [{ why: 'the agents ended' }]),
      ])) as [{ why: string | null }];
      if (answer.why !== null) throw new Error(answer.why);
    },
  };
}

async function registerNodes({ tenancy, credsOf }: ControlPlane): Promise<Host[]> {
  const hosts: Host[] = [];
  for (let index = 1; index <= size.nodes; index++) {
    const { publicKey, privateKey } = await makeSealingKeyPair();
    const name = `node-${index}`;
    const { id } = await tenancy.registerNode({
      ...{ name, sealingKey: publicKey, natsUser: createUser().getPublicKey() },
      registrySecret: randomUUID() + randomUUID(),
    });
    const creds = await credsOf(id, nodePermissions(id));
    hosts.push({ id, name, sealingKey: privateKey as Host['sealingKey'], creds });
  }
  return hosts;
}

interface App {
  readonly tenant: string;
  readonly name: string;
  readonly owner: Caller;
  readonly instances: number;
}

/** Tenants with what quota they need, and apps that run nothing yet. */
async function makeApps(tenancy: Tenancy): Promise<App[]> {
  const operator = await makeUser(tenancy, 'operator', { operator: true });
  const owner = await makeUser(tenancy, 'owner');
  const apps: App[] = [];
  let left = size.instances;
  for (let number = 1; left > 0; number++) {
    const tenant = `tenant-${number}`;
    await tenancy.asUser(owner, (tx) => tx.tenants.create({ slug: tenant }));
    const resources = ['apps', 'instances', 'cpuMillis', 'memoryMiB', 'diskMiB'];
    await tenancy.asOperator(operator, { permission: 'quota.set' }, async (tx) => {
      for (const resource of resources)
        await tx.quota.setLimit({ tenant, resource, limit: 1_000_000_000 });
    });
    for (let app = 1; app <= appsPerTenant && left > 0; app++) {
      const name = `app-${app}`;
      await tenancy.run(owner, { tenant, permission: 'app.create' }, (tx) =>
        tx.apps.create({ name }),
      );
      apps.push({ tenant, name, owner, instances: Math.min(perApp, left) });
      left -= perApp;
    }
  }
  return apps;
}

/** Deploys all apps, and answers the seconds until all of it runs and is known to run. */
async function fill(plane: ControlPlane, agents: number, apps: readonly App[]): Promise<number> {
  const { tenancy } = plane;
  const image = makeImage();
  const begin = performance.now();
  const progress = follow(plane, agents, begin);
  const waiting = [...apps];
  await Promise.all(
    Array.from({ length: callers }, async () => {
      for (let app = waiting.shift(); app; app = waiting.shift()) {
        const { name, owner, tenant, instances } = app;
        await tenancy.run(owner, { tenant, permission: 'app.deploy' }, (tx) =>
          tx.deployments.deploy({
            ...{ app: name, image },
            // Looked at once, until it listens: to look again and again is each host's own work, and
            // all hosts here have one loopback.
            processes: [{ name: 'web', port: appPort, count: instances, healthCheck: null }],
            // The last of them waits for all others.
            strategy: { kind: 'rolling', progressSeconds: 3600 },
          }),
        );
      }
    }),
  );
  say(`deploys are accepted after ${seconds(begin)} s`);
  await until(
    'all instances are ready',
    async () => {
      await delay(lookMs);
      return (await count(plane, servingSql)) >= size.instances;
    },
    deadlineMs,
  );
  const filled = seconds(begin);
  say(`all are ready after ${filled} s`);
  await until(
    'all deployments have ended',
    async () => {
      await delay(500);
      return (await count(plane, unfinishedSql)) === 0;
    },
    deadlineMs,
  );
  say(`all deployments have ended and all is published after ${seconds(begin)} s`);
  progress.stop();
  for (const line of await topStatements(plane.postgres)) say(line);
  return filled;
}

const servingSql = `SELECT count(*) FROM "Instance" i JOIN "Node" n ON n."id" = i."nodeId"
  WHERE i."goneAt" IS NULL AND i."state" = 'ready' AND i."desired" = 'running'
    AND n."state" <> 'lost'`;
const unfinishedSql = `SELECT (SELECT count(*) FROM "Deployment" WHERE "status" = 'running')
  + (SELECT count(*) FROM "Outbox")`;

const seconds = (begin: number) => Math.round((performance.now() - begin) / 100) / 10;

async function count({ postgres }: ControlPlane, sql: string): Promise<number> {
  const found = await asSuperuser(postgres, (client) => client.query(sql));
  return Number(Object.values((found.rows as Record<string, unknown>[])[0] ?? {})[0]);
}

interface Spent {
  readonly at: number;
  readonly api: number;
  readonly postgres: number;
  readonly nats: number;
  readonly agents: number;
}

async function spent({ pids }: ControlPlane, agents: number): Promise<Spent> {
  return {
    at: performance.now(),
    api: await cpuSeconds(pids.api),
    postgres: await cpuSeconds(pids.postgres, true),
    nats: await cpuSeconds(pids.nats),
    agents: await cpuSeconds(agents),
  };
}

function describeSpent(before: Spent, after: Spent) {
  const elapsed = (after.at - before.at) / 1000;
  const percent = (name: 'api' | 'postgres' | 'nats' | 'agents') =>
    ((after[name] - before[name]) / elapsed) * 100;
  const of = {
    ...{ api: percent('api'), postgres: percent('postgres'), nats: percent('nats') },
    agents: percent('agents'),
  };
  const text = (name: keyof typeof of) => `${name} ${of[name].toFixed(0)} %`;
  return { ...of, text: [text('api'), text('postgres'), text('nats'), text('agents')].join(', ') };
}

/** Says every few seconds how far it has come, and who works. */
function follow(plane: ControlPlane, agents: number, begin: number) {
  let stopped = false;
  const run = async () => {
    let before = await spent(plane, agents);
    while (!stopped) {
      await delay(10 * lookMs, undefined, { ref: false });
      if (stopped) return;
      const states = await asSuperuser(plane.postgres, (client) =>
        client.query<{ state: string; count: number }>(
          `SELECT "state"::text, count(*)::int AS "count" FROM "Instance" WHERE "goneAt" IS NULL
           GROUP BY 1 UNION ALL SELECT 'outbox ' || "kind", count(*)::int FROM "Outbox" GROUP BY 1`,
        ),
      );
      const after = await spent(plane, agents);
      const counts = states.rows.map(({ state, count }) => `${count} ${state}`).join(', ');
      say(`${seconds(begin)} s: ${counts}; CPU ${describeSpent(before, after).text}`);
      before = after;
    }
  };
  run().catch((error: unknown) => say(`progress cannot be told: ${String(error)}`));
  return {
    stop: () => {
      stopped = true;
    },
  };
}

async function restAndMeasure(plane: ControlPlane, agents: number) {
  await delay(5000);
  const [before, carriedBefore] = [await spent(plane, agents), await plane.carried()];
  await delay(size.steadySeconds * 1000);
  const [after, carriedAfter] = [await spent(plane, agents), await plane.carried()];
  const used = describeSpent(before, after);
  const messages =
    (carriedAfter.messages - carriedBefore.messages) / ((after.at - before.at) / 1000);
  const memory = await Promise.all([plane.pids.api, plane.pids.nats, agents].map(residentMiB));
  const [api, nats, hosts] = memory.map((each) => each.toFixed(0));
  say(`at rest: CPU ${used.text}; ${messages.toFixed(0)} messages/s`);
  for (const line of await topStatements(plane.postgres)) say(line);
  say(`memory: API ${api} MiB, NATS ${nats} MiB, agents ${hosts} MiB`);
  return {
    percent: used.api + used.postgres + used.nats,
    parts: `${used.api.toFixed(1)}, ${used.postgres.toFixed(1)} and ${used.nats.toFixed(1)} %`,
    messages,
  };
}

async function loseSome(plane: ControlPlane, agents: Agents, hosts: readonly Host[]) {
  const lost = hosts.filter((_, index) => index % 10 === 5).map(({ id }) => id);
  const ids = lost.map((id) => `'${id}'`).join();
  const instances = await count(
    plane,
    `SELECT count(*) FROM "Instance" WHERE "goneAt" IS NULL AND "nodeId" IN (${ids})`,
  );
  const begin = performance.now();
  await agents.order({ do: 'lose', ids: lost });
  say(`${lost.length} nodes with ${instances} instances are lost`);
  await until(
    'they are believed lost',
    async () =>
      (await count(plane, `SELECT count(*) FROM "Node" WHERE "state" = 'lost'`)) === lost.length,
    120_000,
  );
  const believed = performance.now();
  say(`believed after ${seconds(begin)} s`);
  const progress = follow(plane, agents.pid, begin);
  await until(
    'all serve elsewhere',
    async () => {
      await delay(lookMs);
      return (await count(plane, servingSql)) >= size.instances;
    },
    deadlineMs,
  );
  const recovered = seconds(believed);
  progress.stop();
  for (const line of await topStatements(plane.postgres)) say(line);
  say(`all serve elsewhere ${recovered} s later`);
  return { nodes: lost.length, instances, seconds: recovered };
}
