import type { Room } from './capacity.ts';
import type { Amounts, Want } from './model.ts';

/**
 * How good an allowed node is; the highest wins. Packing is at most 1, so that:
 * - an app's instances part company before anything else is weighed: a lost host should cost an app
 *   one instance, not all of them;
 * - having the image beats half a node's worth of packing: a pull costs seconds, a little slack
 *   costs nothing today.
 */
const weights = { pack: 1, image: 0.5, spread: 2 } as const;

export function score(want: Want, needs: Amounts, room: Room): number {
  const pack = room.fullness(needs);
  const image = room.images.has(want.image) ? 1 : 0;
  return weights.pack * pack + weights.image * image - weights.spread * room.instancesOf(want.app);
}
