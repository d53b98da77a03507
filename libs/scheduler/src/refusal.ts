import { holdersOf, mostOf } from './capacity.ts';
import type { Room } from './capacity.ts';
import { Forest } from './forest.ts';
import type { Kind, Kinds } from './kinds.ts';
import { resourceNames } from './model.ts';
import type { Amounts, NearestMiss, Refusal, ResourceName, RuleName, Want } from './model.ts';
import { labels, perNode, pool, rules, stateRules } from './rules.ts';

const units: Record<ResourceName, (amount: number) => string> = {
  cpuMillis: (amount) => `${amount / 1000} CPU`,
  memoryMiB: (amount) => `${amount} MiB of memory`,
  diskMiB: (amount) => `${amount} MiB of disk`,
  instances: (amount) => `${amount} ${amount === 1 ? 'place' : 'places'} for instances`,
};

/** The most that any of some rooms has free, and has at all. */
interface Most {
  readonly most: Amounts;
  readonly total: Amounts;
}

/**
 * Says why no node takes a want. Nodes are counted by their kinds, and the nearest miss is searched
 * for in a tree, so that it does not matter how many wants there are that are unlike each other.
 */
export class Reasons {
  readonly #kinds: Kinds;
  readonly #holders: ReadonlyMap<string, readonly Room[]>;
  readonly #forest: Forest<Most>;

  /** Of the rooms as they are now, for `refused` and no other. */
  constructor(rooms: readonly Room[], kinds: Kinds, refused: readonly Want[]) {
    const limited = refused.filter(({ mostPerNode }) => mostPerNode !== null);
    this.#kinds = kinds;
    this.#forest = new Forest<Most>(
      kinds,
      ({ free, total }) => ({ most: free, total }),
      (a, b) => ({ most: mostOf(a.most, b.most), total: mostOf(a.total, b.total) }),
    );
    this.#holders = holdersOf(rooms, new Set(limited.map(({ process }) => process)));
  }

  explain(want: Want, needs: Amounts): Omit<Refusal, 'want'> {
    const { suiting, turnedAway } = this.#kinds.sort(want);
    const crowded = this.#crowded(want, needs);
    const full = suiting.reduce((sum, { rooms }) => sum + rooms.length, 0) - crowded.size;
    if (crowded.size > 0) turnedAway.perNode = crowded.size;
    if (full > 0) turnedAway.capacity = full;
    const nearestMiss = this.#nearestMiss(needs, suiting, crowded);
    const rule = nearestMiss ? 'capacity' : mostFrequent(turnedAway);
    return { rule, message: describe(rule, turnedAway, nearestMiss), turnedAway, nearestMiss };
  }

  /** Rooms that would suit it, but have as many of its process as they may. */
  #crowded(want: Want, needs: Amounts): ReadonlySet<Room> {
    const holders = want.mostPerNode === null ? [] : (this.#holders.get(want.process) ?? []);
    const suits = [...stateRules, pool, labels];
    return new Set(
      holders.filter(
        (room) =>
          suits.every((rule) => rule.check(want, needs, room)) && !perNode.check(want, needs, room),
      ),
    );
  }

  #nearestMiss(
    needs: Amounts,
    suiting: readonly Kind[],
    crowded: ReadonlySet<Room>,
  ): NearestMiss | null {
    for (const { room } of this.#forest.search(suiting, (most) => lackOf(needs, most).share)) {
      if (crowded.has(room)) continue;
      const { resource } = lackOf(needs, { most: room.free, total: room.total });
      const free = Math.max(0, room.free[resource]);
      return { node: room.node.id, resource, needs: needs[resource], free };
    }
    return null;
  }
}

/** The resource of which most is lacking, measured by the whole. */
function lackOf(needs: Amounts, { most, total }: Most): { resource: ResourceName; share: number } {
  let resource: ResourceName = 'memoryMiB';
  let share = -Infinity;
  for (const name of resourceNames) {
    const lacking = (needs[name] - most[name]) / Math.max(1, total[name]);
    if (needs[name] > most[name] && lacking > share) [resource, share] = [name, lacking];
  }
  return { resource, share };
}

function mostFrequent(turnedAway: Partial<Record<RuleName, number>>): RuleName {
  let most: RuleName = 'ready';
  for (const { name } of rules) {
    if ((turnedAway[name] ?? 0) > (turnedAway[most] ?? 0)) most = name;
  }
  return most;
}

function describe(
  rule: RuleName,
  turnedAway: Partial<Record<RuleName, number>>,
  miss: NearestMiss | null,
): string {
  const counted = rules.flatMap(({ name, turnsAway }) => {
    const count = turnedAway[name] ?? 0;
    if (count === 0) return [];
    return [count === 1 ? `1 node ${turnsAway.one}` : `${count} nodes ${turnsAway.many}`];
  });
  if (counted.length === 0) return 'there is no node in the fleet';
  const why = counted.join(', ');
  if (miss) {
    const unit = units[miss.resource];
    return `needs ${unit(miss.needs)}, ${unit(miss.free)} free on the best node (${why})`;
  }
  const helps = rules.find(({ name }) => name === rule)?.helps ?? 'another node';
  return `no node can take it: ${why}; it needs ${helps}`;
}
