/**
 * The two shapes of loop that the controllers have. Both hold their timers themselves, never run
 * the same work twice at once, and treat a wake-up during work as a reason to look again after it.
 */

export interface LoopOptions {
  /** Looks at the world; `again` when there is more to do right now. */
  readonly work: () => Promise<'again' | 'done'>;
  /** The safety net: also without a wake-up it runs this often, milliseconds. */
  readonly everyMs: number;
  readonly onError: (error: unknown) => void;
}

/**
 * Longest pause after errors in a row, milliseconds. A loop fails when PostgreSQL or NATS is away,
 * and should go on as soon as they are back; a key fails for a reason of its own, which may last.
 */
const longestPauseMs = { loop: 2_000, key: 30_000 } as const;

/** For this long after an error a loop is not woken, milliseconds. */
const wakeAfterErrorMs = 200;

function pauseAfter(failures: number, longestMs: number): number {
  return Math.min(longestMs, 250 * 2 ** Math.min(failures, 10));
}

export class Loop {
  readonly #options: LoopOptions;
  #timer: NodeJS.Timeout | null = null;
  #running: Promise<void> | null = null;
  #dirty = false;
  #failures = 0;
  #failedAt = 0;
  #stopped = true;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  start(): void {
    this.#stopped = false;
    this.wake();
  }

  /** Waits for the work that is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer) clearTimeout(this.#timer);
    await this.#running;
  }

  wake(): void {
    if (this.#stopped) return;
    if (this.#running) {
      this.#dirty = true;
      return;
    }
    // A stream of wake-ups must not become a stream of errors; one may mean that the trouble is over.
    if (this.#failures > 0 && performance.now() - this.#failedAt < wakeAfterErrorMs) return;
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#running = this.#run().finally(() => {
      this.#running = null;
      this.#next();
    });
  }

  async #run(): Promise<void> {
    this.#dirty = false;
    try {
      const answer = await this.#options.work();
      this.#failures = 0;
      if (answer === 'again') this.#dirty = true;
    } catch (error) {
      this.#failures += 1;
      this.#failedAt = performance.now();
      this.#options.onError(error);
    }
  }

  #next(): void {
    if (this.#stopped) return;
    const failing = this.#failures > 0;
    if (this.#dirty && !failing) {
      this.wake();
      return;
    }
    const pause = failing ? pauseAfter(this.#failures, longestPauseMs.loop) : this.#options.everyMs;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.wake();
    }, pause);
  }
}

export interface KeyedQueueOptions {
  /** Handles one key; `again` to be called for it once more. */
  readonly work: (key: string) => Promise<'again' | 'done'>;
  readonly concurrency: number;
  readonly onError: (key: string, error: unknown) => void;
}

/** Work per key: one key at a time never twice at once, and a key that fails waits alone. */
export class KeyedQueue {
  readonly #options: KeyedQueueOptions;
  readonly #waiting = new Set<string>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #dirty = new Set<string>();
  readonly #failing = new Map<string, NodeJS.Timeout>();
  #stopped = false;

  constructor(options: KeyedQueueOptions) {
    this.#options = options;
  }

  add(key: string): void {
    if (this.#stopped || this.#failing.has(key)) return;
    if (this.#running.has(key)) this.#dirty.add(key);
    else this.#waiting.add(key);
    this.#fill();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#waiting.clear();
    for (const timer of this.#failing.values()) clearTimeout(timer);
    await Promise.all(this.#running.values());
  }

  #fill(): void {
    for (const key of this.#waiting) {
      if (this.#stopped || this.#running.size >= this.#options.concurrency) return;
      this.#waiting.delete(key);
      this.#running.set(key, this.#run(key, 0));
    }
  }

  async #run(key: string, failures: number): Promise<void> {
    let failed = false;
    try {
      if ((await this.#options.work(key)) === 'again') this.#dirty.add(key);
    } catch (error) {
      failed = true;
      this.#options.onError(key, error);
    }
    this.#running.delete(key);
    if (this.#stopped) return;
    if (failed) this.#retryLater(key, failures + 1);
    else if (this.#dirty.delete(key)) this.#waiting.add(key);
    this.#fill();
  }

  #retryLater(key: string, failures: number): void {
    const retry = () => {
      this.#failing.delete(key);
      this.#dirty.delete(key);
      this.#running.set(key, this.#run(key, failures));
    };
    const timer = setTimeout(retry, pauseAfter(failures, longestPauseMs.key));
    this.#failing.set(key, timer);
  }
}
