import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { createServer, type Server } from 'node:net';

/**
 * Makes this process the only agent on `directory`, or throws saying that there is one already.
 *
 * The lock is the name of an abstract unix socket: the kernel frees it with the process, however
 * that ends, and no file is left to go stale. The name follows the directory's inode, so that two
 * paths to one directory meet.
 */
export async function lockDirectory(directory: string): Promise<{ release(): Promise<void> }> {
  const { dev, ino } = statSync(directory);
  const name = createHash('sha256').update(`${dev}:${ino}`).digest('hex').slice(0, 32);
  const server = createServer((socket) => socket.destroy());
  await listen(server, `\0bulkhead-agent-${name}`, directory);
  server.unref();
  return {
    release: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

function listen(server: Server, name: string, directory: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const message =
        error.code === 'EADDRINUSE'
          ? `Another agent runs on ${directory}: stop it first, or give this one a NODE_DIR of its own.`
          : `Cannot lock ${directory}: ${error.message}`;
      reject(new Error(message, { cause: error }));
    });
    server.listen(name, resolve);
  });
}
