/**
 * The agent's process. `main.js` runs it until SIGTERM, which stops no container; `main.js destroy`
 * removes every container of this node and what the runtime set up on the host; `main.js doctor`
 * tells what this host can and cannot do; `main.js join` makes the host a node of a fleet.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createRuntime, type ContainerRuntime } from '@bulkhead/runtime';
import { pino, type Logger } from 'pino';
import { Agent } from './agent.ts';
import { Attendance } from './attendance.ts';
import { doctor, findMissingWalls } from './doctor.ts';
import { readIdentity } from './identity.ts';
import { joinFleet } from './join.ts';
import { lockDirectory } from './lock.ts';
import { readMembership } from './membership.ts';
import { AgentMetrics, serveMetrics } from './metrics.ts';
import { readSettings, type Settings } from './settings.ts';
import { openTunnels } from './tunnels.ts';

const version = '0.1.0';
/** A stop in good order takes this long at most, ms; being killed at any point is safe too. */
const stopDeadlineMs = 5000;

async function makeRuntime(
  settings: Settings,
  metrics: AgentMetrics,
  log: Logger,
): Promise<ContainerRuntime> {
  const stateDir = join(settings.NODE_DIR, 'runtime');
  // Mapped ids of the containers must be able to walk through, not to list.
  await mkdir(stateDir, { recursive: true, mode: 0o711 });
  return createRuntime({
    stateDir,
    cgroup: settings.AGENT_CGROUP,
    nftTable: settings.AGENT_NFT_TABLE,
    vethPrefix: settings.AGENT_VETH_PREFIX,
    network: settings.AGENT_NETWORK,
    idBase: settings.AGENT_ID_BASE,
    ...(settings.AGENT_DISK_POOL_MIB === undefined
      ? {}
      : { diskPoolMiB: settings.AGENT_DISK_POOL_MIB }),
    onEvent: (event) => {
      metrics.note(event);
      if (event.type === 'leak-removed' || event.type === 'firewall-healed')
        log.warn({ event }, 'the runtime put something right');
    },
    onProblem: (what, error) => {
      metrics.problems.inc();
      log.warn({ err: error }, `the runtime failed at ${what} and tries again`);
    },
    insecureRegistries: [settings.REGISTRY_HOST],
    registryAuthFile: join(settings.NODE_DIR, 'registry-auth.json'),
    pullDeadlineMs: settings.AGENT_PULL_SECONDS * 1000,
    imageWaterMarks: {
      highPercent: settings.AGENT_IMAGES_HIGH_PERCENT,
      lowPercent: settings.AGENT_IMAGES_LOW_PERCENT,
      maxBytes:
        settings.AGENT_IMAGES_MAX_MIB === undefined
          ? null
          : settings.AGENT_IMAGES_MAX_MIB * 1024 * 1024,
    },
  });
}

async function run(settings: Settings, log: Logger): Promise<void> {
  const identity = await readIdentity(settings.NODE_DIR);
  const membership = await readMembership(settings.NODE_DIR);
  // Before anything is made: what runs already goes on without us.
  const missingWalls = await findMissingWalls(settings);
  if (missingWalls.length > 0) log.warn({ missingWalls }, 'runs without walls, as it was told');
  const metrics = new AgentMetrics();
  const runtime = await makeRuntime(settings, metrics, log);
  const agent = new Agent({ settings, identity, runtime, version, missingWalls, metrics, log });
  // First: a port that is taken must be known before anything is started.
  await serveMetrics(settings.AGENT_METRICS_PORT, agent.metrics, () => agent.health());
  if (membership) {
    const { local, gate } = membership;
    const pairs = (['nats', 'registry', 'api'] as const).map((name) => ({
      from: local[name],
      to: gate[name],
    }));
    await openTunnels(pairs, join(settings.NODE_DIR, 'tls'), log);
  }
  await agent.start();
  const streams = membership?.streams ?? settings.FLEET_STREAMS;
  const attendance =
    streams === undefined
      ? null
      : new Attendance({ streams, nodeDir: settings.NODE_DIR, runtime, log });
  await attendance?.start();
  log.info({ node: identity.id, nodeName: identity.name }, 'the agent runs');

  let stopping = false;
  const stop = async (signal: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'stopping; containers go on running');
    await Promise.race([Promise.all([agent.stop(), attendance?.stop()]), delay(stopDeadlineMs)]);
    process.exit(0);
  };
  process.on('SIGTERM', (signal) => void stop(signal));
  process.on('SIGINT', (signal) => void stop(signal));
}

async function destroy(settings: Settings, log: Logger): Promise<void> {
  const runtime = await makeRuntime(settings, new AgentMetrics(), log);
  // It finds what there is to remove.
  await runtime.reconcile();
  await runtime.destroy();
  // They speak of containers that are no more; the desired state stays, for the next start.
  for (const folder of ['instances', 'logs']) {
    await rm(join(settings.NODE_DIR, folder), { recursive: true, force: true });
  }
  log.info('every container of this node is removed');
}

const usage = `Usage: bulkhead-agent [doctor [--json] | destroy]
       bulkhead-agent join TOKEN [--name NAME] [--address IPV4]
`;

/** A host that joined has its network, and what NATS and the registry are called, from the fleet. */
async function readAllSettings(): Promise<Settings> {
  const settings = readSettings(process.env);
  const membership = await readMembership(settings.NODE_DIR);
  if (membership === null) return settings;
  return {
    ...settings,
    AGENT_NETWORK: membership.network,
    NATS_URL: `nats://${membership.local.nats}`,
    REGISTRY_HOST: membership.registryHost,
  };
}

/** The token may come by the environment (BULKHEAD_JOIN_TOKEN): arguments can be seen by every process. */
async function joinCommand(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { name: { type: 'string' }, address: { type: 'string' } },
  });
  const token = positionals[0] ?? process.env['BULKHEAD_JOIN_TOKEN'];
  if (token === undefined || positionals.length > 1) {
    process.stderr.write(usage);
    process.exit(2);
  }
  const settings = readSettings(process.env);
  // A host without its walls must not become one of a fleet; whoever allows that says so as for a start.
  await findMissingWalls(settings);
  const { id, name, network } = await joinFleet({ nodeDir: settings.NODE_DIR, token, ...values });
  process.stdout.write(`${JSON.stringify({ id, name, network })}\n`);
}

async function main(): Promise<void> {
  const [command, ...rest] = process.argv.slice(2);
  if (command === 'doctor') process.exit(await doctor(rest, process.env));
  if (command === 'join') return joinCommand(rest);
  if (rest.length > 0 || (command !== undefined && command !== 'destroy')) {
    process.stderr.write(usage);
    process.exit(2);
  }
  const settings = await readAllSettings();
  const log = pino({ name: 'agent', level: settings.LOG_LEVEL });
  process.on('unhandledRejection', (error) => log.error({ err: error }, 'unhandled rejection'));
  await lockDirectory(settings.NODE_DIR);
  if (command === 'destroy') {
    await destroy(settings, log);
    process.exit(0);
  }
  await run(settings, log);
}

try {
  await main();
} catch (error) {
  // What went wrong at the start is for a person: one clear message, not a stack.
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
