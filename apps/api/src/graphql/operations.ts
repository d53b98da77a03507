import {
  GraphQLError,
  Kind,
  getOperationAST,
  parse,
  specifiedRules,
  validate,
  type DocumentNode,
  type ExecutionArgs,
  type GraphQLSchema,
  type OperationDefinitionNode,
} from 'graphql';
import { requestError } from './errors.ts';
import { checkCost, limitRules, limits } from './limits.ts';
import type { RequestContext } from './request-context.ts';

/**
 * What is checked of an operation when document and variables are known: its way of travel and its
 * cost. Mercurius calls it before execution, the socket after its own validation.
 */
export function checkOperation(
  schema: GraphQLSchema,
  document: DocumentNode,
  operation: OperationDefinitionNode,
  variables: Readonly<Record<string, unknown>>,
  context: RequestContext,
): void {
  context.operation = rootFieldOf(operation);
  if (context.transport === 'get' && operation.operation !== 'query') {
    throw new MethodNotAllowed();
  }
  if (context.transport !== 'socket' && operation.operation === 'subscription') {
    throw requestError(
      'BAD_REQUEST',
      'Subscriptions travel over a WebSocket to this same address, with the protocol graphql-transport-ws',
    );
  }
  checkCost(schema, document, operation, variables);
}

/** A GET request for something that is not a query: 405. */
export class MethodNotAllowed extends GraphQLError {
  constructor() {
    super('Only queries may be sent with GET; send mutations with POST', {
      extensions: { code: 'BAD_REQUEST' },
    });
  }
}

function rootFieldOf(operation: OperationDefinitionNode): string {
  const first = operation.selectionSet.selections[0];
  return first?.kind === Kind.FIELD ? first.name.value : 'fragment';
}

/** Parses, validates and checks an operation from a socket; the errors are for the client. */
export function prepareOperation(
  schema: GraphQLSchema,
  payload: {
    query: string;
    operationName?: string | null | undefined;
    variables?: Record<string, unknown> | null | undefined;
  },
  context: RequestContext,
): ExecutionArgs | readonly GraphQLError[] {
  try {
    const document = parse(payload.query, { maxTokens: limits.tokens });
    const errors = validate(schema, document, [...specifiedRules, ...limitRules], {
      maxErrors: 20,
    });
    if (errors.length > 0) return errors;
    const operation = getOperationAST(document, payload.operationName);
    if (!operation) {
      return [requestError('GRAPHQL_VALIDATION_FAILED', 'Name the one operation that is meant')];
    }
    checkOperation(schema, document, operation, payload.variables ?? {}, context);
    return {
      schema,
      document,
      contextValue: context,
      operationName: payload.operationName,
      variableValues: payload.variables,
    };
  } catch (error) {
    if (error instanceof GraphQLError) return [error];
    throw error;
  }
}

/**
 * Mercurius takes a document that is no GraphQL for JSON and would run a syntax tree given as JSON,
 * past the limit on tokens. GraphQL never starts like JSON does.
 */
export function looksLikeJson(source: string): boolean {
  return /^\s*(\{\s*["}]|[[\d"-]|(true|false|null)\s*$)/.test(source);
}
