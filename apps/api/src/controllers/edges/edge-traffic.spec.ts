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
  ...{ bytesIn: 100, bytesOut: 5_000_000_000, waitedMs: 40 },
  ...part,
});
const tell = (edge: string, message: unknown) =>
  platform.replicas[0]?.nats.nc.publish(subjects.edgeTraffic(edge), JSON.stringify(message));
const hostOf = (app: string) => `${app}.demo.localhost`;
const list = (minutes: number) =>
  platform.db.tenancy.run(platform.caller, { tenant: 'demo', permission: 'app.read' }, (tx) =>
    tx.traffic.list(appId, minutes),
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
