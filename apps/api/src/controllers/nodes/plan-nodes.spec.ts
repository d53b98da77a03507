import { expect, test } from 'vitest';
import { planNodes } from './plan-nodes.ts';
import type { NodeView } from './plan-nodes.ts';

const node = (id: string, silentSeconds: number | null, state: NodeView['state'] = 'ready') => ({
  id,
  state,
  silentMs: silentSeconds === null ? null : silentSeconds * 1000,
  joinedMs: null as number | null,
});
const hour = 3_600_000;
const changes = (
  nodes: NodeView[],
  listeningMs: number | null = hour,
  wholeMs: number | null = listeningMs,
) => planNodes(nodes, { listeningMs, wholeMs }).steps.map(({ node, to }) => `${node}:${to}`);

test.each<[string, NodeView[], string[]]>([
  ['a node that never spoke stays joining', [node('a', null, 'joining')], []],
  ['a first heartbeat makes it ready', [node('a', 1, 'joining')], ['a:ready']],
  [
    'one that joined just now waits until the edges know of it',
    [
      { ...node('a', 1, 'joining'), joinedMs: 2_000 },
      { ...node('b', 1, 'joining'), joinedMs: 9_000 },
      { ...node('c', 1, 'lost'), joinedMs: 2_000 },
    ],
    ['b:ready', 'c:ready'],
  ],
  ['a lost node that speaks is ready', [node('a', 1, 'lost'), node('b', 1)], ['a:ready']],
  ['silence makes it suspect first', [node('a', 40), node('b', 1)], ['a:suspect']],
  ['then lost', [node('a', 40, 'suspect'), node('b', 1)], ['a:lost']],
  ['not before its time', [node('a', 20, 'suspect'), node('b', 1)], []],
  ['half of the fleet may be lost', [node('a', 40, 'suspect'), node('b', 1)], ['a:lost']],
  ['the only node is never lost', [node('a', 40, 'suspect')], []],
  [
    'more than half silent: nothing is moved',
    [node('a', 40, 'suspect'), node('b', 40, 'suspect'), node('c', 1)],
    [],
  ],
  [
    'nodes lost before do not count as the fleet',
    [node('a', hour, 'lost'), node('b', hour, 'lost'), node('c', 40, 'suspect'), node('d', 1)],
    ['c:lost'],
  ],
])('%s', (_name, nodes, expected) => {
  expect(changes(nodes)).toEqual(expected);
});

test('who has not listened for long enough calls nobody silent', () => {
  const nodes = [node('a', 40, 'suspect'), node('b', 40), node('c', 1), node('d', 1)];
  expect(changes(nodes, null)).toEqual([]);
  expect(changes(nodes, 15_000)).toEqual(['b:suspect']);
  expect(changes(nodes, 31_000)).toEqual(['a:lost', 'b:suspect']);
});

test('after the fleet was cut off, those still silent are given their time again', () => {
  const silent = [node('a', 40, 'suspect'), node('b', 40, 'suspect')];
  const whole = [...silent, node('c', 1), node('d', 1)];
  const cut = (nodes: NodeView[]) => planNodes(nodes, { listeningMs: hour, wholeMs: hour }).cutOff;
  expect(cut([...silent, node('c', 1)])).toBe(true);
  expect(cut(whole)).toBe(false);
  expect(cut([node('c', 1)])).toBe(false);
  expect(cut([])).toBe(false);
  expect(changes(whole, hour, 4_000)).toEqual([]);
  expect(changes(whole, hour, 30_000)).toEqual(['a:lost', 'b:lost']);
  expect(changes([...whole, node('e', 12)], hour, 4_000)).toEqual(['e:suspect']);
});
