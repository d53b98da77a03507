import { spawn } from 'node:child_process';
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
import type { Readable } from 'node:stream';
import { cleanEnv } from './exec.ts';
import { containerCgroup } from './host.ts';
import type { Host } from './host.ts';
import { isAlive, killSupervisors } from './processes.ts';
import type { CheckResult } from './runtime.ts';
import type { ContainerRecord } from './state.ts';
import { makeFifo } from './syscalls.ts';

/**
 * Runs a command in a running container, by `crun exec`. Everything about the process but its
 * command is taken from the container's own configuration, so that the walls are the same.
 *
 * Its cgroup is one below the container's: within the same limits, and what the command started is
 * told from the container's own. crun 1.8 puts an exec'd process into no cgroup at all on a v1 or
 * hybrid machine. So crun itself is moved there while it waits for the process's configuration,
 * which comes through a FIFO; what it forks is born inside.
 */

/** What is kept of a command's output: its end, bytes. */
const keptOutput = 4096;
/** crun itself may hang; it gets this long beyond the command's own time, ms. */
const crunGraceMs = 5000;
const checkCgroup = 'check';

const checksDir = (host: Host): string => `${host.dirs.scratch}/checks`;

/** Ends the crun processes of an agent that was killed at its checks; for the start of the next one. */
export async function endChecks(host: Host): Promise<void> {
  await killSupervisors(checksDir(host));
  rmSync(checksDir(host), { recursive: true, force: true });
}

export async function runCheck(
  host: Host,
  record: ContainerRecord,
  command: readonly string[],
  timeoutMs: number,
): Promise<CheckResult> {
  const { bundle } = host.store.paths(record.id);
  const cgroup = `${containerCgroup(host, record)}/${checkCgroup}`;
  // What an agent killed at its check left behind.
  await host.cgroups.kill(cgroup);
  // Together with `ensure`, so that no cgroup is made again that was just removed: this one is kept by its process.
  if (!record.process || !isAlive(record.process)) return notRun('the container does not run');
  host.cgroups.ensure(cgroup);
  const dir = `${checksDir(host)}/${record.id}`;
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  try {
    const { process } = JSON.parse(readFileSync(`${bundle}/config.json`, 'utf8')) as {
      process: Readonly<Record<string, unknown>>;
    };
    const text = JSON.stringify({ ...process, terminal: false, args: command });
    return await execute(host, { id: record.id, dir, cgroup, process: text, timeoutMs });
  } finally {
    await host.cgroups.kill(cgroup);
    host.cgroups.remove(cgroup);
    rmSync(dir, { recursive: true, force: true });
  }
}

interface Run {
  id: string;
  dir: string;
  cgroup: string;
  /** The OCI process: it holds the app's config, so it touches neither arguments nor a disk. */
  process: string;
  timeoutMs: number;
}

async function execute(host: Host, { id, dir, cgroup, ...run }: Run): Promise<CheckResult> {
  const [fifo, log] = [`${dir}/process`, `${dir}/log`];
  makeFifo(fifo);
  const args = [
    [`--root=${host.dirs.crun}`, '--cgroup-manager=cgroupfs'],
    // What crun has to say must not be taken for the command's output.
    [`--log=file:${log}`],
    ['exec', `--cgroup=${checkCgroup}`, `--process=${fifo}`, id],
  ].flat();
  const child = spawn(host.crun, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: cleanEnv(),
    cwd: '/',
  });
  const output = new Tail();
  const streams = [child.stdout, child.stderr];
  for (const stream of streams) {
    stream.on('data', (part: Buffer) => output.add(part));
    stream.on('error', () => undefined);
  }
  let timedOut = false;
  const end = (): void => void child.kill('SIGKILL');
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', resolve);
  });
  const timers: NodeJS.Timeout[] = [];
  try {
    const gate = letGo(host, { pid: child.pid, cgroup, fifo, process: run.process }).then(
      () => {
        const late = setTimeout(() => {
          timedOut = true;
          host.cgroups.kill(cgroup).catch(() => undefined);
        }, run.timeoutMs);
        timers.push(late, setTimeout(end, run.timeoutMs + crunGraceMs));
      },
      // The container ended meanwhile, or crun did not get so far.
      end,
    );
    timers.push(setTimeout(end, run.timeoutMs + 2 * crunGraceMs));
    const exitCode = await ended.finally(() => openGate(fifo));
    await gate;
    // What it left running holds its output open.
    await host.cgroups.kill(cgroup);
    await Promise.all(streams.map(closed));
    if (timedOut) return { outcome: 'timed-out', exitCode: null, output: output.text() };
    const said = existsSync(log) ? readFileSync(log, 'utf8') : '';
    if (said !== '' || exitCode === null) return refusal(said);
    return { outcome: 'ended', exitCode, output: output.text() };
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
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
  await host.cgroups.confine(of.cgroup, of.pid);
  await writeFile(of.fifo, of.process);
}

/** Frees whoever waits for crun to read what it never will. */
function openGate(fifo: string): void {
  closeSync(openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK));
}

function closed(stream: Readable): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed) return resolve();
    stream.once('close', () => resolve());
  });
}

const notRun = (why: string): CheckResult => ({ outcome: 'not-run', exitCode: null, output: why });

/** crun's words name paths of the host; the tenant gets ours. */
function refusal(said: string): CheckResult {
  const refused = (output: string): CheckResult => ({ outcome: 'refused', exitCode: null, output });
  if (/not found|No such file/i.test(said)) return refused('the image has no such command');
  if (/Permission denied/i.test(said))
    return refused('the command may not be executed (permission denied)');
  if (/Exec format/i.test(said)) return refused('the command is not a program for this machine');
  return notRun('the command could not be run');
}

/** The end of a stream of any length. */
class Tail {
  #kept = Buffer.alloc(0);

  add(part: Buffer): void {
    this.#kept = Buffer.concat([this.#kept, part]).subarray(-keptOutput);
  }

  text(): string {
    return this.#kept.toString('utf8');
  }
}
