/** Which process listens where, so that "port in use" can name who uses it. */
import { readFile, readdir, readlink } from 'node:fs/promises';

export interface Listener {
  pid: number | null;
  program: string;
}

/** The process that keeps others from listening on a TCP port of an IPv4 address; null when it is free. */
export async function findListener(host: string, port: number): Promise<Listener | null> {
  const tables = await Promise.all(
    ['/proc/net/tcp', '/proc/net/tcp6'].map((file) => readFile(file, 'utf8').catch(() => '')),
  );
  const inode = listeningInode(tables.join('\n'), host, port);
  if (inode === null) return null;
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const fd of descriptors) {
      if ((await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')) !== `socket:[${inode}]`)
        continue;
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      return { pid: Number(pid), program: command.split('\0').join(' ').trim().slice(0, 120) };
    }
  }
  return { pid: null, program: 'a process that cannot be seen from here' };
}

/**
 * The inode of the socket that has the address, or all addresses, in text of /proc/net/tcp and tcp6:
 * state 0A is "listening". Other addresses of the host may have the same port for somebody else.
 */
export function listeningInode(table: string, host: string, port: number): number | null {
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  // Words of four bytes, as the machine has them: the lowest first.
  const hexHost = Buffer.from(host.split('.').map(Number)).reverse().toString('hex').toUpperCase();
  const blocking = [hexHost, '0'.repeat(8), '0'.repeat(32), `0000000000000000FFFF0000${hexHost}`];
  for (const line of table.split('\n')) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    const [address = '', at] = local?.split(':') ?? [];
    if (state === '0A' && at === hexPort && blocking.includes(address)) return Number(inode);
  }
  return null;
}
