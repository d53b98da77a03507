import type { Room } from './capacity.ts';
import type { Kind, Kinds } from './kinds.ts';
import { resourceNames } from './model.ts';
import type { Amounts } from './model.ts';

/** What a search learns of a room, or of many at once. */
interface HasMost {
  /** Of each resource the most that there could be for a want. */
  readonly most: Amounts;
}

/**
 * Finds rooms without asking each: over those of a kind stands a binary tree, each inner node of
 * which sums up what is below it, so that a search can tell how good anything there could be, and
 * looks no further where that is not good enough. Rooms that are short of the same thing stand side by
 * side, or half of the fleet would seem to have what the other half lacks.
 */
export class Forest<Summary extends HasMost> {
  readonly #kinds: Kinds;
  readonly #summaryOf: (room: Room) => Summary;
  readonly #merge: (a: Summary, b: Summary) => Summary;
  /** Of those kinds that were asked. */
  readonly #trees = new Map<Kind, Tree<Summary>>();

  /** `merge` must not care for order. */
  constructor(
    kinds: Kinds,
    summaryOf: (room: Room) => Summary,
    merge: (a: Summary, b: Summary) => Summary,
  ) {
    this.#kinds = kinds;
    this.#summaryOf = summaryOf;
    this.#merge = merge;
  }

  /**
   * The rooms of `kinds`, those of the least `bound` first; those of which it is Infinity never.
   *
   * @param bound of a summary must not be more than that of anything that is summed up in it.
   */
  *search(
    kinds: readonly Kind[],
    bound: (summary: Summary) => number,
  ): Generator<{ readonly room: Room; readonly bound: number }> {
    const open = new Heap<Summary>();
    const look = (tree: Tree<Summary>, node: number) => {
      const least = bound(tree.nodes[node] as Summary);
      if (least < Infinity) open.push({ tree, node, bound: least });
    };
    for (const kind of kinds) look(this.#treeOf(kind), 1);
    for (let next = open.pop(); next; next = open.pop()) {
      const { tree, node } = next;
      // None for an inner node.
      const room = tree.rooms[node - tree.rooms.length];
      if (room) yield { room, bound: next.bound };
      else for (const child of [2 * node + 1, 2 * node]) look(tree, child);
    }
  }

  /** What is free in it is not what it was. */
  refresh(room: Room): void {
    const tree = this.#trees.get(this.#kinds.of(room));
    if (!tree) return;
    let index = tree.rooms.length + tree.rooms.indexOf(room);
    tree.nodes[index] = this.#summaryOf(room);
    for (index >>= 1; index >= 1; index >>= 1) this.#sumUp(tree, index);
  }

  #treeOf(kind: Kind): Tree<Summary> {
    let tree = this.#trees.get(kind);
    if (!tree) {
      const row = kind.rooms
        .map((room) => ({ room, summary: this.#summaryOf(room) }))
        .map((each) => ({ ...each, scarcest: scarcestOf(each.room.total, each.summary.most) }))
        .sort((a, b) => a.scarcest.name - b.scarcest.name || a.scarcest.share - b.scarcest.share);
      const leaves = row.map(({ summary }) => summary);
      tree = { rooms: row.map(({ room }) => room), nodes: [...leaves, ...leaves] };
      for (let index = leaves.length - 1; index >= 1; index--) this.#sumUp(tree, index);
      this.#trees.set(kind, tree);
    }
    return tree;
  }

  #sumUp({ nodes }: Tree<Summary>, index: number): void {
    nodes[index] = this.#merge(nodes[2 * index] as Summary, nodes[2 * index + 1] as Summary);
  }
}

/** Heap layout: the root is 1, children of i are 2i and 2i+1, the leaves start at the number of rooms. */
interface Tree<Summary> {
  readonly rooms: readonly Room[];
  readonly nodes: Summary[];
}

/** Of which resource there is the least, by the whole. */
function scarcestOf(total: Amounts, most: Amounts): { name: number; share: number } {
  const shares = resourceNames.map((name) => most[name] / Math.max(1, total[name]));
  const share = Math.min(...shares);
  return { name: shares.indexOf(share), share };
}

interface Open<Summary> {
  readonly tree: Tree<Summary>;
  readonly node: number;
  readonly bound: number;
}

/** A heap of what is still to be looked into, the least bound on top. */
class Heap<Summary> {
  readonly #all: Open<Summary>[] = [];

  push(entry: Open<Summary>): void {
    const all = this.#all;
    let index = all.length;
    for (let above = (index - 1) >> 1; index > 0; above = (index - 1) >> 1) {
      if (!isBefore(entry, all[above] as Open<Summary>)) break;
      all[index] = all[above] as Open<Summary>;
      index = above;
    }
    all[index] = entry;
  }

  pop(): Open<Summary> | undefined {
    const all = this.#all;
    const top = all[0];
    const last = all.pop();
    if (last === undefined || last === top) return top;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= all.length) break;
      if (
        child + 1 < all.length &&
        isBefore(all[child + 1] as Open<Summary>, all[child] as Open<Summary>)
      )
        child++;
      if (!isBefore(all[child] as Open<Summary>, last)) break;
      all[index] = all[child] as Open<Summary>;
      index = child;
    }
    all[index] = last;
    return top;
  }
}

/** Of equals the deepest, so that a leaf is soon found. */
function isBefore(a: Open<unknown>, b: Open<unknown>): boolean {
  return a.bound < b.bound || (a.bound === b.bound && a.node > b.node);
}
