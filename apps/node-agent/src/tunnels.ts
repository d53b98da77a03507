/**
 * On a host that joined, NATS, the registry and the API's token endpoint are elsewhere, behind the
 * gate of the fleet. Here they are at the addresses that they have on the control plane's own host:
 * each connection to one is carried to the gate by mutual TLS. So nothing else of the agent, nor
 * skopeo, nor the names of images, knows of the difference. Whoever connects on this host still
 * needs credentials; containers cannot reach its loopback.
 */
import { readFile } from 'node:fs/promises';
import { createServer, isIPv4, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { apiServerName } from '@bulkhead/protocol';
import type { Logger } from 'pino';

export interface Tunnel {
  /** Where it listens, as host:port on loopback. */
  readonly from: string;
  /** The gate, as host:port. */
  readonly to: string;
}

const connectMs = 10_000;

/** Listens for as long as the process lives. `tlsDir` has `ca.pem`, `cert.pem` and `key.pem`, read anew for each connection. */
export async function openTunnels(
  tunnels: readonly Tunnel[],
  tlsDir: string,
  log: Logger,
): Promise<Server[]> {
  return Promise.all(tunnels.map((tunnel) => openTunnel(tunnel, tlsDir, log)));
}

async function openTunnel({ from, to }: Tunnel, tlsDir: string, log: Logger): Promise<Server> {
  const here = splitAddress(from);
  const there = splitAddress(to);
  if (!isIPv4(here.host) || !here.host.startsWith('127.'))
    throw new Error(`a tunnel listens on loopback, not on ${from}`);
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    carry(socket, there, tlsDir).catch((error: unknown) => {
      log.warn({ err: error, to }, 'the gate cannot be reached');
      socket.destroy();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(here.port, here.host, resolve);
  });
  return server;
}

async function carry(
  socket: Socket,
  to: { host: string; port: number },
  tlsDir: string,
): Promise<void> {
  socket.on('error', () => socket.destroy());
  const [ca, cert, key] = await Promise.all(
    ['ca', 'cert', 'key'].map((name) => readFile(join(tlsDir, `${name}.pem`))),
  );
  const remote = connect({ ...to, ca, cert, key, servername: apiServerName });
  remote.setTimeout(connectMs, () => remote.destroy(new Error('no answer')));
  // One that closed in good order has said all, and the other side may still be reading it.
  socket.once('close', (failed) => void (failed ? remote.destroy() : remote.end()));
  remote.once('close', (failed) => void (failed ? socket.destroy() : socket.end()));
  await new Promise<void>((resolve, reject) => {
    remote.once('secureConnect', resolve).once('error', reject);
  });
  remote.setTimeout(0).on('error', () => socket.destroy());
  // A host that vanished must not be waited for.
  remote.setKeepAlive(true, 10_000);
  remote.setNoDelay(true);
  socket.setNoDelay(true).pipe(remote).pipe(socket);
}

function splitAddress(address: string): { host: string; port: number } {
  const { hostname: host, port } = new URL(`tcp://${address}`);
  return { host, port: Number(port) };
}
