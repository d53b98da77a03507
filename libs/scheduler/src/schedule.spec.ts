import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Room } from './capacity.ts';
import { allocatable, amountsOf, resourceNames, schedule } from './index.ts';
import type { NodeSnapshot, Plan, Snapshot, Want } from './index.ts';
import { rules } from './rules.ts';

const node = (id: string, over: Partial<NodeSnapshot> = {}): NodeSnapshot => ({
  id,
  pool: 'default',
  labels: {},
  state: 'ready',
  cordoned: false,
  capacity: { cpuMillis: 2000, memoryMiB: 4096, diskMiB: 10_000, instances: 100 },
  used: { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 },
  images: [],
  processes: {},
  ...over,
});

const want = (id: string, over: Partial<Want> = {}): Want => ({
  id,
  process: 'app/web',
  needs: { cpuMillis: 100, memoryMiB: 128, diskMiB: 512 },
  image: 'sha256:a',
  pool: 'default',
  labels: {},
  mostPerNode: null,
  priority: 0,
  claim: null,
  ...over,
});

const fleet = (...nodes: NodeSnapshot[]): Snapshot => ({ nodes, pools: {} });
const nodeOf = (plan: Plan, id: string) => plan.placements.find((p) => p.want === id)?.node;

describe('hard rules', () => {
  test.each([
    ['a node that is not ready', node('a', { state: 'suspect' }), 'ready', '1 node is not ready'],
    ['a cordoned node', node('a', { cordoned: true }), 'cordon', '1 node is cordoned'],
    ['another pool', node('a', { pool: 'gpu' }), 'pool', '1 node is in another pool'],
  ])('%s is not used', (_name, only, rule, message) => {
    const [refusal] = schedule(fleet(only), [want('i')], 1).refusals;
    expect(refusal).toMatchObject({
      want: 'i',
      rule,
      turnedAway: { [rule]: 1 },
      nearestMiss: null,
    });
    expect(refusal?.message).toContain(message);
  });

  test('labels must match exactly', () => {
    const nodes = [node('a', { labels: { disk: 'hdd' } }), node('b', { labels: { disk: 'ssd' } })];
    const plan = schedule(fleet(...nodes), [want('i', { labels: { disk: 'ssd' } })], 1);
    expect(nodeOf(plan, 'i')).toBe('b');
  });

  test('CPU is promised four times, memory once', () => {
    const cpu = want('c', { needs: { cpuMillis: 8000, memoryMiB: 8, diskMiB: 16 } });
    expect(schedule(fleet(node('a')), [cpu], 1).placements).toHaveLength(1);
    const strict = { nodes: [node('a')], pools: { default: { cpuOvercommit: 1 } } };
    expect(schedule(strict, [cpu], 1).refusals[0]?.message).toContain('needs 8 CPU, 2 CPU free');
    const memory = want('m', { needs: { cpuMillis: 10, memoryMiB: 4097, diskMiB: 16 } });
    expect(schedule(fleet(node('a')), [memory], 1).refusals).toHaveLength(1);
  });
});

test('of a process there are no more on a node than it allows', () => {
  const processes = { 'app/web': 1 };
  const wants = ['1', '2', '3', '4'].map((id) => want(id, { mostPerNode: 2 }));
  const plan = schedule(fleet(node('a', { processes }), node('b')), wants, 1);
  expect(plan.placements.map((p) => p.node).sort()).toEqual(['a', 'b', 'b']);
  expect(plan.refusals[0]).toMatchObject({ rule: 'perNode', turnedAway: { perNode: 2 } });
  expect(plan.refusals[0]?.message).toContain('2 nodes have as many of this process as they may');
});

test('the higher priority is placed first, though it is smaller', () => {
  const used = { cpuMillis: 0, memoryMiB: 3840, diskMiB: 0, instances: 1 };
  const wants = [
    want('large', { needs: { cpuMillis: 1, memoryMiB: 256, diskMiB: 1 } }),
    want('small', { needs: { cpuMillis: 1, memoryMiB: 64, diskMiB: 1 }, priority: 1 }),
  ];
  const plan = schedule(fleet(node('a', { used })), wants, 1);
  expect(plan.placements).toEqual([{ want: 'small', node: 'a' }]);
});

describe('preferences', () => {
  test('packs: the fuller node is filled first', () => {
    const used = { cpuMillis: 400, memoryMiB: 2048, diskMiB: 1000, instances: 4 };
    const plan = schedule(fleet(node('a'), node('b', { used })), [want('i')], 1);
    expect(nodeOf(plan, 'i')).toBe('b');
  });

  test('spreads: an app goes where it is not yet, though that packs worse', () => {
    const used = { cpuMillis: 400, memoryMiB: 2048, diskMiB: 1000, instances: 4 };
    const full = node('b', { used, processes: { 'app/web': 1 }, images: ['sha256:a'] });
    expect(nodeOf(schedule(fleet(node('a'), full), [want('i')], 1), 'i')).toBe('a');
    const plan = schedule(
      fleet(node('a'), node('b'), node('c')),
      [want('1'), want('2'), want('3')],
      1,
    );
    expect(new Set(plan.placements.map((p) => p.node)).size).toBe(3);
  });

  test('nodes get equally many of a process, also where some are there already', () => {
    const nodes = [node('a', { processes: { 'app/web': 3 } }), node('b'), node('c')];
    const wants = Array.from({ length: 9 }, (_, index) => want(`${index}`));
    const on = schedule(fleet(...nodes), wants, 1).placements.map((p) => p.node);
    const count = (id: string) => on.filter((each) => each === id).length;
    expect(['a', 'b', 'c'].map(count)).toEqual([1, 4, 4]);
  });

  test('spreads over zones before nodes', () => {
    const inZone = (id: string, zone: string) => node(id, { labels: { zone } });
    const nodes = [
      ...['a1', 'a2', 'a3', 'a4'].map((id) => inZone(id, 'a')),
      ...['b1', 'b2'].map((id) => inZone(id, 'b')),
    ];
    const plan = schedule(
      fleet(...nodes),
      ['1', '2', '3', '4'].map((id) => want(id)),
      1,
    );
    expect(plan.placements.map((p) => p.node.charAt(0)).sort()).toEqual(['a', 'a', 'b', 'b']);
    expect(new Set(plan.placements.map((p) => p.node)).size).toBe(4);
  });

  test('counts what is in a zone already', () => {
    const nodes = [
      node('a1', { labels: { zone: 'a' }, processes: { 'app/web': 2 } }),
      node('a2', { labels: { zone: 'a' } }),
      node('b1', { labels: { zone: 'b' } }),
      node('b2', { labels: { zone: 'b' } }),
    ];
    const plan = schedule(fleet(...nodes), [want('1'), want('2')], 1);
    expect(plan.placements.map((p) => p.node).sort()).toEqual(['b1', 'b2']);
  });

  test('a zone without room sends on what was meant for it', () => {
    const used = { cpuMillis: 0, memoryMiB: 4096, diskMiB: 0, instances: 1 };
    const nodes = [
      node('a', { labels: { zone: 'a' }, used }),
      node('b1', { labels: { zone: 'b' } }),
      node('b2', { labels: { zone: 'b' } }),
    ];
    const plan = schedule(fleet(...nodes), [want('1'), want('2')], 1);
    expect(plan.placements.map((p) => p.node).sort()).toEqual(['b1', 'b2']);
  });

  test('fills what is left of a node with what suits it best', () => {
    const used = { cpuMillis: 100, memoryMiB: 2048, diskMiB: 0, instances: 1 };
    const needs = (memoryMiB: number) => ({ cpuMillis: memoryMiB, memoryMiB, diskMiB: 0 });
    const sizes = [1536, 512, 1024, 1024, 2048];
    const wants = sizes.map((size, index) =>
      want(`${index}`, { process: `app${index}/web`, needs: needs(size) }),
    );
    const plan = schedule(fleet(node('a', { used }), node('b')), wants, 1);
    expect(nodeOf(plan, '4')).toBe('a');
    expect(plan.refusals).toEqual([]);
  });

  test('prefers a node that has the image', () => {
    const plan = schedule(fleet(node('a'), node('b', { images: ['sha256:a'] })), [want('i')], 1);
    expect(nodeOf(plan, 'i')).toBe('b');
  });

  test('different seeds break ties differently', () => {
    const nodes = Array.from({ length: 10 }, (_, index) => node(`n${index}`));
    const picked = [1, 2, 3, 4, 5, 6].map((seed) =>
      nodeOf(schedule(fleet(...nodes), [want('i')], seed), 'i'),
    );
    expect(new Set(picked).size).toBeGreaterThan(1);
  });
});

describe('refusals', () => {
  test('name the nearest miss among nodes that are only too full', () => {
    const used = (memoryMiB: number) => ({ cpuMillis: 0, memoryMiB, diskMiB: 0, instances: 1 });
    const plan = schedule(
      fleet(
        node('a', { used: used(4090) }),
        node('b', { used: used(3996) }),
        node('c', { cordoned: true }),
      ),
      [want('i', { needs: { cpuMillis: 10, memoryMiB: 512, diskMiB: 16 } })],
      1,
    );
    expect(plan.refusals).toEqual([
      {
        want: 'i',
        rule: 'capacity',
        message:
          'needs 512 MiB of memory, 100 MiB of memory free on the best node (1 node is cordoned, 2 nodes are too full)',
        turnedAway: { capacity: 2, cordon: 1 },
        nearestMiss: { node: 'b', resource: 'memoryMiB', needs: 512, free: 100 },
      },
    ]);
  });

  test('say when there is no node at all', () => {
    expect(schedule(fleet(), [want('i')], 1).refusals[0]?.message).toBe(
      'there is no node in the fleet',
    );
  });
});

const amount = (max: number) => fc.integer({ min: 0, max });
const anyNode = fc.record({
  id: fc.stringMatching(/^n[a-z0-9]{4}$/),
  pool: fc.constantFrom('default', 'default', 'gpu'),
  labels: fc.constantFrom<Record<string, string>[]>(
    {},
    { disk: 'ssd' },
    { disk: 'hdd', zone: 'a' },
    { disk: 'ssd', zone: 'a', arch: 'arm' },
    { zone: 'b', arch: 'arm' },
  ),
  state: fc.constantFrom('ready' as const, 'ready' as const, 'ready' as const, 'suspect' as const),
  cordoned: fc.constantFrom(false, false, false, true),
  capacity: fc.record({
    cpuMillis: amount(4000),
    memoryMiB: amount(4096),
    diskMiB: amount(8192),
    instances: amount(12),
  }),
  used: fc.record({
    cpuMillis: amount(4000),
    memoryMiB: amount(2048),
    diskMiB: amount(4096),
    instances: amount(4),
  }),
  images: fc.subarray(['sha256:a', 'sha256:b']),
  processes: fc.constantFrom<Record<string, number>[]>({}, { x: 1 }, { x: 2, z: 1 }),
});
const anyWant = fc
  .record({
    id: fc.stringMatching(/^i[a-z0-9]{5}$/),
    process: fc.constantFrom('x', 'y', 'z'),
    needs: fc.record({ cpuMillis: amount(2000), memoryMiB: amount(1024), diskMiB: amount(2048) }),
    image: fc.constantFrom('sha256:a', 'sha256:b'),
    pool: fc.constantFrom('default', 'default', 'gpu', 'none'),
    labels: fc.constantFrom<Record<string, string>[]>(
      {},
      {},
      { disk: 'ssd' },
      { disk: 'ssd', arch: 'arm' },
    ),
    priority: fc.constantFrom(0, 0, 1),
    claim: fc.constant(null),
  })
  // Of this process a node takes two at most.
  .map((want) => ({ ...want, mostPerNode: want.process === 'z' ? 2 : null }));
const anyCase = fc.record({
  nodes: fc.uniqueArray(anyNode, { selector: (n) => n.id, maxLength: 90 }),
  wants: fc.uniqueArray(anyWant, { selector: (w) => w.id, maxLength: 60 }),
  seed: fc.integer(),
});

/** The nodes as they are once the plan is carried out. */
function carriedOut(nodes: readonly NodeSnapshot[], plan: Plan, wants: readonly Want[]) {
  const byId = new Map(wants.map((each) => [each.id, each]));
  return nodes.map((each) => {
    const placed = plan.placements.filter((p) => p.node === each.id).map((p) => byId.get(p.want));
    const used = { ...each.used, instances: each.used.instances + placed.length };
    const processes: Record<string, number> = { ...each.processes };
    for (const one of placed) {
      used.cpuMillis += one?.needs.cpuMillis ?? 0;
      used.memoryMiB += one?.needs.memoryMiB ?? 0;
      used.diskMiB += one?.needs.diskMiB ?? 0;
      if (one) processes[one.process] = (processes[one.process] ?? 0) + 1;
    }
    return { ...each, used, processes };
  });
}

describe('properties', () => {
  test('no node is promised more than it has, and no hard rule is broken', () => {
    fc.assert(
      fc.property(anyCase, ({ nodes, wants, seed }) => {
        const plan = schedule(fleet(...nodes), wants, seed);
        const byId = new Map(wants.map((each) => [each.id, each]));
        for (const each of nodes) {
          const placed = plan.placements
            .filter((p) => p.node === each.id)
            .map((p) => byId.get(p.want));
          if (placed.length === 0) continue;
          expect(each.state).toBe('ready');
          expect(each.cordoned).toBe(false);
          const total = allocatable(each.capacity);
          const alike = placed.filter((one) => one?.process === 'z').length;
          if (alike > 0) expect(alike + (each.processes['z'] ?? 0)).toBeLessThanOrEqual(2);
          const used: Record<string, number> = { ...each.used };
          for (const one of placed) {
            expect(one?.pool).toBe(each.pool);
            expect(each.labels).toMatchObject(one?.labels ?? {});
            for (const name of resourceNames) {
              used[name] = (used[name] ?? 0) + (name === 'instances' ? 1 : (one?.needs[name] ?? 0));
            }
          }
          for (const name of resourceNames) expect(used[name]).toBeLessThanOrEqual(total[name]);
        }
      }),
    );
  });

  test('every want is placed or refused, exactly once', () => {
    fc.assert(
      fc.property(anyCase, ({ nodes, wants, seed }) => {
        const plan = schedule(fleet(...nodes), wants, seed);
        const answered = [...plan.placements, ...plan.refusals].map((each) => each.want);
        expect(answered.sort()).toEqual(wants.map((each) => each.id).sort());
      }),
    );
  });

  test('the same question has the same answer, in whatever order it is asked', () => {
    fc.assert(
      fc.property(anyCase, ({ nodes, wants, seed }) => {
        const plan = schedule(fleet(...nodes), wants, seed);
        expect(schedule(fleet(...[...nodes].reverse()), [...wants].reverse(), seed)).toEqual(plan);
      }),
    );
  });

  test('what is refused would not have fitted anywhere once the plan is carried out', () => {
    fc.assert(
      fc.property(anyCase, ({ nodes, wants, seed }) => {
        const plan = schedule(fleet(...nodes), wants, seed);
        const after = carriedOut(nodes, plan, wants);
        const byId = new Map(wants.map((each) => [each.id, each]));
        const again = plan.refusals.flatMap((refusal) => byId.get(refusal.want) ?? []);
        expect(schedule(fleet(...after), again, seed).placements).toEqual([]);
      }),
    );
  });

  test('a refusal says what one learns by asking each node', () => {
    const equals = anyCase.map(({ wants, ...rest }) => ({
      ...rest,
      wants: wants.map((each) => ({ ...each, priority: 0 })),
    }));
    fc.assert(
      fc.property(equals, ({ nodes, wants, seed }) => {
        const plan = schedule(fleet(...nodes), wants, seed);
        const rooms = carriedOut(nodes, plan, wants).map((each) => new Room(each, {}, new Set()));
        for (const refusal of plan.refusals) {
          const refused = wants.find(({ id }) => id === refusal.want) as Want;
          const needs = amountsOf(refused.needs);
          const turnedAway: Record<string, number> = {};
          let least = Infinity;
          const lackOf = ({ free, total }: Room): number =>
            Math.max(
              ...resourceNames
                .filter((name) => needs[name] > free[name])
                .map((name) => (needs[name] - free[name]) / Math.max(1, total[name])),
            );
          for (const room of rooms) {
            const name = rules.find((rule) => !rule.check(refused, needs, room))?.name ?? 'none';
            turnedAway[name] = (turnedAway[name] ?? 0) + 1;
            if (name === 'capacity') least = Math.min(least, lackOf(room));
          }
          expect(refusal.turnedAway).toEqual(turnedAway);
          const nearest = rooms.find((room) => room.node.id === refusal.nearestMiss?.node);
          expect(nearest ? lackOf(nearest) : Infinity).toBe(least);
        }
      }),
    );
  });
});
