import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { HaproxyMaster } from './master.ts';

/**
 * HAProxy waits for a request's body as long as some byte of it comes every two minutes, and knows
 * no limit to a body without a length. So we look at those that take long, and end what is too
 * large or too slow: Apache's mod_reqtimeout gives a body 20 s and a second more for each 500 bytes.
 */
export const bodyGraceSeconds = 30;
const leastBytesPerSecond = 500;
const lookEveryMs = 10_000;
/** Past so many long requests all are shown at once. */
const fewRequests = 64;

/** A request whose body is on its way, while nothing of the answer has come. */
export interface Arriving {
  /** As HAProxy names it. */
  readonly id: string;
  readonly ageSeconds: number;
  readonly bytes: number;
}

/** `show sess all`, or of one: those with a body that is not complete. */
export function parseArriving(text: string): Arriving[] {
  return text.split(/^(?=0x)/m).flatMap((session) => {
    const id = /^(0x[0-9a-f]+): /.exec(session)?.[1];
    const age = / age=(\S+)\)/.exec(session)?.[1];
    const bytes = /^ {2}req=.* total=(\d+)\)/m.exec(session)?.[1];
    if (id === undefined || age === undefined || bytes === undefined) return [];
    if (!/ req\.st=MSG_DATA rsp\.st=MSG_RPBEFORE /.test(session)) return [];
    return [{ id, ageSeconds: secondsOf(age), bytes: Number(bytes) }];
  });
}

/** `show sess`: the requests of visitors that take longer than most. */
export function parseLong(text: string, longSeconds: number): string[] {
  const line = /^(0x[0-9a-f]+): proto=tcp.* fe=edge .* age=(\S+) /gm;
  return [...text.matchAll(line)].flatMap(([, id = '', age = '']) =>
    secondsOf(age) >= longSeconds ? [id] : [],
  );
}

/** `4s`, `1m30s`, `2h5m`, `1d3h`. */
function secondsOf(age: string): number {
  const unit: Record<string, number> = { d: 86_400, h: 3600, m: 60, s: 1 };
  return [...age.matchAll(/(\d+)([dhms])/g)].reduce(
    (sum, [, count, each = 's']) => sum + Number(count) * (unit[each] ?? 0),
    0,
  );
}

export interface BodyLimits {
  maxBytes: number;
  graceSeconds: number;
}

/** Why it is to end. */
export function verdictOn(body: Arriving, limits: BodyLimits): 'large' | 'slow' | null {
  if (body.bytes > limits.maxBytes) return 'large';
  const allowed = limits.graceSeconds + body.bytes / leastBytesPerSecond;
  return body.ageSeconds > allowed ? 'slow' : null;
}

/** Looks every ten seconds, in every worker, for bodies that are to end. */
export class BodyWatch {
  /** Requests that were ended, by why. */
  readonly ended = { slow: 0, large: 0 };
  readonly #master: HaproxyMaster;
  readonly #limits: BodyLimits;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(master: HaproxyMaster, limits: BodyLimits, log: Logger) {
    this.#master = master;
    this.#limits = limits;
    this.#log = log;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** Once, in every worker. */
  async look(): Promise<void> {
    for (const worker of await this.#master.workers()) {
      const run = (command: string) => this.#master.run(worker, command);
      const long = parseLong(await run('show sess'), Math.min(5, this.#limits.graceSeconds));
      if (long.length === 0) continue;
      const shown =
        long.length > fewRequests
          ? await run('show sess all')
          : (await Promise.all(long.map((id) => run(`show sess ${id}`)))).join('\n');
      for (const body of parseArriving(shown)) {
        const why = verdictOn(body, this.#limits);
        if (why === null) continue;
        await run(`shutdown session ${body.id}`);
        this.ended[why] += 1;
      }
    }
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await delay(lookEveryMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      if (this.#stop.signal.aborted) return;
      // HAProxy may be away, or the session over; the next look is soon.
      await this.look().catch((error: unknown) =>
        this.#log.debug({ err: error }, 'cannot look at the bodies of requests'),
      );
    }
  }
}
