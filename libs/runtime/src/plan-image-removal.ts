import type { WaterMarks } from './runtime.ts';

/**
 * Decides which images go when the disk fills up: least recently used first, none that is in use,
 * and none whose removal would free nothing because others hold its layers. Pure.
 */
export interface RemovalCandidate {
  id: string;
  layers: readonly string[];
  /** ms since 1970. */
  usedAt: number;
  inUse: boolean;
}

/** Bytes to free; 0: nothing to do. */
export function bytesToFree(
  disk: { size: number; used: number },
  storedBytes: number,
  marks: WaterMarks,
): number {
  const high = (disk.size * marks.highPercent) / 100;
  const low = (disk.size * marks.lowPercent) / 100;
  const overDisk = disk.used >= high ? disk.used - low : 0;
  const { maxBytes } = marks;
  // Below the limit with some distance, or each pull would have to remove again.
  const overLimit = maxBytes !== null && storedBytes > maxBytes ? storedBytes - maxBytes * 0.9 : 0;
  return Math.max(0, Math.ceil(Math.max(overDisk, overLimit)));
}

/** Ids of the images to remove, in order, to free `wanted` bytes or as near as can be, and what that frees. */
export function planImageRemoval(
  images: readonly RemovalCandidate[],
  layerBytes: ReadonlyMap<string, number>,
  wanted: number,
): { remove: string[]; bytes: number } {
  const holders = new Map<string, number>();
  for (const image of images)
    for (const layer of image.layers) holders.set(layer, (holders.get(layer) ?? 0) + 1);
  const change = (image: RemovalCandidate, by: 1 | -1): number => {
    let bytes = 0;
    for (const layer of image.layers) {
      const before = holders.get(layer) ?? 0;
      holders.set(layer, before + by);
      if (before + Math.min(by, 0) === 0) bytes += layerBytes.get(layer) ?? 0;
    }
    return bytes;
  };
  const chosen: RemovalCandidate[] = [];
  let bytes = 0;
  for (const image of images.filter((i) => !i.inUse).sort((a, b) => a.usedAt - b.usedAt)) {
    if (bytes >= wanted) break;
    bytes += change(image, -1);
    chosen.push(image);
  }
  // Those that cost nothing to keep stay, the most recently used first.
  for (const image of [...chosen].reverse()) {
    const cost = change(image, 1);
    if (cost === 0 && image.layers.length > 0) chosen.splice(chosen.indexOf(image), 1);
    else change(image, -1);
  }
  return { remove: chosen.map((image) => image.id), bytes };
}
