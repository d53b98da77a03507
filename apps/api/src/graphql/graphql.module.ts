import { Inject, Module, type OnApplicationBootstrap, type OnModuleInit } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { GraphQLModule, GraphQLSchemaHost } from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';
import clientAddress from '@fastify/proxy-addr';
import type { Tenancy } from '@bulkhead/tenancy';
import type { FastifyInstance } from 'fastify';
import { getOperationAST, type ExecutionResult } from 'graphql';
import { Authenticator } from '../auth/authenticator.ts';
import { LOGGER, type Logger } from '../logger.ts';
import { METRICS, type Metrics } from '../metrics/metrics.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { AccessChanges } from '../tenancy/access-changes.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import { DateTime } from './date-time.ts';
import { formatError } from './errors.ts';
import { graphqlHttp } from './http.ts';
import { limitRules, limits } from './limits.ts';
import { checkOperation } from './operations.ts';
import { RequestContext, type Identity } from './request-context.ts';
import { GraphqlSockets } from './sockets.ts';

const path = '/graphql';
/** Bytes of a request or a socket's message: config may be 256 KiB. */
const bodyLimit = 1_048_576;

/** What Nest and Mercurius are told; the routes are ours (http.ts, sockets.ts). */
export const graphqlOptions: MercuriusDriverConfig = {
  autoSchemaFile: true,
  sortSchema: true,
  buildSchemaOptions: { scalarsMap: [{ type: Date, scalar: DateTime }], noDuplicatedFields: true },
  // Computed fields are guarded like operations.
  fieldResolverEnhancers: ['guards', 'filters'],
  path,
  routes: false,
  graphiql: false,
  validationRules: [...limitRules],
  graphql: { parseOptions: { maxTokens: limits.tokens }, validateOptions: { maxErrors: 20 } },
  hooks: {
    preExecution: (schema, document, context, variables) => {
      const request = context as unknown as RequestContext;
      const operation = getOperationAST(document, request.operationName);
      if (operation) checkOperation(schema, document, operation, variables, request);
    },
  },
  errorFormatter: (execution: ExecutionResult, context) => {
    const { log, requestId } = context as unknown as RequestContext;
    const errors = (execution.errors ?? []).map((error) => formatError(error, log, requestId));
    return { statusCode: 200, response: { data: execution.data ?? null, errors: errors as never } };
  },
};

@Module({
  imports: [
    GraphQLModule.forRoot<MercuriusDriverConfig>({ driver: MercuriusDriver, ...graphqlOptions }),
  ],
})
export class GraphqlModule implements OnModuleInit, OnApplicationBootstrap {
  #sockets: GraphqlSockets | null = null;

  constructor(
    @Inject(SETTINGS) private readonly settings: Settings,
    @Inject(HttpAdapterHost) private readonly host: HttpAdapterHost,
    @Inject(GraphQLSchemaHost) private readonly schemaHost: GraphQLSchemaHost,
    @Inject(TENANCY) private readonly tenancy: Tenancy,
    @Inject(Authenticator) private readonly authenticator: Authenticator,
    @Inject(AccessChanges) private readonly access: AccessChanges,
    @Inject(METRICS) private readonly metrics: Metrics,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  async onModuleInit(): Promise<void> {
    await this.#fastify().register(
      graphqlHttp({
        path,
        bodyLimit,
        log: this.logger,
        metrics: this.metrics,
        makeContext: async (request) => {
          const identify = () => this.authenticator.identify(request.headers.authorization);
          const identity = await identify();
          const transport = request.method === 'POST' ? 'post' : 'get';
          return this.#context(identity, transport, request.ip, request.id, identify);
        },
      }),
    );
  }

  onApplicationBootstrap(): void {
    this.#sockets = new GraphqlSockets({
      path,
      schema: this.schemaHost.schema,
      messageLimit: bodyLimit,
      log: this.logger,
      metrics: this.metrics,
      identify: (authorization) => this.authenticator.identify(authorization),
      now: this.tenancy.now,
      addressOf: (request) =>
        request.socket.remoteAddress === undefined
          ? 'unknown'
          : clientAddress(request, [...this.settings.trustedProxies]),
      watchAccess: (userId, look) => this.access.watch(userId, look),
      makeContext: (identity, address, requestId, identify) =>
        this.#context(identity, 'socket', address, requestId, identify),
    });
    this.#sockets.attach(this.#fastify().server);
  }

  /** Sockets first: an HTTP server does not close while they are open. */
  async beforeApplicationShutdown(): Promise<void> {
    await this.#sockets?.close();
  }

  #context(
    identity: Identity,
    transport: RequestContext['transport'],
    address: string,
    requestId: string,
    identify: () => Promise<Identity>,
  ): RequestContext {
    const { tenancy, logger } = this;
    return new RequestContext(tenancy, identity, transport, address, requestId, logger, identify);
  }

  #fastify(): FastifyInstance {
    return this.host.httpAdapter.getInstance<FastifyInstance>();
  }
}
