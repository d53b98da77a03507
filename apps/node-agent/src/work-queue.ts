/** Runs `work(key)` once at a time per key; a nudge during the run makes it run once more after. */
export class KeyedQueue {
  readonly #work: (key: string) => Promise<void>;
  readonly #state = new Map<string, 'running' | 'running-again'>();
  readonly #idle: (() => void)[] = [];
  #stopped = false;

  constructor(work: (key: string) => Promise<void>) {
    this.#work = work;
  }

  nudge(key: string): void {
    if (this.#stopped) return;
    if (this.#state.has(key)) {
      this.#state.set(key, 'running-again');
      return;
    }
    this.#state.set(key, 'running');
    void this.#run(key);
  }

  async #run(key: string): Promise<void> {
    do {
      this.#state.set(key, 'running');
      // `work` handles its own failures; what it lets through must not stop the other keys.
      await this.#work(key).catch(() => undefined);
    } while (this.#state.get(key) === 'running-again' && !this.#stopped);
    this.#state.delete(key);
    if (this.#state.size === 0) for (const done of this.#idle.splice(0)) done();
  }

  /** Starts nothing more; resolves when what runs has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#state.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
}

/** Lets `places` callers in at a time, in the order of their asking. */
export class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(places: number) {
    this.#free = places;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

/** Some go before the others: `passed` resolves when none of them is in front. */
export class Precedence {
  readonly #inFront = new Set<string>();
  readonly #waiting: (() => void)[] = [];

  enter(key: string): void {
    this.#inFront.add(key);
  }

  leave(key: string): void {
    if (this.#inFront.delete(key) && this.#inFront.size === 0) this.end();
  }

  async passed(): Promise<void> {
    if (this.#inFront.size > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Lets everybody go on. */
  end(): void {
    this.#inFront.clear();
    for (const go of this.#waiting.splice(0)) go();
  }
}
