/**
 * Spreads restarts after a mass failure: the first few go at once, the rest get slots one after
 * another. Time is an argument, ms by a steady clock.
 */
export class RestartPacer {
  readonly #perSecond: number;
  readonly #burst: number;
  /** When the next slot would be, were there no burst. */
  #next = -Infinity;

  constructor(rate: { perSecond: number; burst: number }) {
    this.#perSecond = rate.perSecond;
    this.#burst = rate.burst;
  }

  /** Takes a slot not before `at` and answers when it is. */
  reserve(at: number): number {
    const step = 1000 / this.#perSecond;
    const allowance = this.#burst * step;
    this.#next = Math.max(this.#next, at - allowance) + step;
    return Math.max(at, this.#next);
  }
}
