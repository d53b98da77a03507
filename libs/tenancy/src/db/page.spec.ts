import { describe, expect, test } from 'vitest';
import { cursorKey, Keyset } from './page.ts';

const list = new Keyset('things', cursorKey.date, cursorKey.text);
const rows = Array.from({ length: 5 }, (_, i) => ({ at: new Date(1000 * i), id: `t${i}` }));

/** What a database does with a keyset. */
function find(args: { first?: number | null; after?: string | null }) {
  const { take, after } = list.start(args);
  const rest = after
    ? rows.filter(({ at, id }) => at > after[0] || (+at === +after[0] && id > after[1]))
    : rows;
  return list.page(args, {
    rows: rest.slice(0, take),
    totalCount: rows.length,
    key: ({ at, id }) => [at, id],
    view: ({ id }) => id,
  });
}

describe('keyset pages', () => {
  test('lead through the whole list, each row once', () => {
    const one = find({ first: 2 });
    expect(one).toMatchObject({
      nodes: ['t0', 't1'],
      totalCount: 5,
      pageInfo: { hasNextPage: true, hasPreviousPage: false },
    });
    const two = find({ first: 2, after: one.pageInfo.endCursor });
    expect(two.nodes).toEqual(['t2', 't3']);
    const three = find({ first: 2, after: two.pageInfo.endCursor });
    expect(three).toMatchObject({
      nodes: ['t4'],
      pageInfo: { hasNextPage: false, hasPreviousPage: true },
    });
    const end = find({ after: three.pageInfo.endCursor });
    expect(end).toMatchObject({ nodes: [], pageInfo: { startCursor: null, endCursor: null } });
  });

  test.each([0, -1, 201, 1.5, Number.NaN])('first: %s is INVALID', (first) => {
    expect(() => find({ first })).toThrow(expect.objectContaining({ code: 'INVALID' }));
  });

  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  test.each([
    ['no base64', '***'],
    ['no JSON', Buffer.from('x').toString('base64url')],
    ['empty', ''],
    ['another list’s', encode(['apps', new Date(), 't1'])],
    ['of another shape', encode(['things', 't1'])],
    ['of another type', encode(['things', 'yesterday', 't1'])],
    ['too long', encode(['things', new Date(), 't1', 't2'])],
    ['an object', encode({ things: 1 })],
  ])('a cursor that is %s is INVALID', (_, after) => {
    expect(() => find({ after })).toThrow(expect.objectContaining({ code: 'INVALID' }));
  });
});
