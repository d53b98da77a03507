import fc from 'fast-check';
import { expect, test } from 'vitest';
import { takeTurn } from './attention.ts';

test('everyone is looked at in turn, whoever comes and goes meanwhile', () => {
  const ids = fc.uniqueArray(fc.integer({ min: 0, max: 30 }), { minLength: 1 });
  fc.assert(
    fc.property(ids, ids, fc.integer({ min: 1, max: 12 }), (standing, passing, most) => {
      const name = (id: number) => String(id).padStart(2, '0');
      const order = (list: number[]) => [...new Set(list)].sort((a, b) => a - b).map(name);
      const seen = new Set<string>();
      let after = '';
      // Passers-by are there in every other round.
      const all = order([...standing, ...passing]);
      for (let round = 0; round < 2 * all.length + 2; round++) {
        const turn = takeTurn(round % 2 === 0 ? all : order(standing), after, most);
        expect(new Set(turn).size).toBe(turn.length);
        expect(turn.length).toBeLessThanOrEqual(most);
        for (const id of turn) seen.add(id);
        after = turn.at(-1) ?? '';
      }
      expect(order(standing).every((id) => seen.has(id))).toBe(true);
    }),
  );
});

test('few are all looked at every time', () => {
  expect(takeTurn(['a', 'b', 'c'], 'a', 10)).toEqual(['b', 'c', 'a']);
  expect(takeTurn([], 'a', 10)).toEqual([]);
});
