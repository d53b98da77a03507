import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { cleanEnv } from './exec.ts';
import { containerCgroup } from './host.ts';
import type { Host } from './host.ts';
import { isAlive, killSupervisors } from './processes.ts';
import type { ContainerRecord } from './state.ts';
import { step } from './steps.ts';
import { makeFifo } from './syscalls.ts';

/**
 * Runs a process in a running container, by `crun exec`. All of it that the caller does not change
 * is taken from the container's own configuration, so that the walls are the same.
 *
 * Its cgroup is one below the container's: within the same limits, and what the process started is
 * told from the container's own. crun 1.8 puts such a process into no cgroup at all on a v1 or
 * hybrid machine. So crun itself is moved there while it waits for the process's configuration,
 * which comes through a FIFO; what it forks is born inside.
 */
export interface EnterOptions {
  /** Of the cgroup below the container's, and of the directory for the time being. */
  readonly name: string;
  /** What differs from the container's own OCI process. */
  readonly process: Readonly<Record<string, unknown>> & { readonly args: readonly string[] };
  /** Added to the container's own variables. */
  readonly env?: readonly string[];
  readonly stdin: 'ignore' | 'pipe';
  /** crun sends the terminal here. */
  readonly consoleSocket?: (dir: string) => string;
}

/** How it ended. `said`: crun's own words when it could not run it, with paths of the host; else empty. */
export interface EntryEnd {
  readonly exitCode: number | null;
  readonly said: string;
}

export interface Entry {
  readonly child: ChildProcess;
  /** Resolves when crun has been told what to run; what is timed begins here. */
  readonly begun: Promise<void>;
  /** Resolves with nothing left of it: processes, cgroup, files. */
  readonly end: Promise<EntryEnd>;
  /** Its processes, without crun. */
  processes(): number[];
  /** Ends it with all that it started. */
  kill(): Promise<void>;
}

const entriesDir = (host: Host): string => `${host.dirs.scratch}/entries`;

/** Whether the name of a cgroup below a container's is one of ours. */
export const isEntry = (name: string): boolean => name === 'check' || name.startsWith('exec-');

/** Ends the crun processes of an agent that was killed; for the start of the next one. */
export async function endEntries(host: Host): Promise<void> {
  await killSupervisors(entriesDir(host));
  rmSync(entriesDir(host), { recursive: true, force: true });
}

/** Ends what such an agent left in a container. */
export async function endEntriesOf(host: Host, record: ContainerRecord): Promise<void> {
  const container = containerCgroup(host, record);
  const entries = host.cgroups.children(container).filter(isEntry);
  // Held still with the container (cgroup v1) they would outlast SIGKILL; the caller holds it again.
  if (entries.length > 0 && host.cgroups.isFrozen(container))
    await host.cgroups.freeze(container, false);
  for (const name of entries) {
    await host.cgroups.kill(`${container}/${name}`);
    host.cgroups.remove(`${container}/${name}`);
  }
}

/** Null when the container's process has ended. */
export async function enter(
  host: Host,
  record: ContainerRecord,
  options: EnterOptions,
): Promise<Entry | null> {
  const { bundle } = host.store.paths(record.id);
  const cgroup = `${containerCgroup(host, record)}/${options.name}`;
  // What an agent killed at one of the same name left behind.
  await host.cgroups.kill(cgroup);
  // Together with `ensure`, so that no cgroup is made again that was just removed: this one is kept by its process.
  if (!record.process || !isAlive(record.process)) return null;
  step('ensure-entry');
  host.cgroups.ensureInside(cgroup);
  const dir = `${entriesDir(host)}/${record.id}-${options.name}`;
  rmSync(dir, { recursive: true, force: true });
  const tidy = async (): Promise<void> => {
    step('tidy-entry');
    await host.cgroups.kill(cgroup);
    host.cgroups.remove(cgroup);
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    step('make-entry');
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const { process } = JSON.parse(readFileSync(`${bundle}/config.json`, 'utf8')) as {
      process: Readonly<Record<string, unknown>> & { env: readonly string[] };
    };
    const env = [...process.env, ...(options.env ?? [])];
    // It holds the app's config, so it touches neither arguments nor a disk.
    const text = JSON.stringify({ ...process, env, terminal: false, ...options.process });
    return launch(host, record.id, { ...options, dir, cgroup, text, tidy });
  } catch (error) {
    await tidy();
    throw error;
  }
}

interface Launch extends EnterOptions {
  dir: string;
  cgroup: string;
  text: string;
  tidy: () => Promise<void>;
}

function launch(host: Host, id: string, { dir, cgroup, ...of }: Launch): Entry {
  const [fifo, log] = [`${dir}/process`, `${dir}/log`];
  makeFifo(fifo);
  const args = [
    [`--root=${host.dirs.crun}`, '--cgroup-manager=cgroupfs'],
    // What crun has to say must not be taken for the command's output.
    [`--log=file:${log}`],
    ['exec', `--cgroup=${of.name}`, `--process=${fifo}`],
    of.consoleSocket ? [`--console-socket=${of.consoleSocket(dir)}`] : [],
    [id],
  ].flat();
  step('spawn-entry');
  const child = spawn(host.crun, args, {
    stdio: [of.stdin, 'pipe', 'pipe'],
    env: cleanEnv(),
    cwd: '/',
  });
  const exited = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', resolve);
  });
  const begun = letGo(host, { pid: child.pid, cgroup, fifo, process: of.text });
  // The container ended meanwhile, or crun did not get so far.
  begun.catch(() => child.kill('SIGKILL'));
  const end = exited
    .finally(() => openGate(fifo))
    .then((exitCode) => ({ exitCode, said: existsSync(log) ? readFileSync(log, 'utf8') : '' }))
    .finally(() => of.tidy());
  end.catch(() => undefined);
  return {
    child,
    begun,
    end,
    processes: () => host.cgroups.processes(cgroup).filter((pid) => pid !== child.pid),
    kill: () => host.cgroups.kill(cgroup),
  };
}

/** Confines crun, and only then tells it what to run. */
async function letGo(
  host: Host,
  of: { pid: number | undefined; cgroup: string; fifo: string; process: string },
): Promise<void> {
  if (of.pid === undefined) throw new Error('crun could not be started');
  // Before those of the platform when memory is short, as the container's own; crun exec leaves it as it finds it.
  const { oomScoreAdj = 0 } = JSON.parse(of.process) as { oomScoreAdj?: number };
  writeFileSync(`/proc/${of.pid}/oom_score_adj`, String(oomScoreAdj));
  step('confine-entry');
  await host.cgroups.confine(of.cgroup, of.pid);
  step('tell-entry');
  await writeFile(of.fifo, of.process);
}

/** Frees whoever waits for crun to read what it never will. */
function openGate(fifo: string): void {
  closeSync(openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK));
}

/** crun's words name paths of the host; the tenant gets ours. Null: the fault is not the command's. */
export function refusalOf(said: string): string | null {
  if (/not found|No such file/i.test(said)) return 'the image has no such command';
  if (/Permission denied/i.test(said)) return 'the command may not be executed (permission denied)';
  if (/Exec format/i.test(said)) return 'the command is not a program for this machine';
  return null;
}
