import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { closeFd, pidfdOpen, pidfdSendSignal, SyscallError } from './syscalls.ts';

/** A process, not merely a number that another may get later. */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks after boot, from /proc. */
  startTime: string;
}

export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

/** Null when there is no such process, or only its zombie. */
export function identify(pid: number): ProcessIdentity | null {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
  // The name in parentheses may hold anything; the fields count from behind it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return null;
  return { pid, startTime: fields[19] ?? '' };
}

export const isAlive = (process: ProcessIdentity): boolean =>
  identify(process.pid)?.startTime === process.startTime;

/** Sends a signal to this very process; false when it has ended. */
export function signal(process: ProcessIdentity, number: number): boolean {
  let fd: number;
  try {
    fd = pidfdOpen(process.pid);
  } catch (error) {
    if (error instanceof SyscallError && error.code === 'ESRCH') return false;
    throw error;
  }
  try {
    // The handle is open, so the number cannot change hands between this look and the signal.
    if (!isAlive(process)) return false;
    pidfdSendSignal(fd, number);
    return true;
  } catch (error) {
    if (error instanceof SyscallError && error.code === 'ESRCH') return false;
    throw error;
  } finally {
    closeFd(fd);
  }
}

/** Kills every conmon and crun whose command line names `dir`, until there is none: those of a half-made container. */
export async function killSupervisors(dir: string, deadlineMs = 10_000): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const found = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
      .map((name) => identify(Number(name)))
      .filter((identity) => identity !== null)
      .filter(({ pid }) => supervises(argumentsOf(pid), dir));
    if (found.length === 0) return;
    if (performance.now() > deadline)
      throw new Error(`Process ${found[0]?.pid} survived SIGKILL for ${deadlineMs} ms.`);
    for (const identity of found) signal(identity, 9);
    await delay(2);
  }
}

/** Programs other than this process that were given `text` as or in an argument. */
export function processesWith(text: string): ProcessIdentity[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((name) => identify(Number(name)))
    .filter((identity) => identity !== null)
    .filter(({ pid }) => argumentsOf(pid).some((argument) => argument.includes(text)));
}

/** Also when it is a script, which its interpreter has as an argument. */
function supervises(command: string[], dir: string): boolean {
  return (
    command.slice(0, 2).some((program) => /^(.*\/)?(conmon|crun)$/.test(program)) &&
    command.some((argument) => argument.includes(`${dir}/`))
  );
}

function argumentsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}
