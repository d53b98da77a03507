import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Bus } from './bus.ts';
import { freshMemory } from './memory.ts';
import { describe as describeInstance } from './plan.ts';
import { unknownHealth } from './health.ts';
import { Reporter, Sequence } from './reporter.ts';
import { running } from './spec-fixtures.ts';
import { eventually, temporaryDirectory } from './testing.ts';

/** A bus that fails the first publishes. */
function unreliableBus(failures: number) {
  const sent: { seq: number; state: string }[] = [];
  let tries = 0;
  const bus = {
    connected: true,
    publishAcked: async (_: string, payload: string) => {
      tries += 1;
      if (tries <= failures) throw new Error('timeout');
      sent.push(JSON.parse(payload));
    },
  };
  return { bus: bus as unknown as Bus, sent };
}

const content = (restarts: number) =>
  describeInstance(
    {
      desired: running(),
      actual: null,
      memory: { ...freshMemory, restarts },
      health: unknownHealth,
      fingerprint: null,
      limits: null,
    },
    null,
  );

test('a report is sent until it is acknowledged, and only the latest', async () => {
  const { bus, sent } = unreliableBus(1);
  const sequence = new Sequence(await temporaryDirectory());
  await sequence.load();
  const acked: number[] = [];
  const log = pino({ level: 'silent' });
  const reporter = new Reporter({ node: 'n', bus, sequence, log }, (c) => acked.push(c.restarts));
  reporter.report(content(1));
  reporter.report(content(2));
  reporter.report(content(3));
  await eventually('the acknowledgement', () => acked.length > 0);
  expect(acked).toEqual([3]);
  expect(sent).toMatchObject([{ restarts: 3 }]);
  expect(reporter.pending).toBe(0);
});

test('sequence numbers grow over restarts, even when the clock was set back', async () => {
  const directory = await temporaryDirectory();
  const first = new Sequence(directory);
  await first.load();
  const before = [first.next(2_000_000), first.next(2_000_000), first.next(1_999_000)];
  await first.flush();

  const second = new Sequence(directory);
  await second.load();
  const all = [...before, second.next(1000), second.next(1000)];
  expect(all).toEqual([...new Set(all)].sort((a, b) => a - b));
});

describe('a fleet whose NATS comes back', () => {
  const [agents, onEach] = [300, 20];
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** Reporters in step, as all agents are that lose one server, and when each report was tried. */
  async function fleet() {
    const tried: { at: number; instance: string }[] = [];
    const state = { refuses: false };
    const bus = {
      connected: true,
      publishAcked: async (_: string, payload: string) => {
        tried.push({ at: Date.now(), instance: JSON.parse(payload).instance });
        if (state.refuses) throw new Error('timeout');
      },
    } as unknown as Bus;
    const sequence = new Sequence(await temporaryDirectory());
    const log = pino({ level: 'silent' });
    const reporters = Array.from({ length: agents }, (_, agent) => {
      const reporter = new Reporter({ node: `n${agent}`, bus, sequence, log }, () => undefined);
      for (let index = 0; index < onEach; index++)
        reporter.report({ ...content(0), instance: `i${agent}-${index}` });
      return reporter;
    });
    await vi.advanceTimersByTimeAsync(0);
    expect(tried).toHaveLength(agents * onEach);
    return { reporters, tried, state };
  }
  /** The most in any of the spans of `ms` from `start`. */
  const peak = (tried: readonly { at: number }[], start: number, ms: number): number =>
    Math.max(
      ...[...Map.groupBy(tried, ({ at }) => Math.floor((at - start) / ms)).values()].map(
        (each) => each.length,
      ),
    );

  test('says again what is long known, once and little by little', async () => {
    const { reporters, tried } = await fleet();
    await vi.advanceTimersByTimeAsync(600_000);
    tried.length = 0;
    const start = Date.now();
    for (const reporter of reporters) reporter.resume();
    await vi.advanceTimersByTimeAsync(61_000);
    expect(new Set(tried.map(({ instance }) => instance)).size).toBe(agents * onEach);
    expect(tried).toHaveLength(agents * onEach);
    // A sixtieth of all each second; chance makes some seconds fuller.
    expect(peak(tried, start, 1000)).toBeLessThan((2 * agents * onEach) / 60);
    for (const reporter of reporters) reporter.stop();
  });

  test('says at once what is news, and what may have been lost with the connection', async () => {
    const { reporters, tried } = await fleet();
    await vi.advanceTimersByTimeAsync(600_000);
    const [one] = reporters;
    one?.report({ ...content(1), instance: 'i0-3' });
    await vi.advanceTimersByTimeAsync(30_000);
    tried.length = 0;
    one?.resume();
    await vi.advanceTimersByTimeAsync(0);
    expect(tried.map(({ instance }) => instance)).toEqual(['i0-3']);
    for (const reporter of reporters) reporter.stop();
  });

  test('tries less and less often while nothing is acknowledged, and not in step', async () => {
    const { reporters, tried, state } = await fleet();
    state.refuses = true;
    reporters.forEach((reporter, agent) => {
      for (let index = 0; index < onEach; index++)
        reporter.report({ ...content(1), instance: `i${agent}-${index}` });
    });
    await vi.advanceTimersByTimeAsync(60_000);
    tried.length = 0;
    const start = Date.now();
    await vi.advanceTimersByTimeAsync(60_000);
    // Each about every eleven seconds then, and no second has more than twice its part.
    const perSecond = tried.length / 60;
    expect(perSecond).toBeLessThan((agents * onEach) / 7);
    expect(peak(tried, start, 1000)).toBeLessThan(2 * perSecond);
    state.refuses = false;
    await vi.advanceTimersByTimeAsync(15_000);
    expect(reporters.reduce((sum, { pending }) => sum + pending, 0)).toBe(0);
    for (const reporter of reporters) reporter.stop();
  });
});
