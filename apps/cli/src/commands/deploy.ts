import { Option, type Command } from 'commander';
import { readProject } from '../context/project.ts';
import { CliError, usageError } from '../errors.ts';
import { appInfo, createApp, deploy } from '../graphql/operations.ts';
import type { Session } from '../session.ts';
import { appExists } from './apps.ts';
import { processInputs, type ProcessFlags } from './deploy-input.ts';
import { followOrDetach } from './deployments.ts';
import { rolloutOptions, strategyInput, type StrategyFlags } from './strategy.ts';
import {
  appOptions,
  collect,
  examples,
  integer,
  seconds,
  type Act,
  type WaitOptions,
} from './kit.ts';

interface DeployOptions extends WaitOptions, ProcessFlags, StrategyFlags {
  readonly image?: string;
  readonly file?: string;
  readonly message?: string;
  readonly create?: boolean;
}

const notes = `Without process options everything stays as in the release before; the first time there is
one process, web, on the port that the image exposes (else 8080). Options change one process.

./bulkhead.json, or --file, can hold it all; processes that it leaves out are removed:
  {
    "app": "hello", "tenant": "demo", "image": "127.0.0.1:5000/demo/hello:1",
    "processes": {
      "web": { "port": 3000, "count": 2, "memoryMiB": 256, "health": { "path": "/healthz" } },
      "worker": { "command": ["node", "worker.js"], "health": { "command": ["node", "alive.js"] } }
    },
    "strategy": { "kind": "canary", "steps": ["10%", "50%:5m"] }
  }

A strategy is remembered: later deploys and changes of the configuration go the same way. A canary
gives its new instances that part of the requests, step by step; blue-green makes all new instances
beside the old and changes over. When it waits for you, this command ends with 0 and says so;
--wait stays. A new instance that ends or fails its checks takes everything back by itself.`;

async function runDeploy(session: Session, options: DeployOptions): Promise<void> {
  const project =
    options.file === undefined ? session.project : await readProject(options.file, true);
  const image = options.image ?? project?.image;
  if (image === undefined) {
    throw usageError(
      'no image given',
      'Example: bulkhead deploy --app hello --image 127.0.0.1:5000/demo/hello:1',
    );
  }
  const flags = flagsOf(options);
  const { process: named, ...changes } = flags;
  const changed = Object.keys(changes).length > 0;
  if (named !== undefined && !changed) {
    throw usageError(
      '--process alone changes nothing',
      'Add what to change of it: --port, --command, --memory, ...',
    );
  }
  const at = session.with(project).app();
  const client = session.client();
  if (options.create === true) await ensureApp(session, at);
  const send = async () => {
    // What runs now is only needed as the base of a change to a part of it.
    const app =
      project?.processes === undefined && changed ? (await client.request(appInfo, at)).app : null;
    const current = app?.currentRelease ? app.processes : null;
    const processes = processInputs(project?.processes, flags, current);
    const strategy = strategyInput(options, project?.strategy);
    const input = { ...at, image, processes, description: options.message ?? null, strategy };
    return client.request(deploy, { input });
  };
  const { deploy: deployment } = await send().catch((error: unknown) =>
    missing(session, at, error),
  );
  await followOrDetach(session, deployment.id, at, options);
}

function flagsOf({
  process,
  command,
  port,
  count,
  cpu,
  memory,
  disk,
  healthPath,
  ...options
}: DeployOptions): ProcessFlags {
  return {
    ...(process === undefined ? {} : { process }),
    ...(command === undefined ? {} : { command }),
    ...(port === undefined ? {} : { port }),
    ...(count === undefined ? {} : { count }),
    ...(cpu === undefined ? {} : { cpu }),
    ...(memory === undefined ? {} : { memory }),
    ...(disk === undefined ? {} : { disk }),
    ...(healthPath === undefined ? {} : { healthPath }),
    ...checkFlags(options),
    ...limitFlags(options),
  };
}

function limitFlags(options: DeployOptions): ProcessFlags {
  const { cpuCap, pids, ioRate, ioOperations, networkRate, logRate, readOnly, mostPerNode } =
    options;
  const { protocol, priority, pool, nodeLabel } = options;
  return {
    ...(cpuCap === undefined ? {} : { cpuCap }),
    ...(pids === undefined ? {} : { pids }),
    ...(ioRate === undefined ? {} : { ioRate }),
    ...(ioOperations === undefined ? {} : { ioOperations }),
    ...(networkRate === undefined ? {} : { networkRate }),
    ...(logRate === undefined ? {} : { logRate }),
    ...(readOnly === undefined ? {} : { readOnly }),
    ...(mostPerNode === undefined ? {} : { mostPerNode }),
    ...(protocol === undefined ? {} : { protocol }),
    ...(priority === undefined ? {} : { priority }),
    ...(pool === undefined ? {} : { pool }),
    ...(nodeLabel === undefined ? {} : { nodeLabel }),
  };
}

function checkFlags(options: DeployOptions): ProcessFlags {
  const { healthCommand, healthInterval, healthTimeout } = options;
  const { healthFailures, healthSuccesses, healthGrace } = options;
  return {
    ...(healthCommand === undefined ? {} : { healthCommand }),
    ...(healthInterval === undefined ? {} : { healthInterval }),
    ...(healthTimeout === undefined ? {} : { healthTimeout }),
    ...(healthFailures === undefined ? {} : { healthFailures }),
    ...(healthSuccesses === undefined ? {} : { healthSuccesses }),
    ...(healthGrace === undefined ? {} : { healthGrace }),
  };
}

async function ensureApp(session: Session, at: { tenant: string; app: string }): Promise<void> {
  if (await appExists(session, at)) return;
  await session.client().request(createApp, { input: { tenant: at.tenant, name: at.app } });
  session.out.note(`Made ${at.app}.`);
}

/** Something was not found: the app, and then it is mostly a first deploy, or the image. */
async function missing(
  session: Session,
  at: { tenant: string; app: string },
  error: unknown,
): Promise<never> {
  if (!(error instanceof CliError) || error.exit !== 'NOT_FOUND') throw error;
  const hint = (await appExists(session, at))
    ? 'Check its name and tag; `bulkhead images` lists what releases use.'
    : `A new app? Make it with \`bulkhead apps create ${at.app} --tenant ${at.tenant}\`, or deploy with --create. Else see \`bulkhead apps list\`.`;
  throw new CliError('NOT_FOUND', error.message, { code: error.code, hint });
}

export function deployCommand(program: Command, act: Act): void {
  const command = appOptions(
    program
      .command('deploy')
      .description('Release an image and follow it until it is ready')
      .option('-i, --image <reference>', 'image to run; else "image" of the project file'),
  )
    .option('-f, --file <path>', 'project file (default: ./bulkhead.json if there is one)')
    .option('-m, --message <text>', 'what is new, for `bulkhead releases`')
    .option('--create', 'make the app if it does not exist')
    .optionsGroup('One process:')
    .option('-p, --process <name>', 'the process that the options below change (default: web)')
    .option('--command <words>', 'what to run instead of the image’s own command')
    .option('--port <number>', 'what it listens on; it finds it in $PORT', integer(1, 65_535))
    .addOption(
      new Option('--protocol <protocol>', 'how it is asked; http2 for gRPC').choices([
        'http1',
        'http2',
      ]),
    )
    .option('--count <number>', 'how many instances', integer(0, 10_000))
    .option('--cpu <millis>', 'CPU, in thousandths of a core', integer(10, 64_000))
    .option('--memory <MiB>', 'memory, a hard limit', integer(8, 1_048_576))
    .option('--disk <MiB>', 'disk, a hard limit', integer(16, 1_048_576))
    .option('--cpu-cap <millis>', 'the most CPU, in thousandths of a core', integer(10, 64_000))
    .option('--pids <number>', 'the most processes and threads', integer(8, 32_768))
    .option('--io-rate <MiB>', 'the most from and to its disk, a second', integer(1, 2047))
    .option('--io-operations <number>', 'the most on its disk, a second', integer(50, 1_000_000))
    .option('--network-rate <MiB>', 'the most from and to the network, a second', integer(1, 1192))
    .option('--log-rate <KiB>', 'the most output that is kept, a second', integer(1, 1024))
    .option('--most-per-node <number>', 'instances on one node; 0: any', integer(0, 1000))
    .addOption(
      new Option(
        '--priority <priority>',
        'whose instances make room when the fleet is full',
      ).choices(['low', 'normal', 'high']),
    )
    .option('--pool <pool>', 'of nodes to run on, as operators granted it; else default')
    .option('--node-label <name=value>', 'run on nodes that have it; may be repeated', collect)
    .option('--no-node-label', 'run on nodes with any labels')
    .option('--read-only', 'only /tmp can be written')
    .option('--no-read-only', 'its whole disk can be written')
    .option('--health-path <path>', 'HTTP path that answers 2xx or 3xx when it is well')
    .option('--health-command <words>', 'command in the instance that exits with 0 when it is well')
    .option('--health-interval <duration>', 'between two checks', seconds)
    .option('--health-timeout <duration>', 'until no answer is a failure', seconds)
    .option('--health-failures <number>', 'in a row until it is restarted', integer(1, 100))
    .option('--health-successes <number>', 'in a row until it is ready', integer(1, 100))
    .option('--health-grace <duration>', 'after a start, in which failures do not count', seconds);
  examples(
    rolloutOptions(command).action(
      act((session, options: DeployOptions) => runDeploy(session, options)),
    ),
    [
      'deploy --app hello --image 127.0.0.1:5000/demo/hello:1',
      'deploy --app hello --image docker.io/library/nginx:1.29 --port 80 --memory 64 --create',
      "deploy --app hello --image 127.0.0.1:5000/demo/hello:2 --process worker --command 'node worker.js'",
      "deploy --app hello --image 127.0.0.1:5000/demo/hello:2 --process worker --health-command 'node alive.js' --health-interval 30s",
      'deploy --app hello --image 127.0.0.1:5000/demo/hello:2 --strategy canary --steps 10%,50%:5m',
      'deploy --app hello --image 127.0.0.1:5000/demo/hello:2 --strategy blue-green --keep-old 10m',
      'deploy --file production.json --detach',
    ],
    notes,
  );
}
