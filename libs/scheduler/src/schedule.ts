import { amountsOf, Room } from './capacity.ts';
import { Demand } from './demand.ts';
import type { Look } from './demand.ts';
import { hash } from './hash.ts';
import { Kinds } from './kinds.ts';
import type { Placement, Plan, Refusal, Snapshot, Want } from './model.ts';
import { Reasons } from './refusal.ts';
import { isAllowed } from './rules.ts';
import type { Lot } from './shelf.ts';

/**
 * Decides where `wants` run: no I/O, no clock, no chance but `seed`; the same arguments give the
 * same plan, in whatever order the nodes and wants are listed. Whoever applies it must still
 * re-check, for the snapshot is old by then.
 *
 * Whoever has a claim takes what was kept for it, once that suffices. Then the wants of the highest
 * priority are packed as if they were alone, then those of the next. What is refused for want of
 * room may take it from others: see `preempt`.
 *
 * `seed` breaks ties between equal nodes: replicas with different seeds that plan at the same moment
 * do not all pick the same one.
 */
export function schedule(snapshot: Snapshot, wants: readonly Want[], seed: number): Plan {
  const images = new Set(wants.map(({ image }) => image));
  const rooms = snapshot.nodes.map((node) => new Room(node, snapshot.pools, images));
  const kept = takeClaims(rooms, wants);
  const plans = byPriority(wants.filter(({ id }) => !kept.taken.has(id))).map((equals) =>
    pack(fullestFirst(rooms, seed), equals, seed),
  );
  const refusals = plans.flatMap((plan) => plan.refusals);
  return {
    placements: [...kept.placements, ...plans.flatMap((plan) => plan.placements)],
    refusals: refusals.map((refusal) =>
      kept.waiting.has(refusal.want) ? { ...refusal, message: roomIsBeingMade } : refusal,
    ),
  };
}

const roomIsBeingMade = 'instances of a lower priority are ending to make room for it';

/** Those whose claim holds enough by now. The others wait, and their claims stay reserved. */
function takeClaims(rooms: readonly Room[], wants: readonly Want[]) {
  const placements: Placement[] = [];
  const taken = new Set<string>();
  const waiting = new Set<string>();
  const claims = Map.groupBy(wants, ({ claim }) => claim);
  for (const room of rooms) {
    const claimants = (claims.get(room.node.id) ?? []).toSorted(
      (a, b) => b.priority - a.priority || (a.id < b.id ? -1 : 1),
    );
    for (const { needs } of claimants) room.release(amountsOf(needs));
    for (const want of claimants) {
      const needs = amountsOf(want.needs);
      if (!isAllowed(want, needs, room)) {
        waiting.add(want.id);
        continue;
      }
      room.reserve(want.process, needs);
      placements.push({ want: want.id, node: room.node.id });
      taken.add(want.id);
    }
    for (const { id, needs } of claimants) if (waiting.has(id)) room.keep(amountsOf(needs));
  }
  return { placements, taken, waiting };
}

/** The highest first. */
function byPriority(wants: readonly Want[]): Want[][] {
  const groups = Map.groupBy(wants, ({ priority }) => priority);
  return [...groups].sort(([a], [b]) => b - a).map(([, equals]) => equals);
}

/**
 * Goes from node to node, the fullest first, and each takes, again and again, what leaves the least
 * of it unused (`Shelf.fill`), until nothing fits any more; so an emptier node is touched only when
 * no fuller one can help. What comes before packing is said by the rounds and looks around it:
 *
 * - Zones come first: lots are divided among them beforehand, and go elsewhere only when nothing of
 *   theirs has room.
 * - Spread. In the first round a node takes only from processes that have no instance on it, in the
 *   second from those that have one, and so on: a lost host should cost a process as little as it can.
 * - Image. Nodes that hold an image may take first what wants it, unless they are emptier by half
 *   than where it would go otherwise: a pull costs seconds, a little slack costs nothing today.
 */
function pack(rooms: readonly Room[], wants: readonly Want[], seed: number): Plan {
  // A node that no want can use is left out of the search, not of the explanation.
  const usable = rooms.filter(({ node }) => node.state === 'ready' && !node.cordoned);
  const kinds = new Kinds(rooms, wants);
  const demand = new Demand(wants, usable, kinds, seed);
  const placements: Placement[] = [];
  /** As `Shelf.fill`, from all shelves. */
  const fill = (room: Room, look: Look, spread: number): number => {
    const take = ({ want, needs, waiting }: Lot): void => {
      room.reserve(want.process, needs);
      placements.push({ want: waiting.pop() as string, node: room.node.id });
    };
    return demand
      .shelvesFor(room, look)
      .reduce((heldBack, shelf) => Math.min(heldBack, shelf.fill(room, spread, take)), Infinity);
  };
  const fullnessNow = fullnessInUse(usable, demand);
  for (const ownZone of [true, false]) {
    // Places in the order of rooms, by the round in which there may be more for them.
    const rounds: number[][] = [[...usable.keys()]];
    for (let spread = 0; spread < rounds.length; spread++) {
      if (placements.length === wants.length) break;
      const round = (rounds[spread] ?? []).sort((a, b) => a - b);
      const leastFull = fullnessNow() - imageIsWorth;
      for (const index of round) {
        const room = usable[index] as Room;
        if (room.images.length > 0 && room.fullness() >= leastFull)
          fill(room, { ownZone, ownImages: true }, spread);
      }
      for (const index of round) {
        const heldBack = fill(usable[index] as Room, { ownZone, ownImages: false }, spread);
        // Else it is full, or nothing is left for it: it need not be asked again.
        if (heldBack < Infinity) (rounds[heldBack] ??= []).push(index);
      }
    }
  }
  return { placements, refusals: refuse(demand.lots, rooms, kinds) };
}

/** In shares of a node's scarcest resource. */
const imageIsWorth = 0.5;

/** Tells how full the node is that would be packed next, whatever images there are. */
function fullnessInUse(rooms: readonly Room[], demand: Demand): () => number {
  const anything: Look = { ownZone: false, ownImages: false };
  let next = 0;
  return () => {
    // What takes nothing now takes nothing later.
    for (; next < rooms.length; next++) {
      const room = rooms[next] as Room;
      if (demand.shelvesFor(room, anything).some((shelf) => shelf.mayFit(room)))
        return room.fullness();
    }
    return 0;
  };
}

function fullestFirst(rooms: readonly Room[], seed: number): Room[] {
  return rooms
    .map((room) => ({ room, full: room.fullness(), tie: hash(seed, room.node.id) }))
    .sort((a, b) => b.full - a.full || a.tie - b.tie || (a.room.node.id < b.room.node.id ? -1 : 1))
    .map(({ room }) => room);
}

/** Wants of the same size and taste are refused for the same reason, which is looked for once. */
function refuse(lots: readonly Lot[], rooms: readonly Room[], kinds: Kinds): Refusal[] {
  const refused = lots.filter(({ waiting }) => waiting.length > 0);
  if (refused.length === 0) return [];
  const reasons = new Reasons(
    rooms,
    kinds,
    refused.map(({ want }) => want),
  );
  const known = new Map<string, Omit<Refusal, 'want'>>();
  return refused.flatMap(({ want, needs, waiting }) => {
    const { process, pool, labels, mostPerNode } = want;
    const limit = mostPerNode === null ? null : [process, mostPerNode];
    const key = JSON.stringify([needs, pool, Object.entries(labels).sort(), limit]);
    const reason = known.get(key) ?? reasons.explain(want, needs);
    known.set(key, reason);
    return waiting.map((id) => ({ ...reason, want: id }));
  });
}
