import type { Room } from './capacity.ts';
import { hash } from './hash.ts';
import { zoneLabel } from './model.ts';
import type { Lot } from './shelf.ts';

export const zoneOf = (room: Room): string => room.node.labels[zoneLabel] ?? '';

/**
 * Divides lots by failure zone, so that each process has as nearly as many instances in one zone as
 * in another, counting those that are there: `holdersOf` says in which rooms. `zones` are those that
 * these lots may go to. One left over from an even division may go anywhere: where it packs best.
 */
export function overZones(
  lots: readonly Lot[],
  zones: readonly string[],
  holdersOf: (process: string) => readonly Room[],
  seed: number,
): Lot[] {
  if (zones.length < 2) return [...lots];
  const counts = new Map<string, Map<string, number>>();
  return lots.flatMap((lot) => {
    const { process } = lot.want;
    const present = counts.get(process) ?? countByZone(process, holdersOf(process));
    counts.set(process, present);
    // In an order of the process's own, or the same zone would get the odd one of every process.
    const order = zones.toSorted((a, b) => hash(seed, process + a) - hash(seed, process + b));
    return divide(lot, order, present);
  });
}

/** `present` counts what is in each zone, and afterwards what will be. */
function divide(lot: Lot, zones: readonly string[], present: Map<string, number>): Lot[] {
  const parts = new Map<string | null, string[]>();
  const count = (zone: string): number => present.get(zone) ?? 0;
  lot.waiting.forEach((id, index) => {
    const isLast = index === lot.waiting.length - 1;
    const isEven = zones.every((zone) => count(zone) === count(zones[0] as string));
    const emptiest = zones.reduce((a, b) => (count(b) < count(a) ? b : a));
    const zone = isLast && isEven ? null : emptiest;
    if (zone !== null) present.set(zone, count(zone) + 1);
    const part = parts.get(zone);
    if (part) part.push(id);
    else parts.set(zone, [id]);
  });
  return [...parts].map(([zone, waiting]) => ({ ...lot, zone, waiting }));
}

function countByZone(process: string, rooms: readonly Room[]): Map<string, number> {
  const present = new Map<string, number>();
  for (const room of rooms)
    present.set(zoneOf(room), (present.get(zoneOf(room)) ?? 0) + room.instancesOf(process));
  return present;
}
