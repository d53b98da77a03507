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
  const claims: Claim[] = [];
  /** What found nothing: room only shrinks from here on, so its like finds nothing either. */
  const hopeless = new Set<string>();
  const mayTake = (want: Want): boolean =>
    want.claim === null && occupants.some(({ priority }) => priority < want.priority);
  const asking = wants.filter((want) => refused.has(want.id) && mayTake(want)).sort(firstServed);
  for (const want of asking) {
    if (claims.length === mostClaims) break;
    const { process, needs, priority, pool, labels, mostPerNode } = want;
    const limit = mostPerNode === null ? null : [process, mostPerNode];
    const like = JSON.stringify([needs, priority, pool, Object.entries(labels).sort(), limit]);
    if (hopeless.has(like)) continue;
    const best = bestOffer(places, want, seed);
    if (!best) {
      hopeless.add(like);
      continue;
    }
    best.place.accept(best.victims, amountsOf(want.needs), want.process);
    const victims = best.victims.map(({ id }) => id).sort();
    claims.push({ want: want.id, node: best.place.room.node.id, victims });
  }
  return claims;
}

/** Of one call; the rest is for the next, which sees what became of these. */
const mostClaims = 500;

interface Offer {
  readonly place: Place;
  readonly victims: readonly Occupant[];
}

/** By priority, then the largest, which finds room least easily. */
function firstServed(a: Want, b: Want): number {
  const size = ({ needs }: Want): number => needs.memoryMiB + needs.cpuMillis;
  return b.priority - a.priority || size(b) - size(a) || (a.id < b.id ? -1 : 1);
}

function bestOffer(places: readonly Place[], want: Want, seed: number): Offer | null {
  const needs = amountsOf(want.needs);
  let best: { offer: Offer; cost: readonly number[] } | null = null;
  for (const place of places) {
    const victims = place.victimsFor(want, needs);
    if (victims === null) continue;
    const highest = Math.max(-Infinity, ...victims.map(({ priority }) => priority));
    const cost = [
      ...[highest, victims.length, place.excess(victims, needs)],
      hash(seed, place.room.node.id),
    ];
    if (best === null || isLess(cost, best.cost)) best = { offer: { place, victims }, cost };
  }
  return best?.offer ?? null;
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
  #candidates: readonly Occupant[];

  constructor(room: Room, occupants: readonly Occupant[]) {
    this.room = room;
    for (const { leaving, needs } of occupants) if (leaving) room.release(amountsOf(needs));
    this.#candidates = occupants
      .filter(({ leaving }) => !leaving)
      .sort((a, b) => a.priority - b.priority || (a.id < b.id ? -1 : 1));
  }

  /** Who must go so that the want fits; null when not even all of a lower priority would do. */
  victimsFor(want: Want, needs: Amounts): Occupant[] | null {
    const lower = this.#candidates.filter(({ priority }) => priority < want.priority);
    const all = sumOf(lower);
    this.room.release(all);
    const isPossible = isAllowed(want, needs, this.room);
    this.room.keep(all);
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
