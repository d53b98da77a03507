import { isIPv6 } from 'node:net';
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
  /**
   * Many clients on one account: far above what one client may do alone, so that a stranger with one
   * address does not lock somebody out everywhere.
   */
  readonly #email = new RateLimiterMemory({ keyPrefix: 'email', points: 200, duration: 3600 });
  readonly #signUps = new RateLimiterMemory({ keyPrefix: 'sign-up', points: 200, duration: 3600 });

  /** UNAVAILABLE when there were too many; otherwise answers what to call when the password was right. */
  async begin(email: string, from: string): Promise<() => Promise<void>> {
    const address = clientOf(from);
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
    await take(this.#signUps, clientOf(address));
  }
}

/**
 * Whom an address stands for: of IPv6 the /64, for one client has as many addresses as it likes
 * within one.
 */
export function clientOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  if (!isIPv6(address)) return address;
  const [head = '', tail] = address.split('%')[0]?.toLowerCase().split('::') ?? [];
  const groups = (text: string) => text.split(':').filter((group) => group !== '');
  const first = groups(head);
  const last = groups(tail ?? '');
  // The last two groups may be written as an IPv4 address.
  const length = first.length + last.length + (last.at(-1)?.includes('.') === true ? 1 : 0);
  const zeros = tail === undefined ? 0 : 8 - length;
  const all = [...first, ...Array.from({ length: zeros }, () => '0'), ...last];
  const network = all.slice(0, 4).map((group) => group.replace(/^0+(?=.)/, ''));
  return `${network.join(':')}::/64`;
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
