import http from 'node:http';
import { createClient, type Client } from 'graphql-ws';
import WebSocket from 'ws';

/** What the API answered with; `code` is the stable one of the first error. */
export class GraphqlError extends Error {
  override readonly name = 'GraphqlError';
  readonly code: string;
  constructor(errors: { message: string; extensions?: { code?: string } }[]) {
    super(errors.map((e) => e.message).join('; '));
    this.code = errors[0]?.extensions?.code ?? 'NONE';
  }
}

/** A GraphQL client with nothing of ours in it: fetch and the stock graphql-ws client. */
export class ApiClient {
  readonly url: string;
  readonly token: string | null;

  constructor(url: string, token: string | null = null) {
    this.url = url;
    this.token = token;
  }

  as(token: string): ApiClient {
    return new ApiClient(this.url, token);
  }

  // The shape of the answer follows from the query text; naming it is the caller's business.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  async ask<T = any>(query: string, variables: Record<string, unknown> = {}): Promise<T> {
    const response = await fetch(this.url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/graphql-response+json, application/json',
        ...(this.token === null ? {} : { authorization: `Bearer ${this.token}` }),
      },
      body: JSON.stringify({ query, variables }),
    });
    const body = (await response.json()) as { data: T; errors?: [] };
    if (body.errors !== undefined) throw new GraphqlError(body.errors);
    return body.data;
  }

  socket(): Client {
    return createClient({
      url: this.url.replace('http', 'ws'),
      webSocketImpl: WebSocket,
      connectionParams: this.token === null ? {} : { authorization: `Bearer ${this.token}` },
    });
  }
}

/** Requests `path` of a host through the edge, on a connection of its own. */
export function visit(
  edgePort: number,
  host: string,
  path = '/',
  agent?: http.Agent,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = http.get(
      {
        host: '127.0.0.1',
        port: edgePort,
        path,
        headers: { host },
        timeout: 10_000,
        ...(agent ? { agent } : {}),
      },
      (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => (body += chunk));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
        response.on('error', reject);
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer in 10 s')));
    request.on('error', reject);
  });
}

/**
 * Requests without pause over keep-alive connections until `stop`; counts what was not a 200.
 * `seen` is told every good answer.
 */
export function load(
  edgePort: number,
  host: string,
  path = '/',
  { connections = 4, seen = (_body: string): void => undefined } = {},
) {
  const failures: string[] = [];
  let requests = 0;
  let stopped = false;
  const workers = Array.from({ length: connections }, async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    while (!stopped) {
      try {
        const { status, body } = await visit(edgePort, host, path, agent);
        if (status === 200) seen(body);
        else failures.push(`${status} ${body.slice(0, 100)}`);
      } catch (error) {
        failures.push(String(error));
      }
      requests += 1;
    }
    agent.destroy();
  });
  return {
    async stop() {
      stopped = true;
      await Promise.all(workers);
      return { requests, failures };
    },
  };
}
