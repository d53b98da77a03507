/**
 * Health checks that are commands: each is a process in the container, and there may be a thousand
 * of them. What costs, the beginning of one, is done by few at once. One that hangs costs nothing
 * but a place of its tenant's, so that whoever fills their places holds up nobody else.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { assertNever } from '@bulkhead/protocol';
import type { CheckResult, ContainerRuntime } from '@bulkhead/runtime';
import type { Logger } from 'pino';
import type { ProbeResult } from './health.ts';
import { Semaphore } from './work-queue.ts';

/** Commands that begin at once, on the whole node. */
const beginAtOnce = 2;
/**
 * Each keeps its turn so long at least, ms: 25 commands a second at most. One costs the agent some
 * 7 ms of CPU, so all of them together never more than about a sixth of a core; where more are due,
 * they come later than their interval.
 */
const defaultTurnMs = 80;
/** A command that is not over by then waits for something, and lets the next begin, ms. */
const beginMs = 250;
/** Commands of one tenant at once; more wait for each other. */
const ofTenantAtOnce = 16;
/** One that has not come back so long after its time (held still, for example) leaves its place, ms. */
const lateMs = 15_000;
/** What is told of a command and of its last line, characters. */
const mostShown = 200;

export interface Checked {
  instance: string;
  tenant: string;
  command: readonly string[];
  timeoutMs: number;
}

export class Checks {
  readonly #runtime: Pick<ContainerRuntime, 'check'>;
  readonly #log: Logger;
  readonly #turnMs: number;
  readonly #beginning = new Semaphore(beginAtOnce);
  readonly #tenants = new Map<string, { places: Semaphore; users: number }>();

  constructor(runtime: Pick<ContainerRuntime, 'check'>, log: Logger, turnMs = defaultTurnMs) {
    this.#turnMs = turnMs;
    this.#runtime = runtime;
    this.#log = log;
  }

  /** Null when the host could not run it: that says nothing of the instance. */
  async run({ instance, tenant, command, timeoutMs }: Checked): Promise<ProbeResult | null> {
    const entry = this.#tenants.get(tenant) ?? { places: new Semaphore(ofTenantAtOnce), users: 0 };
    this.#tenants.set(tenant, entry);
    entry.users += 1;
    try {
      const result = await this.#inPlace(entry.places, timeoutMs, () =>
        this.#runtime.check(instance, command, timeoutMs),
      );
      return judgeCommand(command, timeoutMs, result);
    } catch (error) {
      this.#log.warn({ instance, err: error }, 'a health check could not be run');
      return null;
    } finally {
      entry.users -= 1;
      if (entry.users === 0) this.#tenants.delete(tenant);
    }
  }

  /** Waits for a place and for leave to begin; gives both back, at the latest when their time is up. */
  #inPlace<T>(places: Semaphore, timeoutMs: number, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      void places.run(async () => {
        let ended: Promise<void> = Promise.resolve();
        await this.#beginning.run(async () => {
          const done = work();
          ended = done.then(resolve, reject);
          await Promise.all([
            within(ended, beginMs),
            delay(this.#turnMs, undefined, { ref: false }),
          ]);
        });
        await within(ended, timeoutMs + lateMs);
      });
    });
  }
}

async function within(ended: Promise<void>, ms: number): Promise<void> {
  const over = new AbortController();
  const late = delay(ms, undefined, { signal: over.signal, ref: false }).catch(() => undefined);
  await Promise.race([ended, late]);
  over.abort();
}

function judgeCommand(
  command: readonly string[],
  timeoutMs: number,
  { outcome, exitCode, output }: CheckResult,
): ProbeResult | null {
  const what = shown(command.join(' '));
  switch (outcome) {
    case 'ended': {
      if (exitCode === 0) return { ok: true };
      const last = shown(output.trimEnd().split('\n').at(-1) ?? '');
      return { ok: false, why: `${what} exited with code ${exitCode}${last && `: ${last}`}` };
    }
    case 'timed-out':
      return { ok: false, why: `${what} did not end within ${timeoutMs / 1000} s` };
    case 'refused':
      return { ok: false, why: `${what} cannot be run: ${output}` };
    case 'not-run':
      return null;
    default:
      return assertNever(outcome);
  }
}

/** A tenant's text on one line of bounded length. */
function shown(text: string): string {
  const line = text.replaceAll(/\p{Cc}+/gu, ' ').trim();
  return line.length > mostShown ? `${line.slice(0, mostShown - 1)}…` : line;
}
