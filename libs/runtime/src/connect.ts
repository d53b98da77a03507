import { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { inNetworkOf } from './host-thread.ts';
import { RuntimeError } from './runtime.ts';
import { beginConnect, closeFd, isConnected, SyscallError } from './syscalls.ts';

const deadlineMs = 5000;

/**
 * A TCP connection to a port inside the network namespace of `pid`: to loopback, where development
 * servers listen, else to `address`, the container's own. The socket is made in there, so no
 * firewall and no route is asked.
 */
export async function connectInside(pid: number, address: string, port: number): Promise<Socket> {
  for (const to of ['127.0.0.1', address]) {
    const fd = await attempt(pid, to, port);
    if (fd !== null) return new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
  }
  throw new RuntimeError('port-refused', `Nothing in the instance listens on port ${port}.`);
}

/** Null when it is refused. */
async function attempt(pid: number, to: string, port: number): Promise<number | null> {
  const deadline = performance.now() + deadlineMs;
  let fd: number | null = null;
  try {
    fd = inNetworkOf(pid, () => beginConnect(to, port));
    for (let wait = 1; !isConnected(fd, to, port); wait = Math.min(wait * 2, 50)) {
      if (performance.now() > deadline) {
        closeFd(fd);
        return null;
      }
      await delay(wait);
    }
    return fd;
  } catch (error) {
    if (fd !== null) closeFd(fd);
    if (error instanceof SyscallError && refused.includes(error.code)) return null;
    throw error;
  }
}

const refused = ['ECONNREFUSED', 'ECONNRESET', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH'];
