import { pino } from 'pino';
import { expect, test } from 'vitest';
import type { Bus } from './bus.ts';
import { freshMemory } from './memory.ts';
import { describe } from './plan.ts';
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
  describe(
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
