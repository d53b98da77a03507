import { amountsOf, mostOf } from './capacity.ts';
import type { Room } from './capacity.ts';
import { resourceNames } from './model.ts';
import type { Amounts, Occupant, ResourceName, Want } from './model.ts';
import { perNode } from './rules.ts';

/** What a node could give if all up to some priority were told to go; of several nodes the most of each. */
export interface Reach {
  readonly free: Amounts;
  /** Free when all of them have gone. */
  readonly most: Amounts;
  /** The most that one of them has. */
  readonly largest: Amounts;
}

export const mostReach = (a: Reach, b: Reach): Reach => ({
  free: mostOf(a.free, b.free),
  most: mostOf(a.most, b.most),
  largest: mostOf(a.largest, b.largest),
});

/** With fewer victims it cannot be done; Infinity: not with all of them. */
export function fewestVictims(needs: Amounts, { free, most, largest }: Reach): number {
  let fewest = 0;
  for (const name of resourceNames) {
    if (needs[name] <= free[name]) continue;
    if (needs[name] > most[name]) return Infinity;
    fewest = Math.max(fewest, Math.ceil((needs[name] - free[name]) / largest[name]));
  }
  return fewest;
}

/** A node, with what will be free on it when all that leaves has left, and who else could be told to. */
export class Place {
  readonly room: Room;
  /** Which of equals comes first. */
  readonly order: number;
  #candidates: readonly Occupant[];

  constructor(room: Room, order: number, occupants: readonly Occupant[]) {
    this.room = room;
    this.order = order;
    for (const { leaving, needs } of occupants) if (leaving) room.release(amountsOf(needs));
    this.#candidates = occupants
      .filter(({ leaving }) => !leaving)
      .sort((a, b) => a.priority - b.priority || (a.id < b.id ? -1 : 1));
  }

  reach(level: number): Reach {
    const { free } = this.room;
    const most = { ...free };
    let largest: Amounts = nothing;
    for (const { needs } of this.#upTo(level)) {
      const amounts = amountsOf(needs);
      for (const name of resourceNames) most[name] += amounts[name];
      largest = mostOf(largest, amounts);
    }
    return { free: { ...free }, most, largest };
  }

  /** Who of a priority up to `level` must go so that the want fits; null when not even all would do. */
  victimsFor(want: Want, needs: Amounts, level: number): Occupant[] | null {
    if (!perNode.check(want, needs, this.room)) return null;
    return cover(this.#upTo(level), this.#lackOf(needs));
  }

  /** How much more is freed than lacks, in shares of the node; of the resource of which it is most. */
  excess(victims: readonly Occupant[], needs: Amounts): number {
    const freed = sumOf(victims);
    const lack = this.#lackOf(needs);
    const { total } = this.room;
    return Math.max(
      ...resourceNames.map((name) => (freed[name] - lack[name]) / Math.max(1, total[name])),
    );
  }

  accept(victims: readonly Occupant[], needs: Amounts, process: string): void {
    this.room.release(sumOf(victims));
    this.room.reserve(process, needs);
    this.#candidates = this.#candidates.filter((each) => !victims.includes(each));
  }

  #lackOf(needs: Amounts): Amounts {
    const lack = (name: ResourceName) => Math.max(0, needs[name] - this.room.free[name]);
    return {
      ...{ cpuMillis: lack('cpuMillis'), memoryMiB: lack('memoryMiB') },
      ...{ diskMiB: lack('diskMiB'), instances: lack('instances') },
    };
  }

  #upTo(level: number): readonly Occupant[] {
    return this.#candidates.filter(({ priority }) => priority <= level);
  }
}

const nothing: Amounts = { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 };

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
