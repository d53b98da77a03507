import { subjects } from '@bulkhead/protocol';
import type { NatsLink } from './nats.ts';

/**
 * Wakes whoever waits for news of an app. A nudge says only "look again": one that is lost costs
 * the time until the next look, nothing else.
 */
export class AppNudges {
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor(private readonly nats: NatsLink) {}

  start(): void {
    this.nats.whenReady().then(
      () => {
        this.nats.nc.subscribe(subjects.nudge, {
          callback: (error, message) => {
            if (!error) this.#wake(message.string());
          },
        });
      },
      // The process ends before NATS was there: nobody waits any more.
      () => undefined,
    );
  }

  /**
   * Starts listening at once, so that nothing is missed between a look and the wait for the next.
   * Settles with the first nudge, after `atMostMs`, or when `ending` fires.
   */
  next(appId: string, atMostMs: number, ending: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const ofApp = this.#waiting.get(appId) ?? new Set();
    this.#waiting.set(appId, ofApp.add(resolve));
    const timer = setTimeout(resolve, atMostMs);
    ending.addEventListener('abort', () => resolve(), { once: true });
    if (ending.aborted) resolve();
    return promise.finally(() => {
      clearTimeout(timer);
      ofApp.delete(resolve);
      if (ofApp.size === 0 && this.#waiting.get(appId) === ofApp) this.#waiting.delete(appId);
    });
  }

  #wake(appId: string): void {
    for (const resolve of this.#waiting.get(appId) ?? []) resolve();
  }
}
