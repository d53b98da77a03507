import { expect, it } from 'vitest';
import { TrafficMeter, type BackendReading } from './traffic.ts';

const reading = (
  host: string | null,
  counts: Record<string, number>,
  {
    pid = 1,
    backend = 'b0',
    buckets = [],
  }: { pid?: number; backend?: string; buckets?: [number, number][] } = {},
): BackendReading => ({
  host,
  pid,
  backend,
  buckets,
  stat: new Map(Object.entries(counts).map(([name, value]) => [name, String(value)])),
});

it('tells what came since it was last asked, and nothing of what came before it began', () => {
  const meter = new TrafficMeter();
  meter.add([reading('x', { hrsp_2xx: 100, bin: 9, rtime: 50 })]);
  expect(meter.take()).toEqual([]);
  meter.add([
    reading('x', { hrsp_2xx: 103, hrsp_5xx: 1, econ: 1, eresp: 2, bin: 19, bout: 7, rtime: 20 }),
  ]);
  meter.add([
    reading('x', { hrsp_2xx: 104, hrsp_5xx: 1, econ: 1, eresp: 2, bin: 19, bout: 7, rtime: 30 }),
  ]);
  expect(meter.take()).toEqual([
    {
      host: 'x',
      ...{ status2xx: 4, status3xx: 0, status4xx: 0, status5xx: 1, failed: 3 },
      ...{ bytesIn: 10, bytesOut: 7, waitedMs: 4 * 20 + 30, answerTimes: [] },
    },
  ]);
  expect(meter.take()).toEqual([]);
  expect(meter.totals.get('x')?.status2xx).toBe(4);
});

it('counts a new worker from zero, beside the old one that still ends what it has', () => {
  const meter = new TrafficMeter();
  meter.add([reading('x', { hrsp_2xx: 10 })]);
  meter.add([reading('x', { hrsp_2xx: 12 }), reading('x', { hrsp_2xx: 3 }, { pid: 2 })]);
  meter.add([reading('x', { hrsp_2xx: 5 }, { pid: 2 })]);
  expect(meter.take()).toMatchObject([{ host: 'x', status2xx: 7 }]);
});

it('charges nobody with what a backend carried for its owner before', () => {
  const meter = new TrafficMeter();
  meter.add([reading('x', { hrsp_2xx: 0 })]);
  meter.add([reading('x', { hrsp_2xx: 50 })]);
  meter.add([reading(null, { hrsp_2xx: 50 })]);
  meter.add([reading('y', { hrsp_2xx: 51 })]);
  expect(meter.take()).toMatchObject([
    { host: 'x', status2xx: 50 },
    { host: 'y', status2xx: 1 },
  ]);
  meter.keepOnly((host) => host === 'y');
  expect([...meter.totals.keys()]).toEqual(['y']);
});

it('tells times of answers that came since, also of a bucket that began again', () => {
  const meter = new TrafficMeter();
  const read = (...buckets: [number, number][]) =>
    meter.add([reading('x', { hrsp_2xx: 1 }, { buckets })]);
  expect(meter.knows(1)).toBe(false);
  read([0, 7], [3, 5]);
  expect(meter.knows(1)).toBe(true);
  // What had none lately is not shown.
  read([3, 6]);
  read([0, 9], [3, 6]);
  expect(meter.take()).toMatchObject([{ host: 'x', status2xx: 0, answerTimes: [2, 0, 0, 1] }]);
  read([0, 9]);
  expect(meter.take()).toEqual([]);
  read([3, 2]);
  expect(meter.take()).toMatchObject([{ answerTimes: [0, 0, 0, 2] }]);
  // Those of a sample stand for sixteen each.
  read([1, 1], [128 + 1, 2]);
  expect(meter.take()).toMatchObject([{ answerTimes: [0, 1 + 2 * 16] }]);
});
