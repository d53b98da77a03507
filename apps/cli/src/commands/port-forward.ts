import { createServer, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import type { Command } from 'commander';
import { CliError, Interrupted, usageError } from '../errors.ts';
import { forwardPort } from '../graphql/operations.ts';
import type { StreamTicket } from '../graphql/types.ts';
import { plainText } from '../output/text.ts';
import type { Session } from '../session.ts';
import { Stream } from '../streams/stream.ts';
import { instanceId } from './instance-name.ts';
import { appOptions, examples, type Act } from './kit.ts';

interface PortOptions {
  readonly process?: string;
  readonly address: string;
  readonly verbose?: boolean;
}

export interface PortPair {
  readonly local: number;
  readonly remote: number;
}

const pairPattern = /^(?:(\d{0,5}):)?(\d{1,5})$/;

/** `8080:80`, `8080` for both, `:80` and `0:80` for any free one here. Null for no pair of ports. */
export function parsePorts(text: string): PortPair | null {
  const match = pairPattern.exec(text);
  if (!match) return null;
  const remote = Number(match[2]);
  const local = match[1] === undefined ? remote : Number(match[1]);
  if (local > 65_535 || remote < 1 || remote > 65_535)
    throw usageError(`${text}: ports are from 1 to 65535`);
  return { local, remote };
}

/** A ticket that is good for many connections, got anew before it ends. */
class Tickets {
  readonly #get: () => Promise<StreamTicket>;
  #current: Promise<StreamTicket> | null = null;
  #until = 0;

  constructor(get: () => Promise<StreamTicket>) {
    this.#get = get;
  }

  async take(): Promise<StreamTicket> {
    if (this.#current === null || Date.now() >= this.#until) {
      this.#until = Number.POSITIVE_INFINITY;
      this.#current = this.#get();
      try {
        this.#until = Date.parse((await this.#current).expiresAt) - 10_000;
      } catch (error) {
        this.#current = null;
        throw error;
      }
    }
    return this.#current;
  }
}

/** One connection: bytes both ways, each way ended on its own, as TCP has it. */
async function carry(session: Session, ticket: StreamTicket, socket: Socket): Promise<void> {
  const stream = new Stream(session, ticket, {
    data: async (bytes) => {
      if (!socket.destroyed && !socket.write(bytes)) {
        await new Promise<void>((resolve) => {
          const go = () => {
            socket.off('drain', go).off('close', go);
            resolve();
          };
          socket.on('drain', go).on('close', go);
        });
      }
    },
    end: () => void socket.end(),
  });
  socket.on('data', (bytes: Buffer) => {
    socket.pause();
    void stream.send(bytes).then(() => socket.resume());
  });
  socket.on('end', () => void stream.end());
  socket.on('close', () => stream.close());
  try {
    await stream.done;
  } finally {
    if (!socket.destroyed) socket.end();
  }
}

async function listen(server: Server, { local }: PortPair, address: string): Promise<AddressInfo> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'EADDRINUSE'
          ? 'something listens there already'
          : error.code === 'EACCES'
            ? 'that is not allowed to you'
            : error.message;
      reject(
        new CliError('FAILED', `cannot listen on ${address} port ${String(local)}: ${why}`, {
          hint: 'Choose another port, or 0 for any that is free: 0:8080.',
        }),
      );
    });
    server.listen(local, address, resolve);
  });
  return server.address() as AddressInfo;
}

async function forward(session: Session, options: PortOptions, words: string[]): Promise<void> {
  const [first = ''] = words;
  const named = parsePorts(first) === null;
  const pairs = (named ? words.slice(1) : words).map((text) => {
    const pair = parsePorts(text);
    if (pair === null)
      throw usageError(`"${text}" is no pair of ports`, 'Write LOCAL:REMOTE, as 8080:80.');
    return pair;
  });
  if (pairs.length === 0)
    throw usageError('no ports given', 'Example: bulkhead port-forward --app hello 8080:80');
  const { out, io } = session;
  const at = session.app();
  const client = session.client();
  const where = {
    ...at,
    instance: named ? await instanceId(client, at, first) : null,
    process: options.process ?? null,
  };
  const servers: Server[] = [];
  const sockets = new Set<Socket>();
  const say = (text: string) => options.verbose === true && out.note(text);
  try {
    for (const pair of pairs) {
      const tickets = new Tickets(async () => {
        const { forwardPort: ticket } = await client.request(forwardPort, {
          input: { ...where, port: pair.remote },
        });
        return ticket;
      });
      // Before anybody connects: what is wrong is told now.
      const { instance } = await tickets.take();
      const server = createServer({ allowHalfOpen: true }, (socket) => {
        const from = `${socket.remoteAddress ?? ''}:${String(socket.remotePort ?? '')}`;
        sockets.add(socket);
        socket.on('close', () => sockets.delete(socket));
        socket.on('error', () => socket.destroy());
        say(`${from} -> ${String(pair.remote)}: opened`);
        tickets
          .take()
          .then((ticket) => carry(session, ticket, socket))
          .then(() => say(`${from} -> ${String(pair.remote)}: closed`))
          .catch((error: unknown) => {
            socket.destroy();
            out.warn(`${from} -> ${String(pair.remote)}: ${plainText((error as Error).message)}`);
          });
      });
      servers.push(server);
      const { address, port } = await listen(server, pair, options.address);
      out.record({ address, port, instance, remotePort: pair.remote });
      const shown = address.includes(':') ? `[${address}]` : address;
      out.line(`Forwarding ${shown}:${String(port)} -> ${instance}:${String(pair.remote)}`);
    }
    if (!io.signal.aborted)
      await new Promise((resolve) => io.signal.addEventListener('abort', resolve, { once: true }));
    throw new Interrupted('no longer forwarding');
  } finally {
    for (const server of servers) server.close();
    for (const socket of sockets) socket.destroy();
  }
}

export function portForwardCommand(program: Command, act: Act): void {
  examples(
    appOptions(
      program
        .command('port-forward')
        .description('Reach ports of an instance on this machine')
        .argument('[instance-or-ports...]', 'an instance, unless any will do; LOCAL:REMOTE, ...')
        .option('-p, --process <name>', 'an instance of this process (default: web or the first)')
        .option('--address <ip>', 'where to listen', '127.0.0.1')
        .option('-v, --verbose', 'tell of each connection'),
    ).action(
      act((session, options: PortOptions, words: string[]) => forward(session, options, words)),
    ),
    ['port-forward --app hello 8080:80', 'port-forward i3k9 5432 0:9090 --app hello -v'],
    'Port 0 here is any that is free. Ends with Ctrl-C.',
  );
}
