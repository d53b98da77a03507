import { fits } from './capacity.ts';
import type { Room } from './capacity.ts';
import { resourceNames } from './model.ts';
import type { Amounts, ResourceName } from './model.ts';

type Free = Record<ResourceName, number>;

/**
 * Finds rooms that fit without looking at all of them: a binary tree over the rooms in the order
 * given, each inner node holding the most that is free of each resource below it. A branch whose
 * best is too small is skipped whole, so a search costs the rooms it finds times the tree's depth.
 */
export class Candidates {
  private readonly rooms: readonly Room[];
  /** Heap layout: children of i are 2i and 2i+1, leaves start at `size`. */
  private readonly most: Free[];
  private readonly size: number;
  private readonly position: ReadonlyMap<Room, number>;

  constructor(rooms: readonly Room[]) {
    this.rooms = rooms;
    this.size = 2 ** Math.ceil(Math.log2(Math.max(1, rooms.length)));
    this.position = new Map(rooms.map((room, index) => [room, index]));
    const nothing = -1;
    this.most = Array.from({ length: 2 * this.size }, (_, index) => {
      const room = rooms[index - this.size];
      return room
        ? { ...room.free }
        : { cpuMillis: nothing, memoryMiB: nothing, diskMiB: nothing, instances: nothing };
    });
    for (let index = this.size - 1; index >= 1; index--) this.refresh(index);
  }

  /** Up to `limit` rooms with space for `needs` that pass `allowed`, in the tree's order. */
  find(needs: Amounts, limit: number, allowed: (room: Room) => boolean): Room[] {
    const found: Room[] = [];
    const open = [1];
    while (open.length > 0 && found.length < limit) {
      const index = open.pop() as number;
      if (!fits(needs, this.most[index] as Free)) continue;
      if (index < this.size) {
        open.push(2 * index + 1, 2 * index);
        continue;
      }
      const room = this.rooms[index - this.size] as Room;
      if (allowed(room)) found.push(room);
    }
    return found;
  }

  /** Must be called after a room's free amounts changed. */
  update(room: Room): void {
    const position = this.position.get(room);
    if (position === undefined) return;
    let index = this.size + position;
    this.most[index] = { ...room.free };
    for (index >>= 1; index >= 1; index >>= 1) this.refresh(index);
  }

  private refresh(index: number): void {
    const target = this.most[index] as Free;
    const left = this.most[2 * index] as Free;
    const right = this.most[2 * index + 1] as Free;
    for (const name of resourceNames) target[name] = Math.max(left[name], right[name]);
  }
}
