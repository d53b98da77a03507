import { expect, test } from 'vitest';
import type { NodeSnapshot } from '@bulkhead/scheduler';
import { planDrain } from './plan-drain.ts';
import type { Resident } from './plan-drain.ts';

const node = (id: string, memoryMiB: number, processes = {}): NodeSnapshot => ({
  ...{ id, pool: 'default', labels: {}, state: 'ready', cordoned: false, images: [], processes },
  capacity: { cpuMillis: 2000, memoryMiB, diskMiB: 10_000, instances: 10 },
  used: { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 },
});
const resident = (id: string, over: Partial<Resident> = {}): Resident => ({
  ...{ id, tenant: 'demo', app: 'shop', processName: 'web', process: 'shop/web', oneOff: false },
  ...{
    image: 'sha256:a',
    pool: 'default',
    labels: {},
    mostPerNode: null,
    priority: 1,
    claim: null,
  },
  needs: { cpuMillis: 100, memoryMiB: 128, diskMiB: 16 },
  ...over,
});

test('says where each goes, what has no room and why, and what is waited for', () => {
  const nodes = [node('a', 1024, { 'shop/web': 2 }), node('b', 200)];
  const moves = planDrain('a', { nodes, pools: {} }, [
    resident('1'),
    resident('2'),
    resident('3', { oneOff: true, process: 'run' }),
  ]);
  expect(moves.map(({ instance, to }) => [instance, to])).toEqual([
    ['1', 'b'],
    ['2', null],
    ['3', null],
  ]);
  expect(moves[1]?.why).toContain(
    'needs 128 MiB of memory, 72 MiB of memory free on the best node',
  );
  expect(moves[2]?.why).toContain('one-off task');
});

test('nothing goes to the node itself, though it has room', () => {
  expect(planDrain('a', { nodes: [node('a', 4096)], pools: {} }, [resident('1')])).toMatchObject([
    {
      to: null,
      why: 'no node can take it: 1 node is cordoned; it needs a node that is uncordoned',
    },
  ]);
});
