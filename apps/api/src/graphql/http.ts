/**
 * GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/), around Mercurius' engine.
 * Mercurius' own routes are off: they answer with the wrong media types and status codes for parts
 * of the specification. Only `application/json` bodies are read, which a browser does not send to
 * another origin without asking first: there is nothing for a forged form to do.
 */
import type {} from 'mercurius';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ExecutionResult, GraphQLFormattedError } from 'graphql';
import { z } from 'zod';
import { DomainError, assertNever } from '@bulkhead/protocol';
import type { Logger } from '../logger.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { formatError, requestError } from './errors.ts';
import { MethodNotAllowed, looksLikeJson } from './operations.ts';
import type { RequestContext } from './request-context.ts';

const json = 'application/json';
const graphqlJson = 'application/graphql-response+json';
type MediaType = typeof json | typeof graphqlJson;

export interface GraphqlHttpOptions {
  path: string;
  /** Bytes of a request's body. */
  bodyLimit: number;
  log: Logger;
  metrics: Metrics;
  makeContext: (request: FastifyRequest) => Promise<RequestContext>;
}

const parameters = z.object({
  query: z.string().min(1),
  operationName: z.string().nullish(),
  variables: z.record(z.string(), z.unknown()).nullish(),
  extensions: z.record(z.string(), z.unknown()).nullish(),
});

/** The Fastify plugin with the routes of GraphQL. */
export function graphqlHttp(options: GraphqlHttpOptions) {
  return async (fastify: FastifyInstance): Promise<void> => {
    fastify.removeAllContentTypeParsers();
    fastify.addContentTypeParser(
      json,
      { parseAs: 'string', bodyLimit: options.bodyLimit },
      fastify.getDefaultJsonParser('error', 'error'),
    );
    fastify.setErrorHandler((error, request, reply) => refuse(error, request, reply, options));
    fastify.get<{ Querystring: Record<string, string> }>(options.path, async (request, reply) =>
      answer(fastify, options, request, reply, fromQueryString(request.query)),
    );
    fastify.post(options.path, { bodyLimit: options.bodyLimit }, async (request, reply) =>
      answer(fastify, options, request, reply, request.body),
    );
  };
}

async function answer(
  fastify: FastifyInstance,
  options: GraphqlHttpOptions,
  request: FastifyRequest,
  reply: FastifyReply,
  given: unknown,
): Promise<FastifyReply> {
  const mediaType = negotiate(request.headers.accept);
  if (!mediaType) {
    return send(reply, json, 406, {
      errors: [badRequest(`This address answers with ${json} or ${graphqlJson}`)],
    });
  }
  const parsed = parameters.safeParse(given);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const message = Array.isArray(given)
      ? 'Send one operation at a time'
      : `The parameter ${issue?.path.join('.') || 'query'} is missing or wrong: ${issue?.message ?? ''}`;
    return send(reply, mediaType, 400, { errors: [badRequest(message)] });
  }

  const { query, variables, operationName } = parsed.data;
  const context = await options.makeContext(request);
  const stop = options.metrics.operations.startTimer({ transport: 'http' });
  context.operationName = operationName ?? null;
  const outcome = await execute(fastify, query, variables ?? {}, context);
  stop({ operation: outcome.kind === 'executed' ? context.operation : 'invalid' });
  for (const error of outcome.body.errors ?? []) {
    options.metrics.errors.inc({ code: String(error.extensions?.['code']) });
  }
  return send(reply, mediaType, statusOf(outcome, mediaType), outcome.body);
}

interface Body {
  errors?: readonly GraphQLFormattedError[];
  data?: unknown;
}
type Outcome = { kind: 'executed' | 'refused' | 'method-not-allowed' | 'failed'; body: Body };

async function execute(
  fastify: FastifyInstance,
  query: string,
  variables: Record<string, unknown>,
  context: RequestContext,
): Promise<Outcome> {
  try {
    if (looksLikeJson(query)) {
      throw requestError('GRAPHQL_PARSE_FAILED', 'Syntax Error: the query is JSON, not GraphQL');
    }
    const { data, errors } = await runMercurius(fastify, query, variables, context);
    // Errors first: that is what a person should see of a long answer.
    return { kind: 'executed', body: errors ? { errors, data } : { data } };
  } catch (error) {
    const errors = errorsWithin(error).map((one) =>
      formatError(one, context.log, context.requestId),
    );
    const kind =
      error instanceof MethodNotAllowed
        ? 'method-not-allowed'
        : errors.some((one) => one.extensions?.['code'] === 'INTERNAL')
          ? 'failed'
          : 'refused';
    return { kind, body: { errors } };
  }
}

/** Mercurius has formatted the errors already (see graphql.module.ts). */
async function runMercurius(
  fastify: FastifyInstance,
  query: string,
  variables: Record<string, unknown>,
  context: RequestContext,
): Promise<{ data: unknown; errors: readonly GraphQLFormattedError[] | undefined }> {
  const result: ExecutionResult = await fastify.graphql(
    query,
    context as unknown as Record<string, unknown>,
    variables,
    context.operationName ?? undefined,
  );
  return {
    data: result.data ?? null,
    errors: result.errors as readonly GraphQLFormattedError[] | undefined,
  };
}

/** Mercurius wraps what validation found. */
function errorsWithin(error: unknown): unknown[] {
  const inner = error instanceof Error && 'errors' in error ? error.errors : null;
  return Array.isArray(inner) && inner.length > 0 ? inner : [error];
}

function statusOf(outcome: Outcome, mediaType: MediaType): number {
  switch (outcome.kind) {
    case 'executed':
      return 200;
    case 'method-not-allowed':
      return 405;
    case 'failed':
      return mediaType === json ? 200 : 500;
    case 'refused':
      // With the older media type a client cannot tell our 400 from a proxy's, hence 200.
      return mediaType === json ? 200 : 400;
    default:
      return assertNever(outcome.kind);
  }
}

function send(reply: FastifyReply, mediaType: MediaType, status: number, body: Body): FastifyReply {
  if (status === 405) reply.header('allow', 'POST');
  return reply
    .code(status)
    .header('content-type', `${mediaType}; charset=utf-8`)
    .header('cache-control', 'no-store')
    .header('vary', 'accept')
    .send(JSON.stringify(body));
}

/** What was wrong before there was an operation: a body that is no JSON, too large, of another type. */
function refuse(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  options: GraphqlHttpOptions,
): FastifyReply {
  const mediaType = negotiate(request.headers.accept) ?? json;
  if (error instanceof DomainError) {
    const status = error.code === 'UNAVAILABLE' ? 503 : 400;
    return send(reply, mediaType, status, {
      errors: [formatError(error, options.log, request.id)],
    });
  }
  const { statusCode, message } = error as { statusCode?: number; message?: string };
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return send(reply, mediaType, statusCode, { errors: [badRequest(message ?? 'Bad request')] });
  }
  return send(reply, mediaType, 500, { errors: [formatError(error, options.log, request.id)] });
}

function badRequest(message: string): GraphQLFormattedError {
  return requestError('BAD_REQUEST', message).toJSON();
}

function fromQueryString(query: Record<string, string>): unknown {
  const parseJson = (text: string | undefined) => {
    if (text === undefined || text === '') return undefined;
    try {
      return JSON.parse(text) as unknown;
    } catch {
      return text;
    }
  };
  return {
    ...query,
    variables: parseJson(query['variables']),
    extensions: parseJson(query['extensions']),
  };
}

/** The better of what the client accepts, by its order of preference; null when it takes neither. */
export function negotiate(accept: string | undefined): MediaType | null {
  if (!accept?.trim()) return json;
  const ranges = accept.split(',').map((range, order) => {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const quality = parameters.find((parameter) => parameter.startsWith('q='));
    return { type, order, quality: quality ? Number(quality.slice(2)) : 1 };
  });
  ranges.sort((a, b) => b.quality - a.quality || a.order - b.order);
  for (const { type, quality } of ranges) {
    if (!(quality > 0)) continue;
    if (type === graphqlJson) return graphqlJson;
    if (type === json || type === 'application/*' || type === '*/*') return json;
  }
  return null;
}
