import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { graphql, parse, validate, type GraphQLSchema } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';
import { streamPath, streamProtocol } from '@bulkhead/protocol';
import { FakePlatform, type Context } from './fake-platform.ts';
import { loadSchema } from './schema.ts';

/** A GraphQL server over the fake platform, and ways for it to misbehave. */
export class FakeServer {
  readonly platform = new FakePlatform();
  /** Every HTTP request's operation and Authorization header. */
  readonly requests: { body: string; authorization: string | undefined }[] = [];
  /** Answers instead of GraphQL when set. */
  answer: ((response: ServerResponse) => void) | null = null;
  /** False: upgrades get 404, as behind a proxy that knows no WebSockets. */
  sockets = true;
  socketsOpened = 0;
  /** What sockets of streams asked for. */
  readonly streamUrls: string[] = [];
  readonly #schema: GraphQLSchema = loadSchema();
  readonly #http: Server;
  readonly #ws = new WebSocketServer({ noServer: true });
  readonly #streams = new WebSocketServer({
    noServer: true,
    handleProtocols: (offered) => offered.has(streamProtocol) && streamProtocol,
  });

  constructor() {
    this.#http = createServer((request, response) => void this.#handle(request, response));
    // Methods of a class are as good as entries of a record; the types only know the latter.
    const root = this.platform as unknown as Record<string, object>;
    useServer(
      {
        schema: this.#schema,
        roots: { query: root, mutation: root, subscription: root },
        context: ({ connectionParams }): Context & Record<string, unknown> => ({
          authorization:
            typeof connectionParams?.['authorization'] === 'string'
              ? connectionParams['authorization']
              : null,
        }),
      },
      this.#ws,
    );
    this.#http.on('upgrade', (request, socket, head) => {
      if (this.sockets && request.url?.split('?')[0] === streamPath) {
        this.streamUrls.push(request.url);
        this.#streams.handleUpgrade(request, socket, head, (client) =>
          this.platform.remote.streams.accept(client),
        );
        return;
      }
      if (!this.sockets || this.answer !== null || request.url !== '/graphql') {
        socket.end('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n');
        return;
      }
      this.#ws.handleUpgrade(request, socket, head, (client) => {
        this.socketsOpened += 1;
        this.#ws.emit('connection', client, request);
      });
    });
  }

  get url(): string {
    return `http://127.0.0.1:${String((this.#http.address() as AddressInfo).port)}`;
  }

  async start(port = 0): Promise<this> {
    await new Promise<void>((resolve) => this.#http.listen(port, '127.0.0.1', resolve));
    return this;
  }

  /** Cuts every open socket, as a restart would. */
  dropSockets(): void {
    for (const client of [...this.#ws.clients, ...this.#streams.clients]) client.terminate();
  }

  async stop(): Promise<void> {
    this.dropSockets();
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    this.requests.push({ body, authorization: request.headers.authorization });
    if (this.answer !== null) {
      this.answer(response);
      return;
    }
    const { query, variables } = JSON.parse(body) as {
      query: string;
      variables: Record<string, unknown>;
    };
    const wrong = validate(this.#schema, parse(query));
    const result =
      wrong.length > 0
        ? {
            errors: wrong.map(({ message }) => ({
              message,
              extensions: { code: 'GRAPHQL_VALIDATION_FAILED' },
            })),
          }
        : await graphql({
            schema: this.#schema,
            source: query,
            variableValues: variables,
            rootValue: this.platform,
            contextValue: {
              authorization: request.headers.authorization ?? null,
            } satisfies Context,
          });
    response.writeHead(200, { 'content-type': 'application/graphql-response+json' });
    response.end(JSON.stringify(result));
  }
}
