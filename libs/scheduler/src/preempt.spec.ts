import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { allocatable, amountsOf, fits, preempt, resourceNames, schedule } from './index.ts';
import type { Amounts, Claim, NodeSnapshot, Occupant, Snapshot, Want } from './index.ts';

const strict = { default: { cpuOvercommit: 1 } };
const node = (id: string, memoryMiB: number, over: Partial<NodeSnapshot> = {}): NodeSnapshot => ({
  ...{ id, pool: 'default', labels: {}, state: 'ready', cordoned: false },
  capacity: { cpuMillis: 10_000, memoryMiB, diskMiB: 10_000, instances: 100 },
  used: { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 },
  ...{ images: [], processes: {} },
  ...over,
});
const sizes = (memoryMiB: number) => ({ cpuMillis: 1, memoryMiB, diskMiB: 1 });
const want = (id: string, memoryMiB: number, over: Partial<Want> = {}): Want => ({
  ...{
    id,
    process: `app/${id}`,
    image: 'sha256:a',
    pool: 'default',
    labels: {},
    mostPerNode: null,
  },
  ...{ priority: 2, claim: null, needs: sizes(memoryMiB) },
  ...over,
});
const occupant = (id: string, on: string, memoryMiB: number, priority: number): Occupant => ({
  ...{ id, node: on, priority, needs: sizes(memoryMiB), leaving: false },
});

function sumOf(all: readonly Pick<Want, 'needs'>[]) {
  const sum = { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 };
  for (const { needs } of all) {
    const amounts = amountsOf(needs);
    for (const name of resourceNames) sum[name] += amounts[name];
  }
  return sum;
}

/** Nodes with their occupants counted in. */
function fleet(nodes: readonly NodeSnapshot[], occupants: readonly Occupant[]): Snapshot {
  const used = (id: string): Amounts => sumOf(occupants.filter((each) => each.node === id));
  return { nodes: nodes.map((each) => ({ ...each, used: used(each.id) })), pools: strict };
}

function claimsOf(nodes: NodeSnapshot[], occupants: Occupant[], wants: Want[], seed = 1): Claim[] {
  const snapshot = fleet(nodes, occupants);
  return preempt(snapshot, wants, schedule(snapshot, wants, seed), occupants, seed);
}

describe('whose room is taken', () => {
  test('of several resources those that together are enough, without one that turned out not to be needed', () => {
    const sized = (id: string, cpuMillis: number, memoryMiB: number): Occupant => ({
      ...occupant(id, 'a', 0, 0),
      needs: { cpuMillis, memoryMiB, diskMiB: 1 },
    });
    const there = [sized('both', 6, 6), sized('cpu', 10, 1), sized('memory', 1, 10)];
    const full = node('a', 17, {
      capacity: { cpuMillis: 17, memoryMiB: 17, diskMiB: 10_000, instances: 100 },
    });
    const asking = want('w', 0, { needs: { cpuMillis: 11, memoryMiB: 11, diskMiB: 1 } });
    expect(claimsOf([full], there, [asking])).toEqual([
      { want: 'w', node: 'a', victims: ['cpu', 'memory'] },
    ]);
  });

  test('what is alike is served as if each had asked every node anew', () => {
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 100));
    const there = nodes.flatMap(({ id }) => [
      occupant(`${id}-0`, id, 50, 0),
      occupant(`${id}-1`, id, 50, 1),
    ]);
    const wants = Array.from({ length: 7 }, (_, index) => want(`w${index}`, 40));
    const together = claimsOf(nodes, there, wants);
    // Three of the lowest first, one on each node; then the others; the seventh finds nobody.
    expect(together.map(({ victims }) => victims.map((id) => id.slice(2)).join())).toEqual([
      ...['0', '0', '0'],
      ...['1', '1', '1'],
    ]);
    expect(new Set(together.flatMap(({ victims }) => victims)).size).toBe(6);
  });

  test('wants that are all unlike are served by one call', () => {
    const nodes = Array.from({ length: 300 }, (_, index) => node(`n${index}`, 1000));
    const there = nodes.map(({ id }) => occupant(`${id}-0`, id, 900, 0));
    const wants = nodes.map((_, index) => want(`w${index}`, 600 + index));
    const claims = claimsOf(nodes, there, wants);
    expect(claims).toHaveLength(300);
    expect(new Set(claims.map((claim) => claim.node)).size).toBe(300);
  });

  test('the lowest of priority, though more of them', () => {
    const there = [
      occupant('n', 'a', 60, 1),
      occupant('l1', 'a', 20, 0),
      occupant('l2', 'a', 20, 0),
    ];
    expect(claimsOf([node('a', 100)], there, [want('w', 40)])).toEqual([
      { want: 'w', node: 'a', victims: ['l1', 'l2'] },
    ]);
  });

  test('the fewest of one priority, and the node where that is fewest', () => {
    const there = [
      ...[occupant('a1', 'a', 20, 0), occupant('a2', 'a', 20, 0), occupant('a3', 'a', 60, 1)],
      ...[occupant('b1', 'b', 10, 0), occupant('b2', 'b', 45, 0), occupant('b3', 'b', 45, 1)],
    ];
    expect(claimsOf([node('a', 100), node('b', 100)], there, [want('w', 40)])).toEqual([
      { want: 'w', node: 'b', victims: ['b2'] },
    ]);
  });

  test('the fewest, though one that is large stands where more are needed', () => {
    const there = [
      ...[50, 10, 10, 10].map((size, index) => occupant(`a${index}`, 'a', size, 0)),
      ...[40, 40].map((size, index) => occupant(`b${index}`, 'b', size, 0)),
    ];
    expect(claimsOf([node('a', 80), node('b', 80)], there, [want('w', 70)])).toEqual([
      { want: 'w', node: 'b', victims: ['b0', 'b1'] },
    ]);
  });

  test('of equally few those that free the least beyond what is needed', () => {
    const nodes = ['a', 'b', 'c'].map((id) => node(id, 100));
    const there = nodes.flatMap(({ id }, index) => [
      occupant(`${id}0`, id, 60 - 10 * ((index + 1) % 3), 0),
      occupant(`${id}1`, id, 40 + 10 * ((index + 1) % 3), 2),
    ]);
    expect(claimsOf(nodes, there, [want('w', 40)])).toMatchObject([{ node: 'b' }]);
  });

  test('nobody, where an earlier claim left enough', () => {
    const there = [
      ...[occupant('a0', 'a', 90, 0), occupant('a1', 'a', 10, 2)],
      ...[occupant('b0', 'b', 35, 0), occupant('b1', 'b', 65, 2)],
    ];
    const wants = [want('large', 50), want('small', 35)];
    expect(claimsOf([node('a', 100), node('b', 100)], there, wants)).toEqual([
      { want: 'large', node: 'a', victims: ['a0'] },
      { want: 'small', node: 'a', victims: [] },
    ]);
  });

  test('never an equal, nor one of higher priority', () => {
    const there = [occupant('a1', 'a', 50, 1), occupant('a2', 'a', 50, 2)];
    expect(claimsOf([node('a', 100)], there, [want('w', 60, { priority: 1 })])).toEqual([]);
    expect(claimsOf([node('a', 100)], there, [want('w', 60)])).toEqual([]);
    expect(claimsOf([node('a', 100)], there, [want('w', 50)])).toMatchObject([{ victims: ['a1'] }]);
  });

  test('nobody, where something leaves anyway', () => {
    const there = [occupant('a1', 'a', 100, 0), { ...occupant('b1', 'b', 100, 2), leaving: true }];
    expect(claimsOf([node('a', 100), node('b', 100)], there, [want('w', 60)])).toEqual([
      { want: 'w', node: 'b', victims: [] },
    ]);
  });

  test('what leaves is not given twice, and the highest of priority is served first', () => {
    const there = [{ ...occupant('a1', 'a', 100, 0), leaving: true }];
    const wants = [want('low', 60, { priority: 1 }), want('high', 60)];
    expect(claimsOf([node('a', 100)], there, wants)).toEqual([
      { want: 'high', node: 'a', victims: [] },
    ]);
  });

  test('nobody on a node that the want could not use', () => {
    const there = ['a', 'b', 'c'].map((id) => occupant(`${id}1`, id, 100, 0));
    const nodes = [
      node('a', 100, { cordoned: true }),
      node('b', 100, { state: 'suspect' }),
      node('c', 100, { pool: 'gpu' }),
    ];
    expect(claimsOf(nodes, there, [want('w', 60)])).toEqual([]);
  });
});

describe('a claim', () => {
  const full = node('a', 100, {
    used: { cpuMillis: 2, memoryMiB: 100, diskMiB: 2, instances: 2 },
  });
  const claimed = want('w', 40, { claim: 'a' });

  test('is taken when the room is there, and nobody else gets it', () => {
    // 60 in use, 40 kept for w.
    const plan = schedule({ nodes: [full], pools: strict }, [want('v', 40), claimed], 1);
    expect(plan.placements).toEqual([{ want: 'w', node: 'a' }]);
    expect(plan.refusals.map((refusal) => refusal.want)).toEqual(['v']);
  });

  test('waits while what leaves is still there, and then says so', () => {
    const used = { cpuMillis: 2, memoryMiB: 140, diskMiB: 2, instances: 2 };
    const plan = schedule({ nodes: [{ ...full, used }], pools: strict }, [claimed], 1);
    expect(plan.placements).toEqual([]);
    expect(plan.refusals[0]?.message).toContain('ending to make room for it');
  });

  test('of two on one node the first is taken when there is room for one', () => {
    // Two that were to go, of which one is gone: 60 + 40 in use, and 40 kept for each.
    const used = { cpuMillis: 4, memoryMiB: 140, diskMiB: 4, instances: 4 };
    const both = [want('v', 40, { claim: 'a' }), claimed];
    const plan = schedule({ nodes: [{ ...full, used }], pools: strict }, both, 1);
    expect(plan.placements).toEqual([{ want: 'v', node: 'a' }]);
  });

  test('is let go for room elsewhere', () => {
    const used = { cpuMillis: 2, memoryMiB: 140, diskMiB: 2, instances: 2 };
    const nodes = [{ ...full, used }, node('b', 50)];
    expect(schedule({ nodes, pools: strict }, [claimed], 1).placements).toEqual([
      { want: 'w', node: 'b' },
    ]);
  });
});

describe('for any fleet', () => {
  const scenario = fc
    .record({
      nodes: fc.array(fc.integer({ min: 20, max: 100 }), { minLength: 1, maxLength: 4 }),
      occupants: fc.array(
        fc.record({
          on: fc.nat({ max: 3 }),
          memoryMiB: fc.integer({ min: 1, max: 40 }),
          priority: fc.integer({ min: 0, max: 2 }),
          leaving: fc.boolean(),
        }),
        { maxLength: 12 },
      ),
      wants: fc.array(
        fc.record({
          memoryMiB: fc.integer({ min: 1, max: 60 }),
          priority: fc.integer({ min: 0, max: 2 }),
        }),
        { minLength: 1, maxLength: 5 },
      ),
      seed: fc.nat(),
    })
    .map(({ nodes, occupants, wants, seed }) => ({
      nodes: nodes.map((memoryMiB, index) => node(`n${index}`, memoryMiB)),
      occupants: occupants.map((each, index) => ({
        ...occupant(`o${index}`, `n${each.on % nodes.length}`, each.memoryMiB, each.priority),
        leaving: each.leaving,
      })),
      wants: wants.map((each, index) =>
        want(`w${index}`, each.memoryMiB, { priority: each.priority }),
      ),
      seed,
    }));

  test('what is claimed fits when all that leaves has left; nobody is told to for nothing, nor for an equal', () => {
    fc.assert(
      fc.property(scenario, ({ nodes, occupants, wants, seed }) => {
        const snapshot = fleet(nodes, occupants);
        const plan = schedule(snapshot, wants, seed);
        const claims = preempt(snapshot, wants, plan, occupants, seed);
        expect(
          preempt(snapshot, [...wants].reverse(), plan, [...occupants].reverse(), seed),
        ).toEqual(claims);
        const byId = new Map(wants.map((each) => [each.id, each]));
        const told = claims.flatMap(({ victims }) => victims);
        expect(new Set(told).size).toBe(told.length);

        /** On a node when those that leave and the `left` have gone and the first `count` claims have come. */
        const load = (id: string, left: readonly string[], count: number) => {
          const there = occupants.filter(
            (each) => each.node === id && !each.leaving && !left.includes(each.id),
          );
          const come = [...plan.placements, ...claims.slice(0, count)].filter((c) => c.node === id);
          return sumOf([...there, ...come.map((each) => byId.get(each.want)!)]);
        };
        const isWithin = (id: string, sum: Amounts) =>
          fits(sum, allocatable(nodes.find((each) => each.id === id)!.capacity, strict.default));

        claims.forEach(({ want: id, node: to, victims }, index) => {
          const soFar = claims.slice(0, index + 1).flatMap((claim) => claim.victims);
          expect(isWithin(to, load(to, soFar, index + 1))).toBe(true);
          // Nowhere would it have cost less: those of one priority at least, and the fewest of them.
          const before = claims.slice(0, index).flatMap((claim) => claim.victims);
          const { needs, priority: own } = byId.get(id)!;
          const costs = nodes.map((each) => {
            const there = occupants
              .filter((o) => o.node === each.id && !o.leaving && !before.includes(o.id))
              .filter((o) => o.priority < own)
              .sort((a, b) => b.needs.memoryMiB - a.needs.memoryMiB);
            for (const level of [-1, 0, 1]) {
              const lower = there.filter(({ priority }) => priority <= level);
              for (let count = 0; count <= lower.length; count++) {
                const left = [...before, ...lower.slice(0, count).map((o) => o.id)];
                const sum = load(each.id, left, index);
                for (const name of resourceNames) sum[name] += amountsOf(needs)[name];
                if (isWithin(each.id, sum)) return 100 * level + count;
              }
            }
            return Infinity;
          });
          const highest = Math.max(
            -1,
            ...victims.map((victim) => occupants.find((o) => o.id === victim)!.priority),
          );
          expect(100 * highest + victims.length).toBe(Math.min(...costs));
          for (const victim of victims) {
            const found = occupants.find((each) => each.id === victim)!;
            expect([found.node, found.leaving]).toEqual([to, false]);
            expect(found.priority).toBeLessThan(byId.get(id)!.priority);
            const without = soFar.filter((each) => each !== victim);
            expect(isWithin(to, load(to, without, index + 1))).toBe(false);
          }
        });
        // Who got nothing could not have: all of a lower priority together are too little.
        const served = new Set(claims.map((claim) => claim.want));
        for (const { want: id } of plan.refusals.filter((refusal) => !served.has(refusal.want))) {
          const { priority, needs } = byId.get(id)!;
          if (!occupants.some((each) => each.priority < priority)) continue;
          for (const each of nodes) {
            const lower = occupants.filter((o) => o.node === each.id && o.priority < priority);
            const rest = load(each.id, [...told, ...lower.map((o) => o.id)], claims.length);
            const amounts = amountsOf(needs);
            for (const name of resourceNames) rest[name] += amounts[name];
            expect(isWithin(each.id, rest)).toBe(false);
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});
