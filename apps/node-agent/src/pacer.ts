/**
 * Spreads restarts after a mass failure: the first few go at once, the rest get slots one after
 * another. Time is an argument.
 */
export class RestartPacer {
  readonly #perSecond: number;
  readonly #burst: number;
  /** When the next slot would be, were there no burst; ms since 1970. */
  #next = 0;

  constructor(rate: { perSecond: number; burst: number }) {
    this.#perSecond = rate.perSecond;
    this.#burst = rate.burst;
  }

  /** Takes a slot not before `at` and answers when it is, ms since 1970. */
  reserve(at: number): number {
    const step = 1000 / this.#perSecond;
    const allowance = this.#burst * step;
    this.#next = Math.max(this.#next, at - allowance) + step;
    return Math.max(at, this.#next);
  }
}
