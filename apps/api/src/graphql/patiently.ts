import { setTimeout as delay } from 'node:timers/promises';
import { DomainError } from '@bulkhead/protocol';

const retryMs = 1000;

/**
 * Tries again for as long as a part of the platform is away: who follows something is better served
 * by waiting through a restart of the database than by an error. `ending` lets go.
 */
export async function patiently<T>(work: () => Promise<T>, ending: AbortSignal): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const away = error instanceof DomainError && error.code === 'UNAVAILABLE';
      if (!away || ending.aborted) throw error;
      await delay(retryMs, undefined, { signal: ending }).catch(() => undefined);
    }
  }
}
