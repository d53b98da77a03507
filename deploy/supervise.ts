/**
 * The platform's own processes under runit: one runsvdir watches `$STATE/service`, one runsv holds
 * each service and one svlogd its log. Killing any process brings it back; killing runsvdir leaves
 * the runsv below it at work, and `npm run up` starts runsvdir again.
 *
 * Each service runs under an exclusive lock that its main process holds until it dies. When a runsv
 * is killed, its service lives on unsupervised, and the copy that the next runsv starts waits at the
 * lock instead of fighting over ports and data. `ensureRunning` ends such an orphan; the waiting copy
 * then takes its place.
 */
import { execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { access, readFile, readdir, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  ensureDirectory,
  ensureServiceDirectory,
  ensureFile,
  readTextIfThere,
  type Owner,
} from './files.ts';
import type { Layout } from './settings.ts';
import { until } from './until.ts';

const execute = promisify(execFile);

export interface Service {
  name: string;
  /** Whom it runs as; root only where nothing less works. */
  owner: Owner;
  command: readonly string[];
  /** Its whole environment but PATH. Paths of secrets, never secrets: environments can be read. */
  env: Readonly<Record<string, string>>;
  /** The clone is made visible, read-only, at `Layout.clone`, whatever its own path lets users enter. */
  seesClone: boolean;
  /** SIGTERM unless the program stops better by another. */
  stopSignal?: 'INT';
  /** Resolves when it does its work; throws or rejects while it does not yet. */
  check(): Promise<void>;
  /** How long the first answer may take. */
  startDeadlineMs?: number;
}

const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const quote = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;
const lockOf = (paths: Layout, name: string) => join(paths.run, `${name}.lock`);

/**
 * The command line that runs `command` as `owner` with no privileges and, when it needs the clone,
 * with the clone mounted read-only at `Layout.clone` in a mount namespace of its own. Only programs
 * that replace each other, so that one process remains.
 */
export function asOwner(
  paths: Layout,
  clone: string,
  service: Pick<Service, 'owner' | 'command' | 'seesClone'>,
): string[] {
  const mount = [
    ...['unshare', '--mount', '--propagation', 'slave', 'sh', '-c'],
    'mount --bind -o ro "$0" "$1" && shift && exec "$@"',
    ...[clone, paths.clone],
  ];
  return [
    ...(service.seesClone ? mount : []),
    ...(service.owner.uid === 0 ? [] : dropPrivileges(service.owner)),
    ...service.command,
  ];
}

const dropPrivileges = (owner: Owner) => [
  ...['setpriv', `--reuid=${owner.uid}`, `--regid=${owner.gid}`, '--clear-groups'],
  ...['--no-new-privs', '--inh-caps=-all', '--bounding-set=-all'],
];

/** The script that runsv runs. */
export function runScript(paths: Layout, service: Service, clone: string): string {
  const environment = Object.entries({ PATH: path, ...service.env });
  const lines = [
    ['exec', 'env', '-i', ...environment.map(([name, value]) => quote(`${name}=${value}`))],
    ['flock', '--no-fork', '--exclusive', quote(lockOf(paths, service.name))],
    asOwner(paths, clone, service).map(quote),
  ].map((words) => words.join(' '));
  return [
    '#!/bin/sh',
    '# Written by deploy/supervise.ts; the next `npm run up` writes it again.',
    'exec 2>&1',
    'cd /',
    // A login shell's 1,024 are too few for an edge or for an agent with hundreds of containers.
    'ulimit -S -n 65536 2>/dev/null || ulimit -S -n "$(ulimit -H -n)"',
    lines.join(' \\\n  '),
    '',
  ].join('\n');
}

/** Writes the service's directory; true when a running copy must be restarted for it. */
export async function ensureService(
  paths: Layout,
  service: Service,
  clone: string,
): Promise<boolean> {
  const dir = join(paths.service, service.name);
  const logDir = join(paths.log, service.name);
  await ensureFile(lockOf(paths, service.name), '', 0o600);
  await ensureServiceDirectory(logDir, service.owner);
  // Ten files of at most 1 MB.
  await ensureFile(join(logDir, 'config'), 's1000000\nn10\n', 0o640, service.owner);

  const isNew = !(await exists(join(dir, 'run')));
  await ensureDirectory(join(dir, 'log'), 0o755);
  // `down` keeps runsv from starting the service before its turn; `ensureRunning` takes it away.
  if (isNew) await writeFile(join(dir, 'down'), '');
  const drop = service.owner.uid === 0 ? [] : dropPrivileges(service.owner);
  await ensureFile(
    join(dir, 'log/run'),
    `#!/bin/sh\nexec env -i PATH=${path} ${[...drop, 'svlogd', '-tt', quote(logDir)].join(' ')}\n`,
    0o755,
  );
  if (service.stopSignal !== undefined) {
    await ensureDirectory(join(dir, 'control'), 0o755);
    await ensureFile(
      join(dir, 'control/t'),
      `#!/bin/sh\nexec kill -${service.stopSignal} "$(cat supervise/pid)"\n`,
      0o755,
    );
  }
  return (await ensureFile(join(dir, 'run'), runScript(paths, service, clone), 0o755)) && !isNew;
}

const supervisorPidFile = (paths: Layout) => join(paths.run, 'runsvdir.pid');

/** The running runsvdir of this state directory; null when there is none. */
export async function findSupervisor(paths: Layout): Promise<number | null> {
  const pid = Number(await readTextIfThere(supervisorPidFile(paths)));
  if (!Number.isInteger(pid) || pid <= 1) return null;
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return command.startsWith('runsvdir\0') && command.includes(`\0${paths.service}\0`) ? pid : null;
}

export async function ensureSupervisor(paths: Layout): Promise<void> {
  if ((await findSupervisor(paths)) !== null) return;
  const child = spawn('runsvdir', ['-P', paths.service, `log: ${'.'.repeat(400)}`], {
    detached: true,
    stdio: 'ignore',
    cwd: '/',
    env: { PATH: path },
  });
  await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject));
  await ensureFile(supervisorPidFile(paths), String(child.pid), 0o600);
  child.unref();
}

/** Starts the service if it does not run, restarts it if asked, and waits until it does its work. */
export async function ensureRunning(
  paths: Layout,
  service: Service,
  restart: boolean,
): Promise<void> {
  const dir = join(paths.service, service.name);
  // runsvdir looks for new services every 5 seconds.
  await until(() => sv('status', dir), 15_000, `runit does not see ${service.name}`);
  await endOrphan(paths, service.name);
  const before = restart ? await lockHolder(paths, service.name) : null;
  await sv(restart ? 'restart' : 'up', dir);
  await rm(join(dir, 'down'), { force: true });
  // `sv restart` counts in whole seconds and can take the old copy for the new one.
  if (before !== null)
    await until(async () => assertGone(before), 30_000, `${service.name} does not end`);
  await until(
    () => service.check(),
    service.startDeadlineMs ?? 30_000,
    `${service.name} does not answer`,
  );
}

/** Whether a copy of the service runs, supervised or not. */
export const isRunning = async (paths: Layout, name: string): Promise<boolean> =>
  (await lockHolder(paths, name)) !== null;

/** Ends a copy whose runsv was killed under it. */
async function endOrphan(paths: Layout, name: string): Promise<void> {
  const holder = await lockHolder(paths, name);
  const supervised = Number(await readTextIfThere(join(paths.service, name, 'supervise/pid')));
  if (holder !== null && holder !== supervised)
    await endProcess(holder, 20_000, await stopSignalOf(paths, name));
}

/** From the service's own directory, so that it is known without the service's definition. */
const stopSignalOf = async (paths: Layout, name: string): Promise<NodeJS.Signals> =>
  ((await readTextIfThere(join(paths.service, name, 'control/t'))) ?? '').includes('kill -INT')
    ? 'SIGINT'
    : 'SIGTERM';

/** Stops a service and waits for its end; stopping what does not run succeeds. */
export async function stopService(
  paths: Layout,
  name: string,
  graceSeconds: number,
): Promise<void> {
  const dir = join(paths.service, name);
  if (await exists(join(dir, 'supervise/ok')))
    await sv('force-stop', dir, graceSeconds).catch(() => undefined);
  const holder = await lockHolder(paths, name);
  if (holder !== null)
    await endProcess(holder, graceSeconds * 1000, await stopSignalOf(paths, name));
}

/** Stops a service for good: it is not started again. Its log stays. */
export async function removeService(paths: Layout, name: string): Promise<void> {
  await stopService(paths, name, 15);
  // runsvdir ends the runsv of a directory that is gone.
  await rm(join(paths.service, name), { recursive: true, force: true });
}

/** Stops runsvdir and every runsv and svlogd below `$STATE/service`, orphans included. */
export async function stopSupervisor(paths: Layout): Promise<void> {
  const pid = await findSupervisor(paths);
  // SIGHUP makes runsvdir send SIGTERM to each runsv, which ends its service and its log.
  if (pid !== null) {
    signal(pid, 'SIGHUP');
    await until(async () => assertGone(pid), 10_000, 'runsvdir does not end').catch(() =>
      signal(pid, 'SIGKILL'),
    );
  }
  const left = await processesBelow(paths.service);
  await Promise.all(left.map((each) => endProcess(each, 3_000)));
  await rm(supervisorPidFile(paths), { force: true });
}

/** Processes whose working directory is below `dir`: runsv and svlogd live in their service's. */
async function processesBelow(dir: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found: number[] = [];
  for (const pid of pids) {
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
    if (cwd.startsWith(`${dir}/`)) found.push(pid);
  }
  return found;
}

/** The process that holds the service's lock, from the kernel's list; null when nobody alive does. */
export async function lockHolder(paths: Layout, name: string): Promise<number | null> {
  const file = await stat(lockOf(paths, name)).catch(() => null);
  if (file === null) return null;
  // "1: FLOCK  ADVISORY  WRITE 2131 fe:00:1234 0 EOF"; those who wait have "->" behind the number.
  for (const line of (await readFile('/proc/locks', 'utf8')).split('\n')) {
    const [, kind, , , pid, place] = line.split(/\s+/);
    if (kind === 'FLOCK' && place?.endsWith(`:${file.ino}`) === true && isAlive(Number(pid)))
      return Number(pid);
  }
  return null;
}

async function endProcess(
  pid: number,
  graceMs: number,
  polite: NodeJS.Signals = 'SIGTERM',
): Promise<void> {
  signal(pid, polite);
  await until(async () => assertGone(pid), graceMs, `process ${pid} does not end`).catch(() =>
    signal(pid, 'SIGKILL'),
  );
  await until(async () => assertGone(pid), 5_000, `process ${pid} does not end`);
}

function assertGone(pid: number): void {
  if (isAlive(pid)) throw new Error(`process ${pid} is still there`);
}

/** A process that ended and waits to be collected by its parent is not alive. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Gone in the meantime, which is what was wanted.
  }
}

async function sv(command: string, dir: string, waitSeconds = 30): Promise<void> {
  await execute('sv', ['-w', String(waitSeconds), command, dir], {
    timeout: (waitSeconds + 15) * 1000,
  }).catch((error: { stdout?: string; message: string }) => {
    throw new Error(error.stdout?.trim() || error.message);
  });
}

const exists = (file: string) =>
  access(file).then(
    () => true,
    () => false,
  );
