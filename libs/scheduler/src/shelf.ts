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
 * whose least does not fit is skipped whole, so a look costs the shapes compared times the tree's depth.
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
   * The lot that leaves the least of the room behind, of those with at most `spread` instances of
   * their process in it. `onHeldBack` hears of what would have fitted but for `spread` how many are there.
   */
  best(room: Room, spread: number, onHeldBack: (alike: number) => void): Lot | null {
    let best: Lot | null = null;
    let least = Infinity;
    let compared = 0;
    const open = [1];
    while (open.length > 0 && compared < shapesCompared) {
      const index = open.pop() as number;
      if (!fits(this.least[index] as Amounts, room.free)) continue;
      if (index < this.size) {
        open.push(2 * index + 1, 2 * index);
        continue;
      }
      const shape = this.shapes[index - this.size] as Shape;
      const lot = firstAllowed(shape.lots, room, spread, onHeldBack);
      if (shape.lots.length === 0) this.close(index);
      if (!lot) continue;
      compared += 1;
      const left = leftover(room, shape.needs);
      if (left >= least) continue;
      least = left;
      best = lot;
    }
    return best;
  }

  /** Nothing of this shape waits any more. */
  private close(leaf: number): void {
    this.least[leaf] = { ...tooMuch };
    for (let index = leaf >> 1; index >= 1; index >>= 1) this.refresh(index);
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
