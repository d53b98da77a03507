import { setTimeout as delay } from 'node:timers/promises';

/**
 * Asks `probe` again until it gives something other than null, undefined or false, and returns that.
 * An error of the probe counts as "not yet"; the last one is told when time is up.
 */
export async function until<T>(
  what: string,
  probe: () => Promise<T | null | undefined | false> | T | null | undefined | false,
  timeoutMs = 60_000,
): Promise<T> {
  const end = Date.now() + timeoutMs;
  let last: unknown = null;
  while (Date.now() < end) {
    try {
      const value = await probe();
      if (value !== null && value !== undefined && value !== false) return value;
      last = null;
    } catch (error) {
      last = error;
    }
    await delay(50);
  }
  throw new Error(`waited ${timeoutMs} ms in vain until ${what}`, { cause: last });
}
