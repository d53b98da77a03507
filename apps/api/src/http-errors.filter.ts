import {
  Catch,
  HttpException,
  Inject,
  type ArgumentsHost,
  type ExceptionFilter,
} from '@nestjs/common';
import type { GqlContextType } from '@nestjs/graphql';
import { DomainError, type ErrorCode } from '@bulkhead/protocol';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { LOGGER, type Logger } from './logger.ts';

const statusOf: Readonly<Record<ErrorCode, number>> = {
  INVALID: 400,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  CONFLICT: 409,
  QUOTA_EXCEEDED: 403,
  UNAVAILABLE: 503,
};

/**
 * Maps errors of HTTP routes, in the shape that Docker clients show. Errors of GraphQL pass
 * through: graphql/errors.ts maps those.
 */
@Catch()
export class HttpErrorsFilter implements ExceptionFilter {
  constructor(@Inject(LOGGER) private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): unknown {
    // graphql-js takes a returned error for a thrown one; thrown on, Nest would log it first.
    if (host.getType<GqlContextType>() === 'graphql') return error;
    const http = host.switchToHttp();
    const reply = http.getResponse<FastifyReply>();
    const answer = (status: number, code: string, message: string) =>
      reply.code(status).send({ errors: [{ code, message }] });

    if (error instanceof DomainError)
      return answer(statusOf[error.code], error.code, error.message);
    if (error instanceof HttpException) {
      const status = error.getStatus();
      return answer(status, status === 404 ? 'NOT_FOUND' : 'BAD_REQUEST', error.message);
    }
    const reference = http.getRequest<FastifyRequest>().id;
    this.logger.error({ reference, err: error }, 'internal error');
    return answer(
      500,
      'INTERNAL',
      `Something went wrong on our side. Tell the operators this reference: ${reference}`,
    );
  }
}
