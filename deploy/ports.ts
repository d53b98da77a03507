/** Which process listens where, so that "port in use" can name who uses it. */
import { readFile, readdir, readlink } from 'node:fs/promises';

export interface Listener {
  pid: number | null;
  program: string;
}

/** The process listening on a TCP port of loopback or of all addresses; null when the port is free. */
export async function findListener(port: number): Promise<Listener | null> {
  const tables = await Promise.all(
    ['/proc/net/tcp', '/proc/net/tcp6'].map((file) => readFile(file, 'utf8').catch(() => '')),
  );
  const inode = listeningInode(tables.join('\n'), port);
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

/** The socket's inode in text of /proc/net/tcp and tcp6: state 0A is "listening". */
export function listeningInode(table: string, port: number): number | null {
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  for (const line of table.split('\n')) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    if (state === '0A' && local?.endsWith(`:${hexPort}`) === true) return Number(inode);
  }
  return null;
}
