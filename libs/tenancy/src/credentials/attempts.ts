import { unavailable } from '@bulkhead/protocol';
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';

/**
 * Slows down guessing. A point is taken before the password is looked at, so that a burst in
 * parallel counts too, and given back when it was right. The counters live in this process: with n
 * replicas an attacker has n times as many tries, still far too few for a password of 10 characters.
 */
export class SignInAttempts {
  /** The owner at a desk is slowed by their own mistakes only, not by a stranger's elsewhere. */
  readonly #pair = new RateLimiterMemory({ keyPrefix: 'pair', points: 10, duration: 300 });
  /** One client through many accounts. */
  readonly #address = new RateLimiterMemory({ keyPrefix: 'address', points: 100, duration: 600 });
  /** Many clients on one account. */
  readonly #email = new RateLimiterMemory({ keyPrefix: 'email', points: 200, duration: 3600 });
  readonly #signUps = new RateLimiterMemory({ keyPrefix: 'sign-up', points: 200, duration: 3600 });

  /** UNAVAILABLE when there were too many; otherwise answers what to call when the password was right. */
  async begin(email: string, address: string): Promise<() => Promise<void>> {
    const pair = `${address} ${email}`;
    await take(this.#pair, pair);
    await take(this.#address, address);
    await take(this.#email, email);
    return async () => {
      await this.#pair.delete(pair);
      await this.#address.reward(address);
      await this.#email.reward(email);
    };
  }

  async signUp(address: string): Promise<void> {
    await take(this.#signUps, address);
  }
}

async function take(limiter: RateLimiterMemory, key: string): Promise<void> {
  try {
    await limiter.consume(key);
  } catch (refusal) {
    if (!(refusal instanceof RateLimiterRes)) throw refusal;
    const seconds = Math.ceil(refusal.msBeforeNext / 1000);
    throw unavailable(`too many attempts; try again in ${seconds} seconds`);
  }
}
