/**
 * Stops a platform and shows that nothing of it is left. Works on what is there: it may have been
 * started from another clone, be half broken, or never have been started.
 */
import { readdir, readlink, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StepFailure, createSteps } from './bootstrap/steps.mjs';
import { describe, findLeftovers, isEmpty } from './leftovers.ts';
import { readPlatformFile, readSettings } from './platform-file.ts';
import { agentCommand, agentEnvironment } from './services/agent.ts';
import { layout, type Layout, type PlatformSettings } from './settings.ts';
import { stopService, stopSupervisor } from './supervise.ts';
import { sweep } from './sweep.ts';
import { until } from './until.ts';

export interface StopOptions {
  /** The clone whose agent removes the containers. */
  root: string;
  stateDir?: string | undefined;
  /** Deletes the data as well. */
  purge?: boolean;
  write?: (text: string) => void;
}

/** Nobody above may be needed by those below: the agent first, so that nothing is started again. */
const stopOrder = [
  ...['renewal', 'agent', 'edge', 'haproxy', 'gate', 'balancer', 'api'],
  ...['registry', 'nats', 'postgres'],
];

export async function stopPlatform(options: StopOptions): Promise<void> {
  const settings = await readSettings({ root: options.root, stateDir: options.stateDir });
  const { stateDir } = settings;
  const paths = layout(stateDir);
  const { step, say } = createSteps({
    logDir: join(options.root, '.bulkhead/log'),
    ...(options.write === undefined ? {} : { write: options.write }),
  });

  const present = await readdir(paths.service).catch(() => [] as string[]);
  // Of several, each has a number behind its name.
  const inOrder = stopOrder.flatMap((kind) =>
    present.filter((name) => name.replace(/-\d+$/, '') === kind),
  );
  for (const name of inOrder) {
    await step(`Stopping ${name}`, () => stopService(paths, name, name === 'postgres' ? 30 : 10));
    // Right after the agent, while everything else still answers.
    if (name === 'agent') await removeContainers(step, settings, paths);
  }
  await step('Ending the supervision', () => stopSupervisor(paths));
  await step('Looking for leftovers', async (s) => {
    const found = await findLeftovers(settings);
    if (isEmpty(found)) return;
    s.log(`swept away:\n${describe(found).join('\n')}`);
    await until(
      async () => {
        const left = await findLeftovers(settings);
        if (isEmpty(left)) return;
        await sweep(left);
        throw new StepFailure(describe(left).join('\n'));
      },
      15_000,
      'some of the platform is still there',
    );
  });
  await removeFilesInMemory(paths);
  // runit keeps its own state (fifos, pids) here; the next `up` writes it all again.
  await rm(paths.service, { recursive: true, force: true });
  await rm(paths.run, { recursive: true, force: true });
  say(
    '  Nothing is left: no process, mount, namespace, cgroup, interface, nftables table, policy rule or loop device.',
  );
  if (options.purge === true) {
    await step(`Deleting ${stateDir}`, () => rm(stateDir, { recursive: true, force: true }));
  } else if ((await readPlatformFile(stateDir)) !== null) {
    say(
      `  The data is kept in ${stateDir}. \`npm run up\` goes on with it; \`npm run down -- --purge\` deletes it.`,
    );
  }
}

/** The agent's `destroy` does it, where it can. Only a name that the runtime gives (libs/runtime/src/run-dir.ts). */
async function removeFilesInMemory(paths: Layout): Promise<void> {
  const link = join(paths.node, 'runtime/run');
  const target = await readlink(link).catch(() => '');
  if (/^\/(run|dev\/shm)\/bulkhead-[0-9a-f]{16}$/.test(target))
    await rm(target, { recursive: true, force: true });
}

async function removeContainers(
  step: ReturnType<typeof createSteps>['step'],
  settings: PlatformSettings,
  paths: Layout,
): Promise<void> {
  await step('Removing the containers', async (s) => {
    const env = { PATH: process.env['PATH'], ...agentEnvironment(settings, paths) };
    const [program = '', ...args] = agentCommand(settings.root);
    // What it cannot remove is swept away below, so this need not be the end.
    await s
      .run(program, [...args, 'destroy'], { env, deadlineMs: 120_000 })
      .catch((error: unknown) => s.log(String(error)));
  });
}
