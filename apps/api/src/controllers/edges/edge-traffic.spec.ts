import { subjects, type EdgeTraffic, type HostTraffic } from '@bulkhead/protocol';
import { eventually } from '../../testing/eventually.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { pruneHistory } from '../history/prune.ts';
import { Platform } from '../testing/platform.ts';

let platform: Platform;
let appId: string;

beforeAll(async () => {
  platform = await Platform.start({ replicas: 2, nodes: 1, edges: 1 });
  appId = (await platform.deploy('web')).appId;
  await eventually('it has a route', () =>
    platform.sql((prisma) => prisma.route.findFirst({ where: { appId } })),
  );
});
afterAll(async () => {
  await platform.stop();
});

const carried = (host: string, part: Partial<HostTraffic> = {}): HostTraffic => ({
  host,
  ...{ status2xx: 3, status3xx: 0, status4xx: 0, status5xx: 1, failed: 1 },
  ...{ bytesIn: 100, bytesOut: 5_000_000_000, waitedMs: 40, answerTimes: [0, 3] },
  ...part,
});
const tell = (edge: string, message: unknown) =>
  platform.replicas[0]?.nats.nc.publish(subjects.edgeTraffic(edge), JSON.stringify(message));
const hostOf = (app: string) => `${app}.demo.localhost`;
const list = (minutes: number, step = 1) =>
  platform.db.tenancy.run(platform.caller, { tenant: 'demo', permission: 'app.read' }, (tx) =>
    tx.traffic.list(appId, minutes, step),
  );
const sums = async () =>
  (await list(60)).reduce(
    (sum, each) => ({ ok: sum.ok + each.status2xx, out: sum.out + each.bytesOut }),
    { ok: 0, out: 0 },
  );

test('adds what every edge carried to the minute, once, whichever replica hears it', async () => {
  const message: EdgeTraffic = {
    v: 1,
    hosts: [carried(hostOf('web')), carried('unknown.localhost')],
  };
  for (const edge of ['edge1', 'edge2']) for (let n = 0; n < 5; n++) tell(edge, message);
  tell('edge1', { v: 1, hosts: [carried(hostOf('web'), { status2xx: -5 })] });
  tell('edge1', 'nonsense');
  await eventually('all is added', async () => (await sums()).ok === 30);
  expect(await sums()).toEqual({ ok: 30, out: 50_000_000_000 });
  expect((await list(60))[0]?.meanMs).toBe(10);
  // Half of the second bucket, a quarter of a millisecond wide.
  expect((await list(60))[0]?.p50Ms).toBeCloseTo(0.384);
});

test('minutes are kept for two days, and belong to the tenant alone', async () => {
  await expect(list(0)).rejects.toThrow('minutes must be from 1 to 2880');
  const old = new Date(Date.now() - 49 * 3_600_000);
  await platform.sql(async (prisma) => {
    const row = await prisma.traffic.findFirstOrThrow();
    await prisma.traffic.create({ data: { ...row, minute: old } });
  });
  expect((await pruneHistory(platform.db.tenancy)).minutes).toBe(1);
  expect((await sums()).ok).toBe(30);
});

test('percentiles are of all that fell into a span, over hosts, edges and minutes', async () => {
  await platform.sql((prisma) => prisma.traffic.deleteMany());
  const slow = { status2xx: 10, answerTimes: [...Array.from({ length: 40 }, () => 0), 10] };
  tell('edge1', { v: 1, hosts: [carried(hostOf('web'), { status2xx: 90, answerTimes: [90] })] });
  // An edge of an earlier version.
  const { answerTimes: _, ...older } = carried(hostOf('web'), { status2xx: 0, status5xx: 0 });
  tell('edge2', { v: 1, hosts: [carried(hostOf('web'), slow), carried('x.localhost'), older] });
  await eventually('all is added', async () => (await sums()).ok === 100);
  const span = (await list(60, 60)).at(-1);
  expect(span?.p50Ms).toBeLessThan(0.256);
  expect(span?.p95Ms).toBeGreaterThan(524);
  expect(span?.p99Ms).toBeLessThan(656);
  // The minute before, in the same span unless the hour just began.
  await platform.sql(async (prisma) => {
    const row = await prisma.traffic.findFirstOrThrow({ orderBy: { minute: 'desc' } });
    const minute = new Date(row.minute.getTime() - 60_000);
    const answerTimes = [...Array.from({ length: 40 }, () => 0), 300];
    await prisma.traffic.create({ data: { ...row, minute, answerTimes } });
  });
  const spans = await list(2880, 2880);
  const slowest = Math.max(...spans.map((each) => each.p50Ms ?? 0));
  expect(spans.length).toBeLessThanOrEqual(2);
  expect(slowest).toBeGreaterThan(524);
  await expect(list(60, 0)).rejects.toThrow('step must be from 1 to 2880');
  expect(spans.map(({ minute }) => minute.getTime() % (2880 * 60_000))).toEqual(spans.map(() => 0));
});
