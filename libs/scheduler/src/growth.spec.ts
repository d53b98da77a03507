/**
 * Ten times as much costs no more than n log n says. What is counted is what runs, not time: V8 tells
 * how often each block of this library's code was entered, so nothing can be left out of the count.
 */
import { Session } from 'node:inspector/promises';
import { setFlagsFromString } from 'node:v8';
import { beforeAll, describe, expect, test } from 'vitest';
import { preempt, rebalance, schedule } from './index.ts';
import type { NodeSnapshot, Occupant, Want } from './index.ts';

// Of code that V8 optimises, and of what it runs before it collects anything about it, counts are lost.
for (const flag of ['--no-opt', '--no-maglev', '--no-lazy-feedback-allocation'])
  setFlagsFromString(flag);

/** How many blocks of this library's code `work` enters. */
async function countBlocks(work: () => unknown): Promise<number> {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  work();
  const { result } = await session.post('Profiler.takePreciseCoverage');
  session.disconnect();
  return result
    .filter(({ url }) => url.includes('libs/scheduler/src/') && !url.includes('.spec.'))
    .flatMap(({ functions }) => functions.flatMap(({ ranges }) => ranges))
    .reduce((sum, { count }) => sum + count, 0);
}

const capacity = { cpuMillis: 64_000, memoryMiB: 65_536, diskMiB: 1_000_000, instances: 200_000 };
const node = (index: number, over: Partial<NodeSnapshot> = {}): NodeSnapshot => ({
  ...{ id: `n${index}`, pool: 'default', labels: { zone: `z${index % 3}` }, state: 'ready' },
  ...{ cordoned: false, capacity, images: [`image${index % 7}`], processes: {} },
  used: { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 },
  ...over,
});
const want = (index: number, over: Partial<Want> = {}): Want => ({
  ...{ id: `w${index}`, process: `p${index}`, image: 'image0', pool: 'default' },
  needs: { cpuMillis: 10 + (index % 900), memoryMiB: 10 + (index % 800), diskMiB: 1 },
  ...{ labels: {}, mostPerNode: null, priority: 2, claim: null },
  ...over,
});
const plain = (index: number) => node(index);
/** All its instances are alike. */
const processOf = (index: number) => {
  const { process } = want(index);
  const { needs } = want(index % 10);
  return { process, needs };
};
const used = (over: Partial<typeof capacity>) => ({ ...node(0).used, ...over });
const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));

/** So many nodes and so many wants, as plans are asked for. */
type Work = (nodes: number, wants: number) => () => unknown;
const plan =
  (nodeOf: (index: number, wants: number) => NodeSnapshot, wantOf: (index: number) => Want): Work =>
  (nodes, wants) => {
    const snapshot = { nodes: times(nodes, (index) => nodeOf(index, wants)), pools: {} };
    const asked = times(wants, wantOf);
    return () => schedule(snapshot, asked, 1);
  };
const tooLarge = (index: number) => ({ cpuMillis: 10, memoryMiB: 70_000 + index, diskMiB: 1 });
/** Half of the nodes lack what the other half has. */
const half = (index: number) =>
  node(index, { used: used(index % 2 ? { memoryMiB: 65_000 } : { cpuMillis: 255_000 }) });
const both = (index: number) => ({ cpuMillis: 9000 + index, memoryMiB: 9000 + index, diskMiB: 1 });

/** Four instances on each node, each with such a part of what is used there. */
const room =
  (
    nodeOf: (index: number) => NodeSnapshot,
    needsOf: (index: number) => Want['needs'],
    part: number,
  ): Work =>
  (nodes, wants) => {
    const snapshot = { nodes: times(nodes, nodeOf), pools: {} };
    const asked = times(wants, (index) => want(index, { needs: needsOf(index) }));
    const occupants = snapshot.nodes.flatMap(({ id, used: { cpuMillis, memoryMiB } }) =>
      times(4, (index): Occupant => {
        const needs = { cpuMillis: part * cpuMillis, memoryMiB: part * memoryMiB, diskMiB: 0 };
        return { id: `${id}-${index}`, node: id, priority: index % 2, needs, leaving: false };
      }),
    );
    const refused = schedule(snapshot, asked, 1);
    return () => preempt(snapshot, asked, refused, occupants, 1);
  };
const spread =
  (nodeOf: (index: number) => NodeSnapshot): Work =>
  (nodes, processes) => {
    const snapshot = { nodes: times(nodes, nodeOf), pools: {} };
    const movable = times(processes, (index) =>
      times(3, (copy) => ({
        ...want(index, { id: `w${index}-${copy}` }),
        node: `n${index % nodes}`,
      })),
    ).flat();
    return () => rebalance(snapshot, movable, 100);
  };

const works: Record<string, Work> = {
  'sizes, all unlike': plan(
    (index) => node(index, { labels: {} }),
    (index) => want(index),
  ),
  'processes of twenty, two on a node at most': plan(plain, (index) =>
    want(index, { ...processOf(Math.floor(index / 20)), mostPerNode: 2 }),
  ),
  'labels, all unlike': plan(
    (index, wants) =>
      node(index, { labels: { [`l${index % wants}`]: 'yes', [`m${index}`]: 'yes' } }),
    (index) => want(index, { labels: { [`l${index}`]: 'yes' } }),
  ),
  'pools, all unlike': plan(
    (index, wants) => node(index, { pool: `p${index % wants}` }),
    (index) => want(index, { pool: `p${index}` }),
  ),
  'sizes that fit nowhere, all unlike': plan(plain, (index) =>
    want(index, { needs: tooLarge(index) }),
  ),
  'sizes of which each half of the fleet lacks half': plan(half, (index) =>
    want(index, { needs: both(index) }),
  ),
  'labels that nobody carries, all unlike': plan(plain, (index) =>
    want(index, { labels: { [`l${index}`]: 'yes' } }),
  ),
  'one process, unevenly spread': plan(
    (index) => node(index, { processes: { p0: index } }),
    (index) => want(index, processOf(0)),
  ),
  'one process, with room on one node alone': plan(
    (index) => (index === 0 ? node(index) : node(index, { used: used({ memoryMiB: 65_530 }) })),
    (index) => want(index, processOf(0)),
  ),
  'room to be made, all unlike': room(
    (index) => node(index, { used: used({ memoryMiB: 65_500 }) }),
    (index) => ({ cpuMillis: 10, memoryMiB: 9000 + index, diskMiB: 1 }),
    1 / 4,
  ),
  'room that nobody could make, all unlike': room(half, both, 1 / 1000),
  'moves in a fleet that has room': spread(plain),
  'moves in a fleet that has none': spread((index) =>
    node(index, { used: used({ memoryMiB: 65_536 }) }),
  ),
};

/** Nodes, and wants, to begin with. */
const few = 100;
/** As n log n grows, and half as much again: with few of all, some things are not paid for in full. */
const most = 1.5 * 10 * (Math.log(20 * few) / Math.log(2 * few));

describe.each(Object.entries(works))('%s', (_name, work) => {
  let before: number;
  beforeAll(async () => {
    // The first run pays for what V8 learns only then.
    await countBlocks(work(few, few));
    before = await countBlocks(work(few, few));
  });

  test.each([
    ['nodes', 10 * few, few],
    ['wants', few, 10 * few],
    ['of both', 10 * few, 10 * few],
  ])('ten times as many %s', async (_what, nodes, wants) => {
    const after = await countBlocks(work(nodes, wants));
    expect(after / before).toBeLessThan(most);
  });
});
