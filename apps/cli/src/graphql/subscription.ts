import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { CliError, Interrupted } from '../errors.ts';
import { clean, userAgent, type GraphqlClient } from './client.ts';
import type { Operation } from './operations.ts';
import { problemOf, type WireError } from './problem.ts';

/** The socket could not be opened or was lost; asking again, or over HTTP, may help. */
export class ConnectionLost extends Error {
  override readonly name = 'ConnectionLost';
}

const pingMs = 10_000;
const pongMs = 5_000;

/**
 * Runs a subscription over one WebSocket (protocol graphql-transport-ws, the path of the API with
 * ws for http) until it completes. Throws ConnectionLost when the socket fails, so that callers
 * decide how to go on; CliError for what the server refuses; Interrupted when the signal fires.
 */
export async function* subscribe<Result, Variables extends object>(
  client: GraphqlClient,
  operation: Operation<Result, Variables>,
  variables: Variables,
  raw = client.options.raw,
): AsyncGenerator<Result, void, void> {
  const { server, token, signal } = client.options;
  if (signal.aborted) throw new Interrupted();
  const authorization = token === null ? null : `Bearer ${token}`;
  const socket = connect(`${server.replace(/^http/, 'ws')}/graphql`, authorization);
  const iterator = socket.iterate({
    query: operation.document,
    variables: variables as Record<string, unknown>,
  });
  const stop = () => void iterator.return?.();
  signal.addEventListener('abort', stop, { once: true });
  try {
    for await (const answer of iterator) {
      if (answer.errors && answer.errors.length > 0) {
        throw problemOf(answer.errors as readonly WireError[], client.facts(variables));
      }
      if (answer.data) yield (raw ? answer.data : clean(answer.data)) as Result;
    }
  } catch (error) {
    throw asProblem(error, client, variables);
  } finally {
    signal.removeEventListener('abort', stop);
    void socket.dispose();
  }
  if (signal.aborted) throw new Interrupted();
}

function connect(url: string, authorization: string | null) {
  class Socket extends WebSocket {
    constructor(address: string, protocols?: string | string[]) {
      super(address, protocols, {
        handshakeTimeout: 10_000,
        headers: { 'user-agent': userAgent, ...(authorization === null ? {} : { authorization }) },
      });
    }
  }
  let pong: NodeJS.Timeout | undefined;
  const client = createClient({
    url,
    webSocketImpl: Socket,
    retryAttempts: 0,
    connectionAckWaitTimeout: 10_000,
    ...(authorization === null ? {} : { connectionParams: { authorization } }),
    // A link that died without a word would otherwise look like a deployment that takes long.
    keepAlive: pingMs,
    on: {
      ping: (received) => {
        if (!received) pong = setTimeout(() => client.terminate(), pongMs).unref();
      },
      pong: (received) => {
        if (received) clearTimeout(pong);
      },
      closed: () => clearTimeout(pong),
    },
  });
  return client;
}

function asProblem(error: unknown, client: GraphqlClient, variables: unknown): Error {
  if (error instanceof CliError || error instanceof ConnectionLost) return error;
  if (Array.isArray(error)) return problemOf(error as WireError[], client.facts(variables));
  if (client.options.signal.aborted) return new Interrupted();
  const { code, reason, message } = error as {
    code?: unknown;
    reason?: unknown;
    message?: unknown;
  };
  const said = typeof reason === 'string' && reason !== '' ? reason : String(message ?? 'closed');
  if (code === 4401 || code === 4403) {
    const name = code === 4401 ? 'UNAUTHENTICATED' : 'FORBIDDEN';
    return problemOf([{ message: said, extensions: { code: name } }], client.facts(variables));
  }
  return new ConnectionLost(said);
}
