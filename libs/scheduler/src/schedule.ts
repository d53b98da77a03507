import { Candidates } from './candidates.ts';
import { Room, amountsOf } from './capacity.ts';
import type { Amounts, Placement, Plan, Refusal, Snapshot, Want } from './model.ts';
import { explainRefusal } from './refusal.ts';
import { isAllowed } from './rules.ts';
import { score } from './score.ts';

/**
 * How many nodes that fit are scored for one want. All of them in a small fleet; in a large one the
 * fullest that fit, and as many that hold the image, are as good as all.
 */
const scoredPerWant = 64;

const nothing: Amounts = { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 };

/**
 * Decides where `wants` run: no I/O, no clock, no chance but `seed`; the same arguments give the
 * same plan, in whatever order the nodes and wants are listed. Reservations of one plan count for
 * the wants after them, so the plan as a whole never exceeds a node's capacity as the snapshot knows
 * it. Whoever applies it must still re-check, for the snapshot is old by then.
 *
 * `seed` breaks ties between equal nodes: replicas with different seeds that plan at the same moment
 * do not all pick the same one.
 */
export function schedule(snapshot: Snapshot, wants: readonly Want[], seed: number): Plan {
  const fleet = new Fleet(snapshot, seed);
  const placements: Placement[] = [];
  const refusals: Refusal[] = [];
  // Room only shrinks while a plan is made: what was refused once is refused again, for the same reason.
  const refused = new Map<string, Refusal>();
  for (const want of largestFirst(wants)) {
    const kind = kindOf(want);
    const before = refused.get(kind);
    if (before) {
      refusals.push({ ...before, want: want.id });
      continue;
    }
    const needs = amountsOf(want.needs);
    const room = fleet.best(want, needs);
    if (room) {
      fleet.reserve(room, want, needs);
      placements.push({ want: want.id, node: room.node.id });
    } else {
      const refusal = explainRefusal(want, needs, fleet.rooms);
      refused.set(kind, refusal);
      refusals.push(refusal);
    }
  }
  return { placements, refusals };
}

class Fleet {
  readonly rooms: readonly Room[];
  private readonly byPool = new Map<string, Candidates>();
  private readonly byImage = new Map<string, Room[]>();

  constructor(snapshot: Snapshot, seed: number) {
    const ordered = snapshot.nodes
      .map((node) => ({ room: new Room(node, snapshot.pools), tie: hash(seed, node.id) }))
      .map((entry) => ({ ...entry, full: entry.room.fullness(nothing) }))
      // Fullest first: the search for candidates then packs by itself.
      .sort(
        (a, b) => b.full - a.full || a.tie - b.tie || (a.room.node.id < b.room.node.id ? -1 : 1),
      );
    this.rooms = ordered.map(({ room }) => room);
    const pools = new Map<string, Room[]>();
    for (const room of this.rooms) {
      // A node that no want can use is left out of the search, not of the explanation.
      if (room.node.state !== 'ready' || room.node.cordoned) continue;
      listIn(pools, room.node.pool).push(room);
      for (const image of room.images) listIn(this.byImage, image).push(room);
    }
    for (const [pool, rooms] of pools) this.byPool.set(pool, new Candidates(rooms));
  }

  /** The allowed room with the highest score; the first in the fleet's order among equals. */
  best(want: Want, needs: Amounts): Room | null {
    let best: Room | null = null;
    let highest = -Infinity;
    const consider = (room: Room) => {
      const value = score(want, needs, room);
      if (value > highest) {
        best = room;
        highest = value;
      }
    };
    const allowed = (room: Room) => isAllowed(want, needs, room);
    this.byPool.get(want.pool)?.find(needs, scoredPerWant, allowed).forEach(consider);
    // Looked at, not found: in a full fleet that has the image everywhere, the search stays short.
    for (const room of this.byImage.get(want.image)?.slice(0, 4 * scoredPerWant) ?? []) {
      if (allowed(room)) consider(room);
    }
    return best;
  }

  reserve(room: Room, want: Want, needs: Amounts): void {
    room.reserve(want.app, needs);
    this.byPool.get(room.node.pool)?.update(room);
  }
}

/** Large wants first, while there is room for them; the id only makes the order total. */
function largestFirst(wants: readonly Want[]): Want[] {
  return [...wants].sort(
    (a, b) =>
      b.needs.memoryMiB - a.needs.memoryMiB ||
      b.needs.cpuMillis - a.needs.cpuMillis ||
      b.needs.diskMiB - a.needs.diskMiB ||
      (a.id < b.id ? -1 : a.id > b.id ? 1 : 0),
  );
}

/** Wants of one kind are allowed on the same nodes. */
function kindOf(want: Want): string {
  const { cpuMillis, memoryMiB, diskMiB } = want.needs;
  const labels = Object.entries(want.labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([cpuMillis, memoryMiB, diskMiB, want.pool, labels]);
}

function listIn<K>(lists: Map<K, Room[]>, key: K): Room[] {
  const list = lists.get(key) ?? [];
  lists.set(key, list);
  return list;
}

/** FNV-1a over the id, started from the seed: spreads ties evenly, promises nothing else. */
function hash(seed: number, id: string): number {
  let value = (0x811c9dc5 ^ seed) >>> 0;
  for (let index = 0; index < id.length; index++) {
    value = Math.imul(value ^ id.charCodeAt(index), 0x01000193) >>> 0;
  }
  return value;
}
