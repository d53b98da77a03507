import { fits } from './capacity.ts';
import type { Room } from './capacity.ts';
import type { Amounts, RuleName, Want } from './model.ts';

/**
 * A hard rule: a node that breaks it is not used. `check` sees one want and one node and nothing
 * else, so that a rule can be read, tested and added alone. `helps` tells an operator what would
 * change its mind.
 */
export interface Rule {
  readonly name: RuleName;
  /** After "3 nodes", for people: "are not ready". One form for one node and one for many. */
  readonly turnsAway: { readonly one: string; readonly many: string };
  readonly helps: string;
  check(want: Want, needs: Amounts, room: Room): boolean;
}

const ready: Rule = {
  name: 'ready',
  turnsAway: { one: 'is not ready', many: 'are not ready' },
  helps: 'a node that reports in',
  check: (_want, _needs, room) => room.node.state === 'ready',
};

const cordon: Rule = {
  name: 'cordon',
  turnsAway: { one: 'is cordoned', many: 'are cordoned' },
  helps: 'a node that is uncordoned',
  check: (_want, _needs, room) => !room.node.cordoned,
};

export const pool: Rule = {
  name: 'pool',
  turnsAway: { one: 'is in another pool', many: 'are in another pool' },
  helps: 'a node in the pool',
  check: (want, _needs, room) => room.node.pool === want.pool,
};

export const labels: Rule = {
  name: 'labels',
  turnsAway: { one: 'has other labels', many: 'have other labels' },
  helps: 'a node with the labels',
  check(want, _needs, room) {
    for (const name in want.labels) {
      if (room.node.labels[name] !== want.labels[name]) return false;
    }
    return true;
  },
};

export const perNode: Rule = {
  name: 'perNode',
  turnsAway: {
    one: 'has as many of this process as it may',
    many: 'have as many of this process as they may',
  },
  helps: 'another node, or a higher limit per node',
  check: (want, _needs, room) =>
    want.mostPerNode === null || room.instancesOf(want.process) < want.mostPerNode,
};

const capacity: Rule = {
  name: 'capacity',
  turnsAway: { one: 'is too full', many: 'are too full' },
  helps: 'another node, or instances that end',
  check: (_want, needs, room) => fits(needs, room.free),
};

/** Of a node, whoever asks. */
export const stateRules: readonly Rule[] = [ready, cordon];

/** In the order in which a refusal counts them: what an operator decided before what merely is full. */
export const rules: readonly Rule[] = [...stateRules, pool, labels, perNode, capacity];

export function isAllowed(want: Want, needs: Amounts, room: Room): boolean {
  return rules.every((rule) => rule.check(want, needs, room));
}
