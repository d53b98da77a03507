import { amountsOf } from './capacity.ts';
import type { Room } from './capacity.ts';
import { zoneLabel } from './model.ts';
import type { RuleName, Want } from './model.ts';
import { labels, pool, stateRules } from './rules.ts';
import type { Rule } from './rules.ts';
import { zoneOf } from './zones.ts';

/** Rooms that differ in nothing that a want may ask of a node but what is free: one is asked for all. */
export interface Kind {
  readonly zone: string;
  /** Any of them. */
  readonly sample: Room;
  readonly rooms: Room[];
}

/** Rooms of one state and pool, whatever their labels. */
interface Pool {
  readonly kinds: Map<string, Kind>;
  /** By label and value. */
  readonly carriers: Map<string, Kind[]>;
  rooms: number;
}

/** Rooms of one state. */
interface Group {
  readonly sample: Room;
  readonly pools: Map<string, Pool>;
  rooms: number;
}

/**
 * A fleet by kinds of nodes. There are few, so that wants that ask for different things do not have
 * to ask each node; of labels those count that somebody asks for, and the zone.
 */
export class Kinds {
  readonly #asked: ReadonlySet<string>;
  readonly #groups = new Map<string, Group>();
  readonly #kinds = new Map<Room, Kind>();

  constructor(rooms: readonly Room[], wants: readonly Want[]) {
    this.#asked = new Set([zoneLabel, ...wants.flatMap((want) => Object.keys(want.labels))]);
    for (const room of rooms) this.#add(room);
  }

  of(room: Room): Kind {
    return this.#kinds.get(room) as Kind;
  }

  /** The kinds that may take `want` if they have the room, and how many rooms of the others each rule turns away. */
  sort(want: Want) {
    const needs = amountsOf(want.needs);
    const suiting: Kind[] = [];
    const turnedAway: Partial<Record<RuleName, number>> = {};
    const turnAway = ({ name }: Rule, rooms: number): void => {
      if (rooms > 0) turnedAway[name] = (turnedAway[name] ?? 0) + rooms;
    };
    for (const { sample, pools, rooms } of this.#groups.values()) {
      const closed = stateRules.find((rule) => !rule.check(want, needs, sample));
      if (closed) {
        turnAway(closed, rooms);
        continue;
      }
      const own = pools.get(want.pool);
      const kinds = own ? carriersOf(own, want) : [];
      suiting.push(...kinds);
      const inPool = own?.rooms ?? 0;
      turnAway(pool, rooms - inPool);
      turnAway(labels, inPool - kinds.reduce((sum, kind) => sum + kind.rooms.length, 0));
    }
    return { suiting, turnedAway };
  }

  #add(room: Room): void {
    const { node } = room;
    const group = ensure(this.#groups, `${node.state} ${node.cordoned}`, () => {
      return { sample: room, pools: new Map<string, Pool>(), rooms: 0 };
    });
    const own = ensure(group.pools, node.pool, () => {
      return { kinds: new Map<string, Kind>(), carriers: new Map<string, Kind[]>(), rooms: 0 };
    });
    group.rooms += 1;
    own.rooms += 1;
    const carried = Object.entries(node.labels).filter(([name]) => this.#asked.has(name));
    const key = JSON.stringify(carried.sort(([a], [b]) => (a < b ? -1 : 1)));
    const kind = ensure(own.kinds, key, () => {
      const made: Kind = { zone: zoneOf(room), sample: room, rooms: [] };
      for (const label of carried) ensure(own.carriers, label.join('='), () => []).push(made);
      return made;
    });
    kind.rooms.push(room);
    this.#kinds.set(room, kind);
  }
}

function ensure<V>(map: Map<string, V>, key: string, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

/** Looks only at those that carry the rarest of the labels. */
function carriersOf(own: Pool, want: Want): Kind[] {
  const needs = amountsOf(want.needs);
  const lists = Object.entries(want.labels).map((label) => own.carriers.get(label.join('=')) ?? []);
  const fewest = lists.sort((a, b) => a.length - b.length)[0] ?? [...own.kinds.values()];
  return fewest.filter(({ sample }) => labels.check(want, needs, sample));
}
