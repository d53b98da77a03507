/** Processor time of processes, from /proc. */
import { readdir, readFile } from 'node:fs/promises';

const ticksPerSecond = 100;

/** Seconds of processor time of a process, and of its children when it is PostgreSQL's. */
export async function cpuSeconds(pid: number, withChildren = false): Promise<number> {
  const stat = await readStat(pid);
  if (stat === null) return 0;
  let ticks = stat.own;
  if (withChildren) {
    // Those that ended are counted at their parent.
    ticks += stat.ended;
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      const other = await readStat(Number(name));
      if (other?.parent === pid) ticks += other.own;
    }
  }
  return ticks / ticksPerSecond;
}

async function readStat(pid: number) {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  if (text === null) return null;
  // The name is in brackets and may hold anything.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const [parent = 0] = fields.slice(1);
  const [user = 0, system = 0, endedUser = 0, endedSystem = 0] = fields.slice(11);
  return { parent, own: user + system, ended: endedUser + endedSystem };
}

export async function residentMiB(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0) / 1024;
}
