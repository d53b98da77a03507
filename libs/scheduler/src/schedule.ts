import { amountsOf, Room } from './capacity.ts';
import { Demand } from './demand.ts';
import type { Look } from './demand.ts';
import { hash } from './hash.ts';
import type { Placement, Plan, Refusal, Snapshot, Want } from './model.ts';
import { explainRefusal } from './refusal.ts';
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
 * of it unused (`Shelf.best`), until nothing fits any more; so an emptier node is touched only when
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
  const demand = new Demand(wants, usable, seed);
  const placements: Placement[] = [];
  const place = (room: Room, lot: Lot): void => {
    room.reserve(lot.want.process, lot.needs);
    placements.push({ want: lot.waiting.pop() as string, node: room.node.id });
  };
  let heldBack: boolean;
  const onHeldBack = (): void => void (heldBack = true);
  for (const ownZone of [true, false]) {
    heldBack = true;
    for (let spread = 0; heldBack && placements.length < wants.length; spread++) {
      heldBack = false;
      for (const ownImages of [true, false]) {
        const leastFull = ownImages ? fullnessInUse(usable, demand) - imageIsWorth : 0;
        for (const room of usable) {
          if (ownImages && (room.images.length === 0 || room.fullness() < leastFull)) continue;
          for (const shelf of demand.shelvesFor(room, { ownZone, ownImages })) {
            let lot = shelf.best(room, spread, onHeldBack);
            for (; lot; lot = shelf.best(room, spread, onHeldBack)) place(room, lot);
          }
        }
      }
    }
  }
  return { placements, refusals: refuse(demand.lots, rooms) };
}

/** In shares of a node's scarcest resource. */
const imageIsWorth = 0.5;

/** How full the node is that would be packed next, whatever images there are. */
function fullnessInUse(rooms: readonly Room[], demand: Demand): number {
  const anything: Look = { ownZone: false, ownImages: false };
  const next = rooms.find((room) =>
    demand.shelvesFor(room, anything).some((shelf) => shelf.mayFit(room)),
  );
  return next?.fullness() ?? 0;
}

function fullestFirst(rooms: readonly Room[], seed: number): Room[] {
  return rooms
    .map((room) => ({ room, full: room.fullness(), tie: hash(seed, room.node.id) }))
    .sort((a, b) => b.full - a.full || a.tie - b.tie || (a.room.node.id < b.room.node.id ? -1 : 1))
    .map(({ room }) => room);
}

/** Wants of the same size and taste are refused for the same reason, which is looked for once. */
function refuse(lots: readonly Lot[], rooms: readonly Room[]): Refusal[] {
  const known = new Map<string, Omit<Refusal, 'want'>>();
  return lots.flatMap(({ want, needs, waiting }) => {
    if (waiting.length === 0) return [];
    const { process, pool, labels, mostPerNode } = want;
    const limit = mostPerNode === null ? null : [process, mostPerNode];
    const key = JSON.stringify([needs, pool, Object.entries(labels).sort(), limit]);
    const reason = known.get(key) ?? explainRefusal(want, needs, rooms);
    known.set(key, reason);
    return waiting.map((id) => ({ ...reason, want: id }));
  });
}
