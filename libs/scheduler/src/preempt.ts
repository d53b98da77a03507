import { amountsOf, Room } from './capacity.ts';
import { Forest } from './forest.ts';
import { hash } from './hash.ts';
import { Kinds } from './kinds.ts';
import type { Kind } from './kinds.ts';
import type { Claim, Occupant, Plan, Snapshot, Want } from './model.ts';
import { fewestVictims, mostReach, Place } from './victims.ts';
import type { Reach } from './victims.ts';

/**
 * Makes room for what `plan` refused, at the expense of instances of a lower priority: never of an
 * equal. The wants of the highest priority choose first. Each takes the node where the victims matter
 * least: the lowest of priority, then the fewest, then the least room freed beyond what is needed.
 * Room of those that leave anyway costs nothing, so a want may get a claim without a victim; but only
 * who could have victims gets one.
 *
 * Pure, as `schedule` is. What it answers is a claim and not a placement: the want goes there when
 * the victims are gone, and until then nobody else is given the room.
 *
 * @param occupants of lower priority than some want, or leaving; those left out are not touched.
 */
export function preempt(
  snapshot: Snapshot,
  wants: readonly Want[],
  plan: Plan,
  occupants: readonly Occupant[],
  seed: number,
): Claim[] {
  const refused = new Set(plan.refusals.map(({ want }) => want));
  const lowest = occupants.reduce((least, { priority }) => Math.min(least, priority), Infinity);
  const asking = wants
    .filter(({ id, claim, priority }) => claim === null && priority > lowest && refused.has(id))
    .map((want) => ({ want, like: likeOf(want) }))
    .sort(firstServed);
  if (asking.length === 0) return [];
  const places = new Places(placesOf(snapshot, wants, plan, occupants, seed), wants, occupants);
  const claims: Claim[] = [];
  let hopeless: string | null = null;
  for (const { want, like } of asking) {
    if (claims.length === mostClaims) break;
    // Room only shrinks: where one found nothing its like finds nothing either.
    if (like === hopeless) continue;
    const best = places.bestFor(want);
    if (!best) {
      hopeless = like;
      continue;
    }
    places.accept(best, want);
    const victims = best.victims.map(({ id }) => id).sort();
    claims.push({ want: want.id, node: best.place.room.node.id, victims });
  }
  return claims;
}

/** Of one call; the rest is for the next, which sees what became of these. */
const mostClaims = 500;
/** How many nodes that would do are compared for one want; those that may do with the fewest victims come first. */
const offersCompared = 64;

interface Asking {
  readonly want: Want;
  readonly like: string;
}

/** Equal for wants that every node would answer alike. */
function likeOf({ process, needs, priority, pool, labels, mostPerNode }: Want): string {
  const limit = mostPerNode === null ? null : [process, mostPerNode];
  return JSON.stringify([needs, priority, pool, Object.entries(labels).sort(), limit]);
}

/** By priority, then the largest, which finds room least easily; those that are alike together. */
function firstServed(a: Asking, b: Asking): number {
  const size = ({ needs }: Want): number => needs.memoryMiB + needs.cpuMillis;
  return (
    b.want.priority - a.want.priority ||
    size(b.want) - size(a.want) ||
    (a.like === b.like ? (a.want.id < b.want.id ? -1 : 1) : a.like < b.like ? -1 : 1)
  );
}

/** In an order that is the seed's. */
function placesOf(
  snapshot: Snapshot,
  wants: readonly Want[],
  plan: Plan,
  occupants: readonly Occupant[],
  seed: number,
): Place[] {
  const known = new Map(wants.map((want) => [want.id, want]));
  const byNode = Map.groupBy(occupants, ({ node }) => node);
  const placed = Map.groupBy(plan.placements, ({ node }) => node);
  const nodes = snapshot.nodes
    .map((node) => ({ node, tie: hash(seed, node.id) }))
    .sort((a, b) => a.tie - b.tie || (a.node.id < b.node.id ? -1 : 1));
  return nodes.map(({ node }, order) => {
    const room = new Room(node, snapshot.pools, new Set());
    for (const { want: id } of placed.get(node.id) ?? []) {
      const want = known.get(id);
      if (!want) continue;
      const needs = amountsOf(want.needs);
      if (want.claim === node.id) room.release(needs);
      room.reserve(want.process, needs);
    }
    return new Place(room, order, byNode.get(node.id) ?? []);
  });
}

interface Offer {
  readonly place: Place;
  readonly victims: readonly Occupant[];
}

/** All nodes, with a forest for each priority that says where enough room could be made at its expense. */
class Places {
  readonly #kinds: Kinds;
  readonly #places: ReadonlyMap<Room, Place>;
  readonly #forests: ReadonlyMap<number, Forest<Reach>>;

  constructor(places: readonly Place[], wants: readonly Want[], occupants: readonly Occupant[]) {
    this.#places = new Map(places.map((place) => [place.room, place]));
    this.#kinds = new Kinds([...this.#places.keys()], wants);
    // First at nobody's: what leaves anyway may be enough.
    const levels = new Set([-Infinity, ...occupants.map(({ priority }) => priority)]);
    this.#forests = new Map(
      [...levels]
        .sort((a, b) => a - b)
        .map((level) => {
          const reach = (room: Room): Reach => this.#at(room).reach(level);
          return [level, new Forest(this.#kinds, reach, mostReach)];
        }),
    );
  }

  /** Of the lowest level at which there is any. */
  bestFor(want: Want): Offer | null {
    const { suiting } = this.#kinds.sort(want);
    for (const [level, forest] of this.#forests) {
      if (level >= want.priority) break;
      const best = this.#bestAt(level, forest, want, suiting);
      if (best) return best;
    }
    return null;
  }

  accept({ place, victims }: Offer, want: Want): void {
    place.accept(victims, amountsOf(want.needs), want.process);
    for (const forest of this.#forests.values()) forest.refresh(place.room);
  }

  #bestAt(
    level: number,
    forest: Forest<Reach>,
    want: Want,
    suiting: readonly Kind[],
  ): Offer | null {
    const needs = amountsOf(want.needs);
    let best: (Offer & { cost: readonly number[] }) | null = null;
    let compared = 0;
    for (const found of forest.search(suiting, (reach) => fewestVictims(needs, reach))) {
      if (best && (found.bound > best.victims.length || compared === offersCompared)) break;
      const place = this.#at(found.room);
      const victims = place.victimsFor(want, needs, level);
      if (!victims) continue;
      compared += 1;
      const cost = [victims.length, place.excess(victims, needs), place.order];
      if (best === null || isLess(cost, best.cost)) best = { place, victims, cost };
    }
    return best;
  }

  #at(room: Room): Place {
    return this.#places.get(room) as Place;
  }
}

function isLess(a: readonly number[], b: readonly number[]): boolean {
  const differs = a.findIndex((value, index) => value !== b[index]);
  return differs >= 0 && (a[differs] as number) < (b[differs] as number);
}
