import fc from 'fast-check';
import { expect, test } from 'vitest';
import { amountsOf, rebalance, resourceNames } from './index.ts';
import type { Movable, NodeSnapshot, Snapshot } from './index.ts';

const needs = { cpuMillis: 1, memoryMiB: 10, diskMiB: 1 };
const instance = (id: string, node: string, process = 'app/web'): Movable => ({
  ...{ id, node, process, needs, image: 'sha256:a', pool: 'default', labels: {} },
  ...{ mostPerNode: null, priority: 1, claim: null },
});

/** Nodes by id and zone, with the instances counted in. */
function fleet(
  nodes: Readonly<Record<string, string>>,
  instances: readonly Movable[],
  memoryMiB = 1000,
  over: Partial<NodeSnapshot> = {},
): Snapshot {
  return {
    pools: {},
    nodes: Object.entries(nodes).map(([id, zone]) => {
      const here = instances.filter((each) => each.node === id);
      const used = { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 };
      const processes: Record<string, number> = {};
      for (const each of here) {
        const amounts = amountsOf(each.needs);
        for (const name of resourceNames) used[name] += amounts[name];
        processes[each.process] = (processes[each.process] ?? 0) + 1;
      }
      return {
        ...{ id, pool: 'default', labels: { zone }, state: 'ready' as const, cordoned: false },
        capacity: { cpuMillis: 10_000, memoryMiB, diskMiB: 10_000, instances: 100 },
        ...{ used, processes, images: [] },
        ...over,
      };
    }),
  };
}

test('a node that joined gets of what stands doubled elsewhere, one of each process at a time', () => {
  const there = [
    ...[instance('1', 'a'), instance('2', 'a'), instance('3', 'b')],
    ...[instance('4', 'a', 'x/web'), instance('5', 'b', 'x/web')],
  ];
  expect(rebalance(fleet({ a: '', b: '', c: '' }, there), there, 10)).toEqual([
    { instance: '2', from: 'a', to: 'c' },
  ]);
});

test('what differs by one is left alone, and so is what has nowhere to go', () => {
  const two = [instance('1', 'a'), instance('2', 'a')];
  expect(rebalance(fleet({ a: '' }, two), two, 10)).toEqual([]);
  expect(rebalance(fleet({ a: '', b: '' }, two, 1000, { cordoned: true }), two, 10)).toEqual([]);
  expect(rebalance(fleet({ a: '', b: '' }, two, 9), two, 10)).toEqual([]);
  const even = [instance('1', 'a'), instance('2', 'b')];
  expect(rebalance(fleet({ a: '', b: '', c: '' }, even), even, 10)).toEqual([]);
});

test('zones come before nodes', () => {
  const there = [instance('1', 'a1'), instance('2', 'a2'), instance('3', 'a3')];
  const snapshot = fleet({ a1: 'a', a2: 'a', a3: 'a', b1: 'b' }, there);
  expect(rebalance(snapshot, there, 10)).toMatchObject([{ to: 'b1' }]);
  // Two and two then: a node of its own for each would make three and one of the zones.
  const after = [
    instance('1', 'a1'),
    instance('2', 'a2'),
    instance('3', 'b1'),
    instance('4', 'b1'),
  ];
  expect(rebalance(fleet({ a1: 'a', a2: 'a', a3: 'a', b1: 'b' }, after), after, 10)).toEqual([]);
});

test('no more moves than the budget, the worst spread first', () => {
  const there = [
    ...['1', '2'].map((id) => instance(id, 'a', 'x/web')),
    ...['3', '4', '5'].map((id) => instance(id, 'a', 'y/web')),
  ];
  expect(rebalance(fleet({ a: '', b: '' }, there), there, 1)).toEqual([
    { instance: '5', from: 'a', to: 'b' },
  ]);
});

test('whatever the fleet, it comes to an end, and no node is made overfull', () => {
  const ids = ['a', 'b', 'c', 'd', 'e'];
  const scenario = fc.record({
    zones: fc.array(fc.constantFrom('', 'x', 'y'), { minLength: 5, maxLength: 5 }),
    instances: fc.array(fc.record({ node: fc.nat(4), process: fc.constantFrom('p', 'q', 'r') }), {
      maxLength: 25,
    }),
    memoryMiB: fc.integer({ min: 20, max: 200 }),
    budget: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(
    fc.property(scenario, ({ zones, instances, memoryMiB, budget }) => {
      const nodes = Object.fromEntries(ids.map((id, index) => [id, zones[index] ?? '']));
      let there = instances.map(({ node, process }, index) =>
        instance(`i${index}`, ids[node] as string, process),
      );
      for (let pass = 0; pass < 200; pass++) {
        const snapshot = fleet(nodes, there, memoryMiB);
        const moves = rebalance(snapshot, there, budget);
        if (moves.length === 0) return;
        expect(moves.length).toBeLessThanOrEqual(budget);
        for (const { to } of moves) {
          const come = moves.filter((move) => move.to === to).length;
          const used = snapshot.nodes.find(({ id }) => id === to)?.used.memoryMiB ?? 0;
          expect(used + come * needs.memoryMiB).toBeLessThanOrEqual(memoryMiB);
        }
        const to = new Map(moves.map((move) => [move.instance, move.to]));
        there = there.map((each) => ({ ...each, node: to.get(each.id) ?? each.node }));
      }
      throw new Error('it does not end');
    }),
    { numRuns: 300 },
  );
});
