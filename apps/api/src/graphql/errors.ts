/**
 * The one place where something thrown becomes something said. A DomainError is written for the
 * caller and passes with its code; what graphql-js says about a document or its variables passes
 * too; anything else is ours to worry about: the caller gets a reference, the log gets the rest.
 */
import { GraphQLError, type GraphQLFormattedError } from 'graphql';
import { DomainError, brief } from '@bulkhead/protocol';
import type { Logger } from '../logger.ts';

/** Codes beside those of DomainError. */
export type RequestErrorCode =
  | 'GRAPHQL_PARSE_FAILED'
  | 'GRAPHQL_VALIDATION_FAILED'
  | 'BAD_USER_INPUT'
  | 'BAD_REQUEST'
  | 'INTERNAL';

/** An error about the request itself, before any field was resolved. */
export function requestError(code: RequestErrorCode, message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { code } });
}

/**
 * @param reference what the caller can tell an operator to find the error in the log.
 */
export function formatError(error: unknown, log: Logger, reference: string): GraphQLFormattedError {
  const outer = error instanceof GraphQLError ? error : null;
  const domain = findDomainError(error);
  const position = {
    ...(outer?.locations && { locations: outer.locations }),
    ...(outer?.path && { path: outer.path }),
  };
  if (domain) {
    const details = Object.keys(domain.details).length > 0 ? { details: domain.details } : {};
    return { message: domain.message, ...position, extensions: { code: domain.code, ...details } };
  }
  const code = outer && codeOfGraphqlError(outer);
  // graphql-js repeats a bad value whole.
  if (outer && code)
    return { message: brief(outer.message, 1000), ...position, extensions: { code } };

  log.error({ reference, path: outer?.path?.join('.'), err: cause(error) }, 'internal error');
  return {
    message: `Something went wrong on our side. Tell the operators this reference: ${reference}`,
    ...position,
    extensions: { code: 'INTERNAL', reference },
  };
}

function findDomainError(error: unknown): DomainError | null {
  for (let at: unknown = error; at instanceof Error;) {
    if (at instanceof DomainError) return at;
    at = at instanceof GraphQLError ? at.originalError : null;
  }
  return null;
}

/** The code of an error about the document or its values; null for one from inside a resolver. */
function codeOfGraphqlError(error: GraphQLError): string | null {
  const said = error.extensions['code'];
  if (typeof said === 'string') return said;
  if (error.message.startsWith('Syntax Error')) return 'GRAPHQL_PARSE_FAILED';
  if (error.message.startsWith('Variable "$') || error.message.startsWith('Argument "')) {
    return 'BAD_USER_INPUT';
  }
  // Errors of execution carry the path of their field; those of validation have none.
  return error.path === undefined ? 'GRAPHQL_VALIDATION_FAILED' : null;
}

function cause(error: unknown): unknown {
  return error instanceof GraphQLError ? (error.originalError ?? error) : error;
}
