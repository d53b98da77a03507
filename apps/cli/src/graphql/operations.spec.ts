import { parse, validate } from 'graphql';
import { describe, expect, it } from 'vitest';
import { loadSchema } from '../testing/schema.ts';
import * as operations from './operations.ts';

describe('every operation', () => {
  const schema = loadSchema();

  it.each(Object.entries(operations))(
    '%s is valid against the API’s committed schema',
    (_name, { document }) => {
      expect(validate(schema, parse(document)).map((error) => error.message)).toEqual([]);
    },
  );

  it('covers every mutation of the API', () => {
    const used = Object.values(operations)
      .map(({ document }) => document)
      .join('\n');
    const mutations = Object.keys(schema.getMutationType()?.getFields() ?? {});
    expect(mutations.filter((name) => !new RegExp(`\\b${name}\\b\\s*[({}]`).test(used))).toEqual(
      [],
    );
  });
});
