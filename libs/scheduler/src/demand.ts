import { amountsOf, holdersOf } from './capacity.ts';
import type { Room } from './capacity.ts';
import type { Kind, Kinds } from './kinds.ts';
import type { Amounts, Want } from './model.ts';
import { Shelf } from './shelf.ts';
import type { Lot } from './shelf.ts';
import { overZones, zoneOf } from './zones.ts';

/** What a room looks at: lots meant for its zone or all, lots whose image it holds or all. */
export interface Look {
  readonly ownZone: boolean;
  readonly ownImages: boolean;
}

/** All that waits for a place, on shelves by what a room may look at. */
export class Demand {
  readonly lots: readonly Lot[];
  readonly #kinds: Kinds;
  /** Shelves by name of each class of lots that a kind of rooms may take, the choosiest first. */
  readonly #shelves = new Map<Kind, ReadonlyMap<string, Shelf>[]>();

  constructor(wants: readonly Want[], rooms: readonly Room[], kinds: Kinds, seed: number) {
    this.#kinds = kinds;
    const scale = mostOf(rooms);
    const holders = holdersOf(rooms, new Set(wants.map(({ process }) => process)));
    const all: Lot[] = [];
    for (const alike of classesOf(lotsOf(wants))) {
      const { suiting } = kinds.sort((alike[0] as Lot).want);
      const suits = new Set(suiting);
      const zones = [...new Set(suiting.map(({ zone }) => zone))].sort();
      const suitingHolders = (process: string): Room[] =>
        (holders.get(process) ?? []).filter((room) => suits.has(kinds.of(room)));
      const lots = overZones(alike, zones, suitingHolders, seed);
      const shelves = shelvesOf(lots, scale);
      for (const kind of suiting) {
        const known = this.#shelves.get(kind);
        if (known) known.push(shelves);
        else this.#shelves.set(kind, [shelves]);
      }
      all.push(...lots);
    }
    this.lots = all;
  }

  /** What `room` may take from in such a look, the choosiest lots first. */
  shelvesFor(room: Room, look: Look): Shelf[] {
    const zone = look.ownZone ? zoneOf(room) : null;
    const images = look.ownImages ? room.images : [null];
    const classes = this.#shelves.get(this.#kinds.of(room)) ?? [];
    return classes.flatMap((shelves) =>
      images.flatMap((image) => shelves.get(shelfName(zone, image)) ?? []),
    );
  }
}

/** In an order of their own, whatever the order of the wants. */
function lotsOf(wants: readonly Want[]): Lot[] {
  const lots = new Map<string, Lot>();
  for (const want of [...wants].sort((a, b) => (a.id < b.id ? 1 : -1))) {
    const { process, needs, image, pool, mostPerNode } = want;
    const { cpuMillis, memoryMiB, diskMiB } = needs;
    const like = [process, cpuMillis, memoryMiB, diskMiB, image, pool, mostPerNode];
    const key = JSON.stringify([...like, ordered(want.labels)]);
    const lot = lots.get(key);
    if (lot) lot.waiting.push(want.id);
    else lots.set(key, { want, needs: amountsOf(needs), waiting: [want.id], zone: null });
  }
  return [...lots].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, lot]) => lot);
}

/** Lots that ask the same of a node's pool and labels. Those with the most labels first: they have the fewest rooms to go to. */
function classesOf(lots: readonly Lot[]): Lot[][] {
  const classes = Map.groupBy(lots, ({ want }) =>
    JSON.stringify([want.pool, ordered(want.labels)]),
  );
  const choosy = ([lot]: readonly Lot[]): number => Object.keys(lot?.want.labels ?? {}).length;
  return [...classes]
    .sort(([a, x], [b, y]) => choosy(y) - choosy(x) || (a < b ? -1 : 1))
    .map(([, each]) => each);
}

const ordered = (labels: Want['labels']): [string, string][] =>
  Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));

const shelfName = (zone: string | null, image: string | null): string =>
  `${zone === null ? 'anywhere' : `in ${zone}`}, ${image ?? 'any image'}`;

/** A lot lies on up to four shelves; whoever takes from it, it is taken from all. */
function shelvesOf(lots: readonly Lot[], scale: Amounts): ReadonlyMap<string, Shelf> {
  const lists = new Map<string, Lot[]>();
  for (const lot of lots) {
    for (const zone of new Set([null, lot.zone])) {
      for (const image of [null, lot.want.image]) {
        const name = shelfName(zone, image);
        const list = lists.get(name);
        if (list) list.push(lot);
        else lists.set(name, [lot]);
      }
    }
  }
  return new Map([...lists].map(([name, list]) => [name, new Shelf(list, scale)]));
}

/** The most that a room has of each resource. */
function mostOf(rooms: readonly Room[]): Amounts {
  const most = { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 };
  for (const { total } of rooms) {
    most.cpuMillis = Math.max(most.cpuMillis, total.cpuMillis);
    most.memoryMiB = Math.max(most.memoryMiB, total.memoryMiB);
    most.diskMiB = Math.max(most.diskMiB, total.diskMiB);
    most.instances = Math.max(most.instances, total.instances);
  }
  return most;
}
