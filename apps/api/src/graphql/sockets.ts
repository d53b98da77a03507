/**
 * GraphQL over WebSocket: the protocol graphql-transport-ws by the graphql-ws server, on the port
 * and path of the HTTP endpoint. Queries and mutations travel here too, so everything that guards
 * HTTP guards this: the same schema with its guards, the same limits, the same authentication. A
 * socket lives no longer than the credential it was opened with.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, Server as HttpServer } from 'node:http';
import type { Duplex } from 'node:stream';
import { CloseCode, makeServer, type Context, type Server } from 'graphql-ws';
import {
  GraphQLError,
  execute,
  getOperationAST,
  subscribe,
  type ExecutionArgs,
  type GraphQLSchema,
} from 'graphql';
import { WebSocketServer, type WebSocket } from 'ws';
import { streamPath } from '@bulkhead/protocol';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { formatError } from './errors.ts';
import { prepareOperation } from './operations.ts';
import type { Identity, RequestContext } from './request-context.ts';

export const socketLimits = {
  /** Open sockets of this process. */
  sockets: 2000,
  /** Subscriptions, and queries and mutations in the work, of one socket. */
  operations: 20,
  /** From the opening to the client's `connection_init`. Milliseconds. */
  initWaitMs: 5000,
  /** Ping, and how long the answer may take. Milliseconds. */
  keepAliveMs: 15_000,
  /** How often the credential is looked at again even if nobody said that it changed. Milliseconds. */
  recheckMs: 30_000,
};

export interface SocketOptions {
  path: string;
  schema: GraphQLSchema;
  /** Bytes of a message. */
  messageLimit: number;
  log: Logger;
  metrics: Metrics;
  /** The client's, also behind a trusted proxy. */
  addressOf: (request: IncomingMessage) => string;
  identify: (authorization: string | undefined) => Promise<Identity>;
  /** By the clock that credentials go by. */
  now: () => Date;
  /** Calls `look` when a user may do less than before; answers how to stop. */
  watchAccess?: (userId: string, look: () => void) => () => void;
  makeContext: (
    identity: Identity,
    address: string,
    requestId: string,
    identify: () => Promise<Identity>,
  ) => RequestContext;
  /** For tests. */
  limits?: Partial<typeof socketLimits>;
}

/** What is known of one socket. */
interface Extra {
  readonly socket: WebSocket;
  readonly address: string;
  identity: Identity;
  /** Looks at its credential again. */
  identify: () => Promise<Identity>;
  /** Operations in the work; the client's `complete` does not lower it before the work has ended. */
  running: number;
  readonly timers: Set<NodeJS.Timeout>;
  stopWatching: () => void;
}
type SocketContext = Context<Record<string, unknown>, Extra>;

export class GraphqlSockets {
  readonly #options: SocketOptions;
  readonly #limits: typeof socketLimits;
  readonly #protocol: Server<Extra>;
  readonly #sockets: WebSocketServer;
  #http: HttpServer | null = null;

  constructor(options: SocketOptions) {
    this.#options = options;
    this.#limits = { ...socketLimits, ...options.limits };
    this.#sockets = new WebSocketServer({
      noServer: true,
      maxPayload: options.messageLimit,
      perMessageDeflate: false,
      handleProtocols: (protocols) =>
        protocols.has('graphql-transport-ws') ? 'graphql-transport-ws' : false,
    });
    this.#protocol = makeServer<Record<string, unknown>, Extra>({
      connectionInitWaitTimeout: this.#limits.initWaitMs,
      onConnect: (context) => this.#authenticate(context),
      onSubscribe: (context, _id, payload) => this.#prepare(context, payload),
      execute: (args) => this.#counted(args, () => execute(args)),
      subscribe: (args) => this.#subscribe(args),
      onNext: (_context, _id, _payload, args, result) =>
        ({
          ...result,
          errors: result.errors && this.#formatted(result.errors, args),
        }) as never,
      onError: (_context, _id, _payload, errors) =>
        errors.map((error) => this.#format(error, randomUUID())),
    });
  }

  /** Starts taking sockets of this HTTP server. */
  attach(http: HttpServer): void {
    this.#http = http;
    http.on('upgrade', this.#upgrade);
  }

  /** Tells every client to go elsewhere, and waits until they are gone or 2 s have passed. */
  async close(): Promise<void> {
    this.#http?.off('upgrade', this.#upgrade);
    for (const socket of this.#sockets.clients) socket.close(1001, 'Going away');
    const closed = new Promise<void>((resolve) => this.#sockets.close(() => resolve()));
    const tooLong = setTimeout(() => {
      for (const socket of this.#sockets.clients) socket.terminate();
    }, 2000);
    await closed;
    clearTimeout(tooLong);
  }

  readonly #upgrade = (request: IncomingMessage, stream: Duplex, head: Buffer): void => {
    const path = (request.url ?? '').split('?')[0];
    // Those of streams, on the same server.
    if (path === streamPath) return;
    stream.on('error', () => stream.destroy());
    if (path !== this.#options.path) {
      stream.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n');
      return;
    }
    if (this.#sockets.clients.size >= this.#limits.sockets) {
      stream.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n');
      return;
    }
    this.#sockets.handleUpgrade(request, stream, head, (socket) =>
      this.#serve(socket, this.#options.addressOf(request)),
    );
  };

  #serve(socket: WebSocket, address: string): void {
    const { log, metrics } = this.#options;
    const extra: Extra = {
      socket,
      address,
      identity: { kind: 'anonymous' },
      identify: () => this.#options.identify(undefined),
      running: 0,
      timers: new Set(),
      stopWatching: () => undefined,
    };
    metrics.sockets.inc();
    socket.on('error', (error) => log.debug({ error: error.message }, 'socket failed'));
    this.#keepAlive(extra);
    const closed = this.#protocol.opened(
      {
        protocol: socket.protocol,
        // Waits until the client took it: a slow client slows its own subscriptions, nothing piles up.
        send: (data) =>
          new Promise((resolve, reject) => {
            if (socket.readyState !== socket.OPEN) resolve();
            else socket.send(data, (error) => (error ? reject(error) : resolve()));
          }),
        close: (code, reason) => socket.close(code, reason),
        onMessage: (handle) => {
          socket.on('message', (message) => {
            handle(String(message)).catch((error: unknown) => {
              log.error({ err: error }, 'message on a socket could not be handled');
              socket.close(CloseCode.InternalServerError, 'Internal server error');
            });
          });
        },
      },
      extra,
    );
    socket.once('close', (code, reason) => {
      for (const timer of extra.timers) clearInterval(timer);
      extra.stopWatching();
      metrics.sockets.dec();
      closed(code, String(reason)).catch((error: unknown) =>
        log.error({ err: error }, 'a closed socket could not be tidied up'),
      );
    });
  }

  #keepAlive({ socket, timers }: Extra): void {
    let answered = true;
    socket.on('pong', () => (answered = true));
    timers.add(
      setInterval(() => {
        if (!answered) return socket.terminate();
        answered = false;
        socket.ping();
      }, this.#limits.keepAliveMs),
    );
  }

  /** `connection_init`: no credential is fine (public operations), a bad one is not. */
  async #authenticate(context: SocketContext): Promise<void> {
    const { extra } = context;
    const given =
      context.connectionParams?.['authorization'] ?? context.connectionParams?.['Authorization'];
    const authorization = typeof given === 'string' ? given : undefined;
    extra.identify = () => this.#options.identify(authorization);
    await this.#identify(extra);
    if (extra.identity.kind !== 'caller') return;

    const { expiresAt } = extra.identity;
    if (expiresAt) {
      const left = Math.max(expiresAt.getTime() - this.#options.now().getTime(), 0);
      extra.timers.add(setTimeout(() => endSocket(extra, 'The session has ended'), left));
    }
    const recheck = () =>
      this.#identify(extra).catch((error: unknown) =>
        // The database is away: the socket lives on, the next look decides.
        this.#options.log.warn({ err: error }, 'a credential could not be looked at again'),
      );
    extra.timers.add(setInterval(() => void recheck(), this.#limits.recheckMs));
    const { userId } = extra.identity.caller;
    extra.stopWatching();
    extra.stopWatching =
      this.#options.watchAccess?.(userId, () => void recheck()) ?? extra.stopWatching;
    // It may have closed while its credential was looked at.
    if (extra.socket.readyState === extra.socket.CLOSED) extra.stopWatching();
  }

  async #identify(extra: Extra): Promise<void> {
    const identity = await extra.identify();
    if (identity.kind === 'refused' && identity.error.code === 'UNAUTHENTICATED') {
      endSocket(extra, identity.error.message);
    }
    if (identity.kind !== 'refused') extra.identity = identity;
  }

  #prepare(
    context: SocketContext,
    payload: Parameters<typeof prepareOperation>[1],
  ): ExecutionArgs | readonly GraphQLError[] {
    const { extra } = context;
    if (extra.running >= this.#limits.operations) {
      const message = `At most ${this.#limits.operations} operations may run on one socket; end one first`;
      return [new GraphQLError(message, { extensions: { code: 'UNAVAILABLE' } })];
    }
    const request = this.#options.makeContext(
      extra.identity,
      extra.address,
      randomUUID(),
      extra.identify,
    );
    const prepared = prepareOperation(this.#options.schema, payload, request);
    if (!Array.isArray(prepared)) running.set(request, extra);
    return prepared;
  }

  async #counted<T>(args: ExecutionArgs, work: () => Promise<T> | T): Promise<T> {
    const request = args.contextValue as RequestContext;
    const extra = running.get(request);
    const stop = this.#options.metrics.operations.startTimer({ transport: 'socket' });
    if (extra) extra.running += 1;
    try {
      return await work();
    } finally {
      if (extra) extra.running -= 1;
      stop({ operation: request.operation });
    }
  }

  /** As `execute`, and what it gives is counted until the stream has ended. */
  async #subscribe(args: ExecutionArgs) {
    const operation = getOperationAST(args.document, args.operationName);
    const result = await this.#counted(args, () => subscribe(args));
    if (!(Symbol.asyncIterator in result) || operation === null) return result;
    const extra = running.get(args.contextValue as RequestContext);
    if (extra) extra.running += 1;
    this.#options.metrics.subscriptions.inc();
    return whenEnded(result, () => {
      if (extra) extra.running -= 1;
      this.#options.metrics.subscriptions.dec();
    });
  }

  #formatted(errors: readonly GraphQLError[], args: ExecutionArgs) {
    const { requestId } = args.contextValue as RequestContext;
    return errors.map((error) => this.#format(error, requestId));
  }

  #format(error: GraphQLError, reference: string) {
    const formatted = formatError(error, this.#options.log, reference);
    this.#options.metrics.errors.inc({ code: String(formatted.extensions?.['code']) });
    return formatted;
  }
}

/** Which socket an operation runs on. */
const running = new WeakMap<RequestContext, Extra>();

/** 4401 and 4403 tell clients not to try again with the same credential. */
function endSocket({ socket }: Extra, reason: string): void {
  socket.close(CloseCode.Unauthorized, reason.slice(0, 120));
}

/** The same events, and `ended` is called once when there will be no more. */
function whenEnded<T>(
  events: AsyncGenerator<T, void, void>,
  ended: () => void,
): AsyncGenerator<T, void, void> {
  let over = false;
  const end = () => {
    if (!over) ended();
    over = true;
  };
  const watched = async (step: Promise<IteratorResult<T, void>>) => {
    try {
      const result = await step;
      if (result.done) end();
      return result;
    } catch (error) {
      end();
      throw error;
    }
  };
  return {
    next: () => watched(events.next()),
    return: () => watched(events.return()),
    throw: (error: unknown) => watched(events.throw(error)),
    [Symbol.asyncIterator]() {
      return this;
    },
    [Symbol.asyncDispose]: async () => {
      await watched(events.return());
    },
  };
}
