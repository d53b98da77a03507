/**
 * A whole platform on this machine: `npm run up` starts one, and so do the end-to-end tests, on
 * other ports and with other names. Every part of it is `ensure*`: running it again repairs what is
 * missing and leaves alone what is right.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { startApps } from './apps.ts';
import { StepFailure, createSteps } from './bootstrap/steps.mjs';
import { readCredentials, type Credentials } from './credentials.ts';
import { ensureDirectory } from './files.ts';
import { startInfrastructure } from './infrastructure.ts';
import { findTakenNames } from './leftovers.ts';
import { ensureNatsServer } from './nats/binary.ts';
import { readPlatformFile, readSettings, writePlatformFile } from './platform-file.ts';
import { apiUrl } from './services/api.ts';
import { registryHost } from './services/registry.ts';
import { layout, type Layout, type PlatformOptions, type PlatformSettings } from './settings.ts';
import type { Steps } from './start-services.ts';
import { isRunning } from './supervise.ts';
import { ensureServiceUsers } from './users.ts';

export { stopPlatform } from './stop.ts';

export interface StartOptions extends PlatformOptions {
  /** `infrastructure` stops after PostgreSQL, NATS and the registry. */
  parts?: 'infrastructure' | 'all';
  /** Where the progress goes; standard output by default. */
  write?: (text: string) => void;
}

export interface Platform {
  settings: PlatformSettings;
  paths: Layout;
  apiUrl: string;
  /** `host:port` of the registry, as it stands in image references. */
  registryHost: string;
  /** The first users; null without the API. */
  credentials: Credentials | null;
  steps: Steps;
}

/** Starts what does not run and waits until all of it works. The sample app is `deploySample`'s. */
export async function startPlatform(options: StartOptions): Promise<Platform> {
  const settings = await readSettings(options);
  const paths = layout(settings.stateDir);
  await ensureDirectory(settings.stateDir, 0o711);
  const steps = createSteps({
    logDir: paths.setupLog,
    ...(options.write === undefined ? {} : { write: options.write }),
  });

  const owners = await steps.step('Preparing the state directory', async (step) => {
    await assertOurs(settings, paths);
    await assertReadable(settings.root);
    if (options.parts !== 'infrastructure') await assertNamesFree(settings);
    const users = await ensureServiceUsers(step);
    await ensureDirectories(paths);
    await writePlatformFile(settings);
    return users;
  });
  await steps.step(
    'Fetching nats-server',
    async (step) => void (await ensureNatsServer(step, settings.root)),
    'see that deb.debian.org (or the mirror in /etc/apt) can be reached, then run the same command again.',
  );
  await startInfrastructure(steps, settings, paths, owners);
  if (options.parts !== 'infrastructure') await startApps(steps, settings, paths, owners);
  return {
    settings,
    paths,
    apiUrl: apiUrl(settings),
    registryHost: registryHost(settings),
    credentials: await readCredentials(paths),
    steps,
  };
}

/** A state directory belongs to one clone at a time; a clone that runs is not taken over. */
async function assertOurs(settings: PlatformSettings, paths: Layout): Promise<void> {
  const before = await readPlatformFile(settings.stateDir);
  if (before === null || before.root === settings.root || !(await isRunning(paths, 'api'))) return;
  throw new StepFailure(
    `the platform in ${settings.stateDir} was started from another clone, ${before.root}, and is running`,
    `run \`npm run down\` in ${before.root} first (its data is kept and this clone goes on with it), or start a second platform beside it; deploy/README.md says how.`,
  );
}

/** Two agents with one name for their cgroup or table would remove each other's containers. */
export async function assertNamesFree(settings: PlatformSettings): Promise<void> {
  const taken = await findTakenNames(settings);
  if (taken.length > 0)
    throw new StepFailure(
      `another platform on this machine has the same ${taken.join(', ')}`,
      'give this one other names and ranges; deploy/README.md says how.',
    );
}

/** Services read the clone as users of their own; a clone made under umask 077 shuts them out. */
async function assertReadable(clone: string): Promise<void> {
  const { mode } = await stat(join(clone, 'package.json'));
  if ((mode & 0o004) === 0)
    throw new StepFailure(
      `the files of ${clone} can be read by root only, and the platform's services do not run as root`,
      `run chmod -R go+rX ${clone} and then the same command again.`,
    );
}

async function ensureDirectories(paths: Layout): Promise<void> {
  for (const dir of [paths.clone, paths.bin, paths.service]) await ensureDirectory(dir, 0o755);
  // Entered by users on the way to what is theirs, listed by root only.
  for (const dir of [paths.run, paths.log, join(paths.apiKeys, '..')])
    await ensureDirectory(dir, 0o711);
  for (const dir of [paths.rootKeys, paths.setupLog]) await ensureDirectory(dir, 0o700);
}
