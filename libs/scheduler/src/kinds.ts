import { amountsOf } from './capacity.ts';
import type { Room } from './capacity.ts';
import { zoneLabel } from './model.ts';
import type { RuleName, Want } from './model.ts';
import { labels, siteRules } from './rules.ts';
import { zoneOf } from './zones.ts';

/** Rooms that differ in nothing that a want may ask of a node but what is free: one is asked for all. */
export interface Kind {
  readonly zone: string;
  /** Any of them. */
  readonly sample: Room;
  readonly rooms: Room[];
}

/** Rooms of one pool and state, whatever their labels. */
interface Site {
  readonly sample: Room;
  readonly kinds: Map<string, Kind>;
  /** By label and value. */
  readonly carriers: Map<string, Kind[]>;
  rooms: number;
}

/**
 * A fleet by kinds of nodes. There are few, so that wants that ask for different things do not have
 * to ask each node; of labels those count that somebody asks for, and the zone.
 */
export class Kinds {
  readonly #asked: ReadonlySet<string>;
  readonly #sites = new Map<string, Site>();
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
    for (const site of this.#sites.values()) {
      const rule = siteRules.find((each) => !each.check(want, needs, site.sample));
      const kinds = rule ? [] : carriersOf(site, want);
      suiting.push(...kinds);
      const { name } = rule ?? labels;
      const others = site.rooms - kinds.reduce((sum, { rooms }) => sum + rooms.length, 0);
      if (others > 0) turnedAway[name] = (turnedAway[name] ?? 0) + others;
    }
    return { suiting, turnedAway };
  }

  #add(room: Room): void {
    const { state, cordoned, pool } = room.node;
    const key = JSON.stringify([state, cordoned, pool]);
    let site = this.#sites.get(key);
    if (!site) {
      site = { sample: room, kinds: new Map(), carriers: new Map(), rooms: 0 };
      this.#sites.set(key, site);
    }
    site.rooms += 1;
    const carried = Object.entries(room.node.labels).filter(([name]) => this.#asked.has(name));
    const kindKey = JSON.stringify(carried.sort(([a], [b]) => (a < b ? -1 : 1)));
    let kind = site.kinds.get(kindKey);
    if (!kind) {
      kind = { zone: zoneOf(room), sample: room, rooms: [] };
      site.kinds.set(kindKey, kind);
      for (const label of carried) {
        const carriers = site.carriers.get(label.join('='));
        if (carriers) carriers.push(kind);
        else site.carriers.set(label.join('='), [kind]);
      }
    }
    kind.rooms.push(room);
    this.#kinds.set(room, kind);
  }
}

/** Looks only at those that carry the rarest of the labels. */
function carriersOf(site: Site, want: Want): Kind[] {
  const needs = amountsOf(want.needs);
  const lists = Object.entries(want.labels).map(
    (label) => site.carriers.get(label.join('=')) ?? [],
  );
  const fewest = lists.sort((a, b) => a.length - b.length)[0] ?? [...site.kinds.values()];
  return fewest.filter(({ sample }) => labels.check(want, needs, sample));
}
