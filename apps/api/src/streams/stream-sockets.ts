/**
 * Clients' ends of streams: a WebSocket whose first message is a ticket, joined to the node's end.
 * Bytes pass in both directions no faster than they are taken; the end of either is the end of both,
 * and so is the end of the right by which it was opened.
 */
import type { IncomingMessage, Server as HttpServer } from 'node:http';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import {
  channels,
  clientControl,
  DomainError,
  streamPath,
  streamProtocol,
  streamTicket,
  type ServerControl,
} from '@bulkhead/protocol';
import type { FromNode } from '@bulkhead/protocol/relay';
import type { Tenancy } from '@bulkhead/tenancy';
import { WebSocketServer, type RawData, type WebSocket } from 'ws';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { AccessChanges } from '../tenancy/access-changes.ts';
import type { NodeStream, Relay } from './relay.ts';
import type { Errand, Tickets } from './tickets.ts';

export const streamLimits = {
  /** Open sockets of this process, and of one user. */
  sockets: 2000,
  socketsOfUser: 100,
  /** From the opening to the ticket. Milliseconds. */
  ticketWaitMs: 5000,
  keepAliveMs: 15_000,
  /** How often the caller's right is looked at again though nobody said that it changed. Milliseconds. */
  recheckMs: 30_000,
  /** How long a task's socket waits for the task to run. Milliseconds. */
  taskWaitMs: 15 * 60_000,
};
const messageLimit = 1_048_576;
/** What may wait in a socket before the node is held up. */
const bufferedMost = 1_048_576;
const taskPollMs = 500;

export interface StreamSocketsOptions {
  readonly relay: Relay;
  readonly tickets: Tickets;
  readonly tenancy: Tenancy;
  readonly access: Pick<AccessChanges, 'watch'>;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly limits?: Partial<typeof streamLimits>;
}

export class StreamSockets {
  readonly #o: StreamSocketsOptions;
  readonly #limits: typeof streamLimits;
  readonly #sockets: WebSocketServer;
  readonly #ofUser = new Map<string, number>();
  #http: HttpServer | null = null;

  constructor(options: StreamSocketsOptions) {
    this.#o = options;
    this.#limits = { ...streamLimits, ...options.limits };
    this.#sockets = new WebSocketServer({
      noServer: true,
      maxPayload: messageLimit,
      perMessageDeflate: false,
      handleProtocols: (protocols) => (protocols.has(streamProtocol) ? streamProtocol : false),
    });
  }

  attach(http: HttpServer): void {
    this.#http = http;
    http.on('upgrade', this.#upgrade);
  }

  async close(): Promise<void> {
    this.#http?.off('upgrade', this.#upgrade);
    for (const socket of this.#sockets.clients) socket.close(1001, 'Going away');
    await delay(this.#sockets.clients.size === 0 ? 0 : 500);
    for (const socket of this.#sockets.clients) socket.terminate();
    this.#sockets.close();
  }

  readonly #upgrade = (request: IncomingMessage, stream: Duplex, head: Buffer): void => {
    if ((request.url ?? '').split('?')[0] !== streamPath) return;
    stream.on('error', () => stream.destroy());
    if (this.#sockets.clients.size >= this.#limits.sockets) {
      stream.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n');
      return;
    }
    this.#sockets.handleUpgrade(request, stream, head, (socket) => this.#serve(socket));
  };

  #serve(socket: WebSocket): void {
    const client = new ClientStream(socket, this.#limits.keepAliveMs);
    this.#session(client).catch((error: unknown) => {
      this.#o.log.error({ err: error }, 'a stream failed');
      client.fail({ code: 'UNAVAILABLE', message: 'The stream broke; try again' });
    });
  }

  async #session(client: ClientStream): Promise<void> {
    const first = await client.next(this.#limits.ticketWaitMs);
    const claimed = first && !first.isBinary ? ticketOf(first.data) : null;
    const errand = claimed === null ? null : this.#o.tickets.claim(claimed);
    if (!errand) return client.refuse('Show a ticket that is good, and in time');
    const { userId } = errand.caller;
    const open = this.#ofUser.get(userId) ?? 0;
    if (open >= this.#limits.socketsOfUser)
      return client.fail({
        code: 'UNAVAILABLE',
        message: `${open} streams of yours are open; end one first`,
      });
    this.#ofUser.set(userId, open + 1);
    const { kind } = errand.open;
    this.#o.metrics.streams.inc({ kind });
    let stopGuarding = () => {};
    try {
      stopGuarding = await this.#guard(client, errand);
      if (!client.closed.aborted) await this.#join(client, errand);
    } finally {
      stopGuarding();
      this.#o.metrics.streams.dec({ kind });
      const left = (this.#ofUser.get(userId) ?? 1) - 1;
      if (left > 0) this.#ofUser.set(userId, left);
      else this.#ofUser.delete(userId);
    }
  }

  /**
   * Ends the socket with the credential or the right that it was opened by. Resolves when both have
   * been looked at once: they may have ended since the mutation, and the node is not asked before.
   */
  async #guard(client: ClientStream, errand: Errand): Promise<() => void> {
    const { caller, tenantId, permission } = errand;
    const check = async () => {
      const identity = await errand.identify();
      const good =
        identity.kind === 'caller' && (await this.#o.tenancy.may(caller, { tenantId, permission }));
      if (!good) client.refuse('The right to this stream has ended');
    };
    const look = async () => {
      try {
        await check();
      } catch (error) {
        // The database is away: the stream lives on, the next look decides.
        this.#o.log.warn({ err: error }, 'a right could not be looked at again');
      }
    };
    const stop = this.#o.access.watch(caller.userId, () => void look());
    const timer = setInterval(() => void look(), this.#limits.recheckMs);
    const stopGuarding = () => {
      stop();
      clearInterval(timer);
    };
    try {
      await check();
    } catch (error) {
      stopGuarding();
      throw error;
    }
    return stopGuarding;
  }

  async #join(client: ClientStream, errand: Errand): Promise<void> {
    let node: NodeStream;
    try {
      const place = errand.node ?? (await this.#whenPlaced(client, errand));
      if (place === null) return;
      node = await this.#o.relay.open(place, errand.open, client.closed);
    } catch (error) {
      if (!(error instanceof DomainError)) throw error;
      return client.fail(error);
    }
    const end = () => node.close();
    client.closed.addEventListener('abort', end, { once: true });
    // It may have gone while the node was told what to do.
    if (client.closed.aborted) end();
    void toNode(client, node);
    try {
      for await (const frame of node.frames()) {
        if (await client.pass(frame)) return;
      }
      client.fail({ code: 'UNAVAILABLE', message: 'The connection to the node was lost' });
    } finally {
      node.close();
    }
  }

  /** The node of a task as soon as it runs or has run; null when it will not, and the client knows why. */
  async #whenPlaced(client: ClientStream, errand: Errand): Promise<string | null> {
    const { caller, tenantId, permission, appId, instance } = errand;
    const deadline = performance.now() + this.#limits.taskWaitMs;
    while (!client.closed.aborted && performance.now() < deadline) {
      const task = await this.#o.tenancy.run(caller, { tenantId, permission }, (tx) =>
        tx.instances.placeOfTask(appId, instance),
      );
      if (task.state === 'running' || task.state === 'ready') return task.nodeId;
      if (task.state === 'ended' && task.desired === 'running') return task.nodeId;
      if (task.desired === 'gone' || task.state === 'failed') {
        if (task.exitCode !== null) client.exit(task.exitCode);
        else client.fail({ code: 'CONFLICT', message: task.message ?? 'The task was stopped' });
        return null;
      }
      await delay(taskPollMs, undefined, { signal: client.closed }).catch(() => undefined);
    }
    client.fail({ code: 'UNAVAILABLE', message: 'The task did not start in time' });
    return null;
  }
}

async function toNode(client: ClientStream, node: NodeStream): Promise<void> {
  for (let next = await client.next(null); next; next = await client.next(null)) {
    const { data, isBinary } = next;
    const [channel] = data;
    const rest = data.subarray(1);
    if (!isBinary || channel === undefined) return client.refuse('Only binary messages follow');
    if (channel === channels.data) await node.send({ data: rest });
    else if (channel === channels.control) {
      const control = controlOf(rest);
      if (!control) return client.refuse('This control message is not known');
      if (control.kind === 'end') await node.send({ end: {} });
      if (control.kind === 'resize') await node.send({ resize: control.size });
      if (control.kind === 'signal') await node.send({ signal: control.name });
    } else return client.refuse('This channel is not for clients');
  }
}

interface Message {
  readonly data: Buffer;
  readonly isBinary: boolean;
}

/** One client's socket, message by message. */
class ClientStream {
  readonly #socket: WebSocket;
  readonly #queue: Message[] = [];
  readonly #closed = new AbortController();
  readonly closed: AbortSignal = this.#closed.signal;
  #waiting: (() => void) | null = null;

  constructor(socket: WebSocket, keepAliveMs: number) {
    this.#socket = socket;
    let answered = true;
    const timer = setInterval(() => {
      // What we do not read ourselves is no silence.
      if (!answered && !socket.isPaused) return socket.terminate();
      answered = false;
      socket.ping();
    }, keepAliveMs);
    socket.on('pong', () => (answered = true));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearInterval(timer);
      this.#closed.abort();
      this.#waiting?.();
    });
    socket.on('message', (data: RawData, isBinary) => {
      // A pong may stand behind a lot of data.
      answered = true;
      this.#queue.push({ data: asBuffer(data), isBinary });
      // Nothing more is read from the network until this is taken.
      socket.pause();
      this.#waiting?.();
    });
  }

  /** Null when the client is gone, or has said nothing for so long. */
  async next(withinMs: number | null): Promise<Message | null> {
    const deadline = withinMs === null ? null : AbortSignal.timeout(withinMs);
    while (this.#queue.length === 0 || this.closed.aborted) {
      if (this.closed.aborted || deadline?.aborted) return null;
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
        deadline?.addEventListener('abort', () => resolve(), { once: true });
      });
      this.#waiting = null;
    }
    const next = this.#queue.shift() ?? null;
    if (this.#queue.length === 0) this.#socket.resume();
    return next;
  }

  /** True after the last frame. */
  async pass(frame: FromNode): Promise<boolean> {
    if (frame.data) await this.#bytes(channels.data, frame.data);
    else if (frame.errorData) await this.#bytes(channels.errorData, frame.errorData);
    else if (frame.started) this.#control({ kind: 'started' });
    else if (frame.end) this.#control({ kind: 'end' });
    else if (frame.exit) {
      this.exit(frame.exit.code ?? 0);
      return true;
    } else if (frame.failure) {
      const { code = 'UNAVAILABLE', message = 'The node failed' } = frame.failure;
      this.fail({ code, message });
      return true;
    }
    return false;
  }

  exit(code: number): void {
    this.#control({ kind: 'exit', code });
    this.#socket.close(1000);
  }

  fail({ code, message }: { code: string; message: string }): void {
    this.#control({ kind: 'failure', code, message });
    this.#socket.close(1000);
  }

  /** Ends it at once: a client that does not answer the closing keeps its socket for a while, and nothing more. */
  refuse(reason: string): void {
    this.#socket.close(4401, reason);
    this.#closed.abort();
    this.#waiting?.();
  }

  #control(control: ServerControl): void {
    const text = Buffer.from(JSON.stringify(control));
    void this.#send(Buffer.concat([Buffer.of(channels.control), text]));
  }

  async #bytes(channel: number, bytes: Buffer): Promise<void> {
    const sent = this.#send(Buffer.concat([Buffer.of(channel), bytes]));
    if (this.#socket.bufferedAmount > bufferedMost) await sent;
  }

  #send(message: Buffer): Promise<void> {
    return new Promise((resolve) => {
      if (this.#socket.readyState !== this.#socket.OPEN) return resolve();
      this.#socket.send(message, () => resolve());
    });
  }
}

function ticketOf(data: Buffer): string | null {
  const parsed = streamTicket.safeParse(jsonOf(data));
  return parsed.success ? parsed.data.ticket : null;
}

function controlOf(data: Buffer) {
  const parsed = clientControl.safeParse(jsonOf(data));
  return parsed.success ? parsed.data : null;
}

function jsonOf(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'));
  } catch {
    return null;
  }
}

const asBuffer = (data: RawData): Buffer =>
  Array.isArray(data) ? Buffer.concat(data) : Buffer.isBuffer(data) ? data : Buffer.from(data);
