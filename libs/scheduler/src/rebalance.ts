import { amountsOf, fits, mostOf, Room } from './capacity.ts';
import { Forest } from './forest.ts';
import { Kinds } from './kinds.ts';
import type { Amounts, Snapshot, Want } from './model.ts';
import { isAllowed } from './rules.ts';
import { zoneOf } from './zones.ts';

/** An instance that could run elsewhere as well. */
export interface Movable extends Want {
  readonly node: string;
}

/** Start a copy on `to`, then end the instance on `from`. */
export interface Move {
  readonly instance: string;
  readonly from: string;
  readonly to: string;
}

/**
 * Moves that spread processes better than they are, as after a node joined or came back: what
 * `schedule` does for new instances, for those that stand already. The worst spread go first, one
 * instance of each, at most `budget` in all.
 *
 * A move is worth it only when it brings two zones, or two nodes, closer that differ by two or more,
 * and never makes zones differ more. So each lowers the sum of squares of instances per zone, or
 * leaves it and lowers that per node: it comes to an end, and nothing is moved to and fro.
 *
 * @param movable all instances of the processes that may be moved, and of no other process a part.
 */
export function rebalance(snapshot: Snapshot, movable: readonly Movable[], budget: number): Move[] {
  const fleet = new Fleet(snapshot, movable);
  const byProcess = Map.groupBy(movable, ({ process }) => process);
  const spreads = [...byProcess.values()]
    .map((instances) => new Spread(instances, fleet))
    .sort((a, b) => b.worst - a.worst || (a.process < b.process ? -1 : 1));
  const moves: Move[] = [];
  for (const spread of spreads) {
    if (moves.length === budget) break;
    const move = spread.bestMove();
    if (!move) continue;
    // Both copies are there for a while.
    fleet.reserve(move.to, spread.want);
    moves.push(move);
  }
  return moves;
}

/** All nodes, by id and by zone, and where there is room. */
class Fleet {
  readonly rooms: ReadonlyMap<string, Room>;
  readonly zones: ReadonlyMap<string, readonly Room[]>;
  readonly #kinds: Kinds;
  readonly #free: Forest<{ readonly most: Amounts }>;

  constructor({ nodes, pools }: Snapshot, movable: readonly Movable[]) {
    this.rooms = new Map(nodes.map((node) => [node.id, new Room(node, pools, new Set())]));
    this.zones = Map.groupBy(this.rooms.values(), zoneOf);
    this.#kinds = new Kinds([...this.rooms.values()], movable);
    this.#free = new Forest(
      this.#kinds,
      ({ free }) => ({ most: { ...free } }),
      (a, b) => ({ most: mostOf(a.most, b.most) }),
    );
  }

  /** One of a zone that would take `want`, but for those in `not`. */
  find(want: Want, zone: string, not: ReadonlyMap<string, unknown>): Room | null {
    const needs = amountsOf(want.needs);
    const suiting = this.#kinds.sort(want).suiting.filter((kind) => kind.zone === zone);
    for (const { room } of this.#free.search(suiting, ({ most }) =>
      fits(needs, most) ? 0 : Infinity,
    ))
      if (!not.has(room.node.id) && isAllowed(want, needs, room)) return room;
    return null;
  }

  reserve(node: string, { process, needs }: Want): void {
    const room = this.rooms.get(node);
    if (!room) return;
    room.reserve(process, amountsOf(needs));
    this.#free.refresh(room);
  }
}

/** How the instances of one process are spread. */
class Spread {
  readonly process: string;
  readonly want: Want;
  readonly worst: number;
  readonly #fleet: Fleet;
  readonly #onNode: ReadonlyMap<string, readonly Movable[]>;
  readonly #inZone = new Map<string, number>();

  constructor(instances: readonly Movable[], fleet: Fleet) {
    this.#fleet = fleet;
    this.want = instances[0] as Movable;
    this.process = this.want.process;
    this.#onNode = Map.groupBy(instances, ({ node }) => node);
    for (const { node } of instances) {
      const zone = this.#zone(node);
      this.#inZone.set(zone, (this.#inZone.get(zone) ?? 0) + 1);
    }
    this.worst = Math.max(...[...this.#onNode.values()].map((each) => each.length));
  }

  /** From where most are to where fewest are, of the nodes that would take it. */
  bestMove(): Move | null {
    for (const { from, find } of this.#worthwhile()) {
      const to = find();
      if (!to) continue;
      // The youngest id of its node: any would do, but always the same one.
      const instance = this.#onNode.get(from)?.map(({ id }) => id);
      return { instance: instance?.sort().at(-1) as string, from, to: to.node.id };
    }
    return null;
  }

  /**
   * Ways that are worth it, the best first. Of the nodes of a zone without an instance all are the
   * same, so that a fleet of ten thousand is looked through only where there is something to win.
   */
  #worthwhile() {
    const ways: { gain: readonly [number, number]; from: string; find: () => Room | null }[] = [];
    const consider = (sample: Room, find: () => Room | null) => {
      let best: { gain: readonly [number, number]; from: string } | null = null;
      for (const from of this.#onNode.keys()) {
        const gain = this.#gain(from, sample);
        if (gain && (best === null || isMore(gain, best.gain))) best = { gain, from };
      }
      if (best) ways.push({ ...best, find });
    };
    for (const [zone, rooms] of this.#fleet.zones) {
      const empty = rooms.find(({ node }) => !this.#onNode.has(node.id));
      if (empty) consider(empty, () => this.#fleet.find(this.want, zone, this.#onNode));
    }
    const needs = amountsOf(this.want.needs);
    for (const node of this.#onNode.keys()) {
      const room = this.#fleet.rooms.get(node);
      if (room) consider(room, () => (isAllowed(this.want, needs, room) ? room : null));
    }
    return ways.sort((a, b) => b.gain[0] - a.gain[0] || b.gain[1] - a.gain[1]);
  }

  /** How much more there is in the one zone, and on the one node, than in the other; null when it is not worth it. */
  #gain(from: string, to: Room): readonly [number, number] | null {
    const zones = [this.#zone(from), zoneOf(to)] as const;
    const zone =
      zones[0] === zones[1]
        ? 0
        : (this.#inZone.get(zones[0]) ?? 0) - (this.#inZone.get(zones[1]) ?? 0);
    const count = (node: string) => this.#onNode.get(node)?.length ?? 0;
    const node = count(from) - count(to.node.id);
    if (zones[0] !== zones[1] && zone >= 2) return [zone, node];
    const keepsZones = zones[0] === zones[1] || zone === 1;
    return keepsZones && node >= 2 ? [0, node] : null;
  }

  #zone(node: string): string {
    const room = this.#fleet.rooms.get(node);
    return room ? zoneOf(room) : '';
  }
}

const isMore = (a: readonly [number, number], b: readonly [number, number]): boolean =>
  a[0] > b[0] || (a[0] === b[0] && a[1] > b[1]);
