import { amountsOf, Room } from './capacity.ts';
import { hash } from './hash.ts';
import { resourceNames } from './model.ts';
import type { Amounts, Claim, Occupant, Plan, Snapshot, Want } from './model.ts';
import { isAllowed } from './rules.ts';

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
  const places = placesOf(snapshot, wants, plan, occupants);
  const refused = new Set(plan.refusals.map(({ want }) => want));
  const lowest = occupants.reduce((least, { priority }) => Math.min(least, priority), Infinity);
  const claims: Claim[] = [];
  const asking = wants
    .filter(({ id, claim, priority }) => claim === null && priority > lowest && refused.has(id))
    .map((want) => ({ want, like: likeOf(want) }))
    .sort(firstServed);
  let offers = null as Offers | null;
  let likesServed = 0;
  for (const { want, like } of asking) {
    if (claims.length === mostClaims) break;
    // Those that are alike come one after the other, so that each node is asked once for all of them.
    if (offers?.like !== like) {
      if (likesServed === mostLikes) break;
      offers = new Offers(like, want, places, seed);
    }
    const best = offers.best();
    // Room only shrinks from here on: its like finds nothing either.
    if (!best) continue;
    if (offers.isFirst()) likesServed += 1;
    best.place.accept(best.victims, amountsOf(want.needs), want.process);
    const victims = best.victims.map(({ id }) => id).sort();
    claims.push({ want: want.id, node: best.place.room.node.id, victims });
  }
  return claims;
}

/** Of one call; the rest is for the next, which sees what became of these. */
const mostClaims = 500;
/** So many sets of wants that are alike are served in one call, which keeps it short. */
const mostLikes = 100;

interface Offer {
  readonly place: Place;
  readonly victims: readonly Occupant[];
}

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

/** What each node offers to wants that are alike: asked once, and again where something changed. */
class Offers {
  readonly like: string;
  readonly #want: Want;
  readonly #needs: Amounts;
  readonly #seed: number;
  readonly #places: readonly Place[];
  readonly #known: { version: number; offer: Offer | null; cost: readonly number[] }[] = [];
  #found = 0;

  constructor(like: string, want: Want, places: readonly Place[], seed: number) {
    this.like = like;
    this.#want = want;
    this.#needs = amountsOf(want.needs);
    this.#places = places;
    this.#seed = seed;
  }

  best(): Offer | null {
    let best: { offer: Offer; cost: readonly number[] } | null = null;
    for (const [index, place] of this.#places.entries()) {
      let known = this.#known[index];
      if (known?.version !== place.version) known = this.#known[index] = this.#ask(place);
      const { offer, cost } = known;
      if (offer && (best === null || isLess(cost, best.cost))) best = { offer, cost };
    }
    if (best) this.#found += 1;
    return best?.offer ?? null;
  }

  /** Whether the last one found was the first. */
  isFirst(): boolean {
    return this.#found === 1;
  }

  #ask(place: Place) {
    const { version } = place;
    const victims = place.victimsFor(this.#want, this.#needs);
    if (victims === null) return { version, offer: null, cost: [] };
    const highest = Math.max(-Infinity, ...victims.map(({ priority }) => priority));
    const cost = [
      ...[highest, victims.length, place.excess(victims, this.#needs)],
      hash(this.#seed, place.room.node.id),
    ];
    return { version, offer: { place, victims }, cost };
  }
}

function isLess(a: readonly number[], b: readonly number[]): boolean {
  const differs = a.findIndex((value, index) => value !== b[index]);
  return differs >= 0 && (a[differs] as number) < (b[differs] as number);
}

function placesOf(
  snapshot: Snapshot,
  wants: readonly Want[],
  plan: Plan,
  occupants: readonly Occupant[],
): Place[] {
  const known = new Map(wants.map((want) => [want.id, want]));
  const byNode = Map.groupBy(occupants, ({ node }) => node);
  const placed = Map.groupBy(plan.placements, ({ node }) => node);
  return snapshot.nodes.map((node) => {
    const room = new Room(node, snapshot.pools, new Set());
    for (const { want: id } of placed.get(node.id) ?? []) {
      const want = known.get(id);
      if (!want) continue;
      const needs = amountsOf(want.needs);
      if (want.claim === node.id) room.release(needs);
      room.reserve(want.process, needs);
    }
    return new Place(room, byNode.get(node.id) ?? []);
  });
}

/** A node, with what will be free on it when all that leaves has left, and who else could be told to. */
class Place {
  readonly room: Room;
  /** Raised by every change. */
  version = 0;
  #candidates: readonly Occupant[];
  /** Candidates below a priority, and what they have; of the present version. */
  #below = new Map<number, { lower: readonly Occupant[]; sum: Amounts }>();

  constructor(room: Room, occupants: readonly Occupant[]) {
    this.room = room;
    for (const { leaving, needs } of occupants) if (leaving) room.release(amountsOf(needs));
    this.#candidates = occupants
      .filter(({ leaving }) => !leaving)
      .sort((a, b) => a.priority - b.priority || (a.id < b.id ? -1 : 1));
  }

  /** Who must go so that the want fits; null when not even all of a lower priority would do. */
  victimsFor(want: Want, needs: Amounts): Occupant[] | null {
    const { lower, sum } = this.#lowerThan(want.priority);
    this.room.release(sum);
    const isPossible = isAllowed(want, needs, this.room);
    this.room.keep(sum);
    if (!isPossible) return null;
    const lack = this.#lackOf(needs);
    for (const level of new Set(lower.map(({ priority }) => priority))) {
      const victims = cover(
        lower.filter(({ priority }) => priority <= level),
        lack,
      );
      if (victims) return victims;
    }
    return [];
  }

  /** How much more than needed is free then, in shares of the node; of the resource freed most. */
  excess(victims: readonly Occupant[], needs: Amounts): number {
    const freed = sumOf(victims);
    const { free, total } = this.room;
    const over = resourceNames.map((name) =>
      total[name] > 0 ? (free[name] + freed[name] - needs[name]) / total[name] : 0,
    );
    return victims.length === 0 ? 0 : Math.max(...over);
  }

  accept(victims: readonly Occupant[], needs: Amounts, process: string): void {
    this.room.release(sumOf(victims));
    this.room.reserve(process, needs);
    this.#candidates = this.#candidates.filter((each) => !victims.includes(each));
    this.#below.clear();
    this.version += 1;
  }

  #lowerThan(priority: number) {
    let known = this.#below.get(priority);
    if (!known) {
      const lower = this.#candidates.filter((each) => each.priority < priority);
      known = { lower, sum: sumOf(lower) };
      this.#below.set(priority, known);
    }
    return known;
  }

  #lackOf(needs: Amounts): Amounts {
    const lack = (name: keyof Amounts) => Math.max(0, needs[name] - this.room.free[name]);
    return {
      ...{ cpuMillis: lack('cpuMillis'), memoryMiB: lack('memoryMiB') },
      ...{ diskMiB: lack('diskMiB'), instances: lack('instances') },
    };
  }
}

/**
 * Few of `candidates` that together have what lacks: again and again the one that has most of what
 * still lacks, then without those that turned out not to be needed, the highest of priority first.
 * For one resource they are the fewest; for several at once to find those is not worth the time.
 */
function cover(candidates: readonly Occupant[], lack: Amounts): Occupant[] | null {
  const left = { ...lack };
  const chosen: Occupant[] = [];
  const open = new Set(candidates);
  const isCovered = () => resourceNames.every((name) => left[name] <= 0);
  while (!isCovered()) {
    let best: Occupant | null = null;
    let most = 0;
    for (const each of open) {
      const helps = helpOf(amountsOf(each.needs), left);
      if (helps > most) [best, most] = [each, helps];
    }
    if (best === null) return null;
    open.delete(best);
    chosen.push(best);
    const amounts = amountsOf(best.needs);
    for (const name of resourceNames) left[name] -= amounts[name];
  }
  for (const each of chosen.toSorted((a, b) => b.priority - a.priority)) {
    const amounts = amountsOf(each.needs);
    if (!resourceNames.every((name) => left[name] + amounts[name] <= 0)) continue;
    for (const name of resourceNames) left[name] += amounts[name];
    chosen.splice(chosen.indexOf(each), 1);
  }
  return chosen;
}

/** Sum of the shares that it has of each thing that lacks. */
function helpOf(amounts: Amounts, left: Amounts): number {
  let sum = 0;
  for (const name of resourceNames)
    if (left[name] > 0) sum += Math.min(1, amounts[name] / left[name]);
  return sum;
}

function sumOf(occupants: readonly Occupant[]): Amounts {
  const sum = { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 };
  for (const { needs } of occupants) {
    const amounts = amountsOf(needs);
    for (const name of resourceNames) sum[name] += amounts[name];
  }
  return sum;
}
