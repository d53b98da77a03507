/**
 * The agent's process. `main.js` runs it until SIGTERM, which stops no container; `main.js destroy`
 * removes every container of this node and what the runtime set up on the host; `main.js doctor`
 * tells what this host can and cannot do.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createRuntime, type ContainerRuntime } from '@bulkhead/runtime';
import { pino, type Logger } from 'pino';
import { Agent } from './agent.ts';
import { doctor, findMissingWalls } from './doctor.ts';
import { readIdentity } from './identity.ts';
import { lockDirectory } from './lock.ts';
import { AgentMetrics, serveMetrics } from './metrics.ts';
import { readSettings, type Settings } from './settings.ts';

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
  // Before anything is made: what runs already goes on without us.
  const missingWalls = await findMissingWalls(settings);
  if (missingWalls.length > 0) log.warn({ missingWalls }, 'runs without walls, as it was told');
  const metrics = new AgentMetrics();
  const runtime = await makeRuntime(settings, metrics, log);
  const agent = new Agent({ settings, identity, runtime, version, missingWalls, metrics, log });
  // First: a port that is taken must be known before anything is started.
  await serveMetrics(settings.AGENT_METRICS_PORT, agent.metrics, () => agent.health());
  await agent.start();
  log.info({ node: identity.id, nodeName: identity.name }, 'the agent runs');

  let stopping = false;
  const stop = async (signal: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'stopping; containers go on running');
    await Promise.race([agent.stop(), delay(stopDeadlineMs)]);
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

async function main(): Promise<void> {
  const [command, ...rest] = process.argv.slice(2);
  if (command === 'doctor') process.exit(await doctor(rest, process.env));
  if (rest.length > 0 || (command !== undefined && command !== 'destroy')) {
    process.stderr.write('Usage: bulkhead-agent [doctor [--json] | destroy]\n');
    process.exit(2);
  }
  const settings = readSettings(process.env);
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
