import { fits } from './capacity.ts';
import type { Room } from './capacity.ts';
import { resourceNames } from './model.ts';
import type { Amounts, ResourceName, Want } from './model.ts';
import { isAllowed } from './rules.ts';

/** Wants that are alike in everything that decides where they may run. */
export interface Lot {
  /** One of them, for the rules. */
  readonly want: Want;
  readonly needs: Amounts;
  /** Ids of those without a place yet; the last is placed next. */
  readonly waiting: string[];
  /** Where they should be, to spread the process over zones; null: anywhere. */
  readonly zone: string | null;
}

/** How many shapes that fit are compared for one place. The largest fit best, and they come first. */
const shapesCompared = 128;

interface Shape {
  readonly needs: Amounts;
  readonly lots: Lot[];
}

/**
 * Lots from which a room takes what suits it best. A binary tree over the shapes (lots that need the
 * same), largest first, each inner node holding the least that anything below it needs: a branch
 * whose least does not fit is skipped whole, so that what fits is found without asking for the rest.
 */
export class Shelf {
  private readonly shapes: readonly Shape[];
  /** Heap layout: children of i are 2i and 2i+1, leaves start at `size`. */
  private readonly least: Record<ResourceName, number>[];
  private readonly size: number;

  /** `scale` is the most that a node has of each resource: what is large is judged by it. */
  constructor(lots: readonly Lot[], scale: Amounts) {
    this.shapes = shapesOf(lots, scale);
    this.size = 2 ** Math.ceil(Math.log2(Math.max(1, this.shapes.length)));
    this.least = Array.from({ length: 2 * this.size }, (_, index) => ({
      ...(this.shapes[index - this.size]?.needs ?? tooMuch),
    }));
    for (let index = this.size - 1; index >= 1; index--) this.refresh(index);
  }

  /** Whether the least of what waits could fit. */
  mayFit(room: Room): boolean {
    return fits(this.least[1] ?? tooMuch, room.free);
  }

  /**
   * Lets `take` have, again and again, the lot that leaves the least of the room behind, of those with
   * at most `spread` instances of their process in it, until none fits. Answers how many instances
   * there are of what would fit but for `spread`; of several the fewest; Infinity: of nothing.
   */
  fill(room: Room, spread: number, take: (lot: Lot) => void): number {
    let heldBack = Infinity;
    // Most rooms of a round are full.
    if (!this.mayFit(room)) return heldBack;
    const next = this.#fitting(room);
    const choose = (leaf: number): Lot | null => {
      const { lots } = this.shapes[leaf] as Shape;
      const lot = firstAllowed(lots, room, spread, (alike) => {
        heldBack = Math.min(heldBack, alike);
      });
      if (lots.length === 0) this.close(leaf);
      return lot;
    };
    // What does not fit, or is held back, stays so while this room is filled.
    let compared: { readonly leaf: number; readonly lot: Lot }[] = [];
    for (;;) {
      for (let leaf = 0; compared.length < shapesCompared && leaf >= 0;) {
        leaf = next();
        const lot = leaf < 0 ? null : choose(leaf);
        if (lot) compared.push({ leaf, lot });
      }
      const best = leastLeft(compared, room);
      if (!best) return heldBack;
      take(best);
      compared = compared.flatMap(({ leaf, lot }) => {
        if (!fits(lot.needs, room.free)) return [];
        if (lot.waiting.length > 0 && lot.want.process !== best.want.process)
          return [{ leaf, lot }];
        const other = choose(leaf);
        return other ? [{ leaf, lot: other }] : [];
      });
    }
  }

  /** Gives one shape after the other that fits, the largest first, as the room is then; -1: no more. */
  #fitting(room: Room): () => number {
    const open = [1];
    return () => {
      for (let index = open.pop(); index !== undefined; index = open.pop()) {
        if (!fits(this.least[index] as Amounts, room.free)) continue;
        if (index >= this.size) return index - this.size;
        open.push(2 * index + 1, 2 * index);
      }
      return -1;
    };
  }

  /** Nothing of this shape waits any more. */
  private close(leaf: number): void {
    this.least[this.size + leaf] = { ...tooMuch };
    for (let index = (this.size + leaf) >> 1; index >= 1; index >>= 1) this.refresh(index);
  }

  private refresh(index: number): void {
    const target = this.least[index] as Record<ResourceName, number>;
    const left = this.least[2 * index] as Amounts;
    const right = this.least[2 * index + 1] as Amounts;
    for (const name of resourceNames) target[name] = Math.min(left[name], right[name]);
  }
}

const tooMuch: Amounts = {
  cpuMillis: Infinity,
  memoryMiB: Infinity,
  diskMiB: Infinity,
  instances: Infinity,
};

function leastLeft(lots: readonly { readonly lot: Lot }[], room: Room): Lot | null {
  let best: Lot | null = null;
  let least = Infinity;
  for (const { lot } of lots) {
    const left = leftover(room, lot.needs);
    if (left >= least) continue;
    least = left;
    best = lot;
  }
  return best;
}

/**
 * What a room would have left after `needs`: the square of the distance to a room that is used up
 * in every resource at once. The norm-based greedy of Panigrahy, Talwar, Uyeda and Wieder,
 * "Heuristics for vector bin packing" (2011).
 */
function leftover(room: Room, needs: Amounts): number {
  let sum = 0;
  for (const name of resourceNames) {
    const total = room.total[name];
    if (total > 0) sum += ((room.free[name] - needs[name]) / total) ** 2;
  }
  return sum;
}

/** Also forgets lots of which nothing waits: shelves share lots, and another may have emptied them. */
function firstAllowed(
  lots: Lot[],
  room: Room,
  spread: number,
  onHeldBack: (alike: number) => void,
): Lot | null {
  for (let index = 0; index < lots.length;) {
    const lot = lots[index] as Lot;
    if (lot.waiting.length === 0) {
      const last = lots.pop() as Lot;
      if (index < lots.length) lots[index] = last;
      continue;
    }
    index += 1;
    if (!isAllowed(lot.want, lot.needs, room)) continue;
    const alike = room.instancesOf(lot.want.process);
    if (alike <= spread) return lot;
    onHeldBack(alike);
  }
  return null;
}

function shapesOf(lots: readonly Lot[], scale: Amounts): Shape[] {
  const shapes = new Map<string, Shape>();
  for (const lot of lots) {
    const key = resourceNames.map((name) => lot.needs[name]).join();
    const shape = shapes.get(key);
    if (shape) shape.lots.push(lot);
    else shapes.set(key, { needs: lot.needs, lots: [lot] });
  }
  const largest = ({ needs }: Shape): number =>
    Math.max(...resourceNames.map((name) => needs[name] / Math.max(1, scale[name])));
  return [...shapes.entries()]
    .map(([key, shape]) => ({ key, shape, size: largest(shape) }))
    .sort((a, b) => b.size - a.size || (a.key < b.key ? -1 : 1))
    .map(({ shape }) => shape);
}
