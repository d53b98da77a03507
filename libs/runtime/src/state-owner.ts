import { createHash } from 'node:crypto';
import { createServer } from 'node:net';
import type { Server } from 'node:net';

/**
 * One process at a time works on a state directory. The lock is a listening socket with an abstract
 * name: the kernel lets go of it when the process ends, however it ends.
 */
const held = new Map<string, Server>();

export async function holdStateDir(dir: string): Promise<void> {
  if (held.has(dir)) return;
  const server = createServer((socket) => socket.destroy()).unref();
  const name = createHash('sha256').update(dir).digest('hex').slice(0, 32);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(`Another process runs the containers of ${dir}; stop it first.`)
          : error,
      ),
    );
    server.listen({ path: `\0bulkhead-runtime-${name}` }, resolve);
  });
  held.set(dir, server);
}

export function releaseStateDir(dir: string): void {
  held.get(dir)?.close();
  held.delete(dir);
}
