import { createHash } from 'node:crypto';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * One process at a time works on a state directory. The lock is a listening socket with an abstract
 * name: the kernel lets go of it when the process ends, however it ends.
 */
const held = new Map<string, Server>();

/** A child that a killed owner was about to start holds its descriptors until its exec: milliseconds. */
const patienceMs = 1000;

export async function holdStateDir(dir: string): Promise<void> {
  if (held.has(dir)) return;
  const name = createHash('sha256').update(dir).digest('hex').slice(0, 32);
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const server = await listen(`\0bulkhead-runtime-${name}`);
    if (server) return void held.set(dir, server);
    if (performance.now() > deadline)
      throw new Error(`Another process runs the containers of ${dir}; stop it first.`);
    await delay(20);
  }
}

/** Null when the name is taken. */
function listen(name: string): Promise<Server | null> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy()).unref();
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(null) : reject(error),
    );
    server.listen({ path: name }, () => resolve(server));
  });
}

export function releaseStateDir(dir: string): void {
  held.get(dir)?.close();
  held.delete(dir);
}
