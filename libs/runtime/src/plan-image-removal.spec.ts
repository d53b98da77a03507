import fc from 'fast-check';
import { expect, test } from 'vitest';
import { bytesToFree, planImageRemoval } from './plan-image-removal.ts';

const marks = { highPercent: 80, lowPercent: 60, maxBytes: null };

test.each([
  ['below the high mark', { size: 100, used: 79 }, 50, marks, 0],
  ['at the high mark: down to the low one', { size: 100, used: 80 }, 50, marks, 20],
  ['over the limit in bytes', { size: 1000, used: 60 }, 60, { ...marks, maxBytes: 50 }, 15],
])('%s', (_, disk, stored, given, wanted) => expect(bytesToFree(disk, stored, given)).toBe(wanted));

test('the least recently used goes first, and nothing that frees nothing', () => {
  const image = (id: string, usedAt: number, ...layers: string[]) => ({
    id,
    layers,
    usedAt,
    inUse: id === 'used',
  });
  const images = [
    image('used', 9, 'base', 'a'),
    image('same', 1, 'base', 'a'),
    image('old', 2, 'base', 'b'),
    image('new', 3, 'c'),
  ];
  const bytes = new Map([
    ['base', 100],
    ['a', 10],
    ['b', 20],
    ['c', 30],
  ]);
  expect(planImageRemoval(images, bytes, 5)).toEqual({ remove: ['old'], bytes: 20 });
  expect(planImageRemoval(images, bytes, 21)).toEqual({ remove: ['old', 'new'], bytes: 50 });
  expect(planImageRemoval(images, bytes, 0)).toEqual({ remove: [], bytes: 0 });
});

test('nothing in use goes, and what it says it frees is what no image needs any more', () => {
  const names = ['l0', 'l1', 'l2', 'l3', 'l4', 'l5'];
  const bytes = new Map(names.map((name, index) => [name, 10 ** index]));
  const candidate = fc.record({
    layers: fc.subarray(names),
    usedAt: fc.nat(50),
    inUse: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(candidate, { maxLength: 8 }), fc.nat(200_000), (given, wanted) => {
      const images = given.map((image, index) => ({ ...image, id: String(index) }));
      const plan = planImageRemoval(images, bytes, wanted);
      const gone = new Set(plan.remove);
      expect(images.filter((image) => image.inUse && gone.has(image.id))).toEqual([]);
      const sum = (of: typeof images) =>
        [...new Set(of.flatMap((image) => image.layers))].reduce(
          (total, layer) => total + (bytes.get(layer) ?? 0),
          0,
        );
      const kept = images.filter((image) => !gone.has(image.id));
      expect(plan.bytes).toBe(sum(images) - sum(kept));
      // Short of the wish only when nothing else is left to give.
      if (plan.bytes < wanted) expect(sum(kept)).toBe(sum(images.filter((image) => image.inUse)));
    }),
  );
});
