import { readFileSync } from 'node:fs';
import { buildSchema, type GraphQLSchema } from 'graphql';

/** The API's schema as it is committed: what our operations and our fake server are held against. */
export function loadSchema(): GraphQLSchema {
  return buildSchema(readFileSync(new URL('../../../api/schema.graphql', import.meta.url), 'utf8'));
}
