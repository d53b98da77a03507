import { pino } from 'pino';
import { expect, test } from 'vitest';
import { Bus, spreadOut } from './bus.ts';
import { eventually, NatsServer } from './testing.ts';

test('a fleet comes back to its server spread out, and nobody waits for a first connection', () => {
  const delays = Array.from({ length: 1000 }, () => spreadOut(['a'], {}).delay);
  const tenths = Map.groupBy(delays, (delay) => Math.floor(delay / 200));
  expect([...tenths.keys()].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(Math.max(...[...tenths.values()].map((each) => each.length))).toBeLessThan(200);
  expect(spreadOut(['a'], null)).toEqual({ server: 'a', delay: 0 });
});

test('agents that lost NATS all come back', async () => {
  const nats = await NatsServer.start();
  const log = pino({ level: 'silent' });
  const buses = Array.from({ length: 50 }, (_, index) => {
    return new Bus({ url: nats.url, user: `n${index}`, credsFile: '/nowhere', log });
  });
  const ups = buses.map(() => 0);
  buses.forEach((bus, index) => {
    bus.onUp(() => (ups[index] = (ups[index] ?? 0) + 1));
    bus.start();
  });
  try {
    await eventually('all to be connected', () => buses.every(({ connected }) => connected));
    await nats.down();
    await eventually('all to notice', () => buses.every(({ connected }) => !connected));
    await nats.up();
    await eventually('all to be back', () => ups.every((count) => count === 2));
  } finally {
    await Promise.all(buses.map((bus) => bus.stop()));
  }
});
