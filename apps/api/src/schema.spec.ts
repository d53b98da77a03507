import { readFile, writeFile } from 'node:fs/promises';
import { GraphQLSchemaHost } from '@nestjs/graphql';
import {
  isEnumType,
  isInputObjectType,
  isObjectType,
  lexicographicSortSchema,
  printSchema,
  type GraphQLSchema,
} from 'graphql';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestApi, type TestApi } from './testing/test-api.ts';

const golden = new URL('../schema.graphql', import.meta.url);
const heading =
  '# Printed from the code by src/schema.spec.ts; to accept a change: UPDATE_SCHEMA=1 npx vitest run apps/api/src/schema.spec.ts\n';

let api: TestApi;
let schema: GraphQLSchema;

beforeAll(async () => {
  api = await startTestApi();
  schema = lexicographicSortSchema(api.app.get(GraphQLSchemaHost).schema);
});
afterAll(() => api.close());

test('the committed schema is the one that the code makes', async () => {
  const printed = `${heading}\n${printSchema(schema)}\n`;
  if (process.env['UPDATE_SCHEMA']) await writeFile(golden, printed);
  expect(printed).toBe(await readFile(golden, 'utf8'));
});

test('everything in the schema says what it is', () => {
  const silent: string[] = [];
  const look = (name: string, described: { description?: string | null | undefined }) => {
    if (!described.description) silent.push(name);
  };
  for (const type of Object.values(schema.getTypeMap())) {
    if (type.name.startsWith('__') || ['Query', 'Mutation', 'Subscription'].includes(type.name))
      continue;
    look(type.name, type);
    if (isEnumType(type))
      for (const value of type.getValues()) look(`${type.name}.${value.name}`, value);
    if (!isObjectType(type) && !isInputObjectType(type)) continue;
    for (const field of Object.values(type.getFields())) look(`${type.name}.${field.name}`, field);
  }
  for (const root of [
    schema.getQueryType(),
    schema.getMutationType(),
    schema.getSubscriptionType(),
  ]) {
    for (const field of Object.values(root?.getFields() ?? {})) {
      look(`${root?.name}.${field.name}`, field);
      for (const argument of field.args)
        look(`${root?.name}.${field.name}(${argument.name})`, argument);
    }
  }
  expect(silent).toEqual([]);
});
