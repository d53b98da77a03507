import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { defaultResources, defaultTenantLimits } from '@bulkhead/protocol';
import type { Resources, TenantLimits } from '@bulkhead/protocol';
import type { ContainerRuntime, ContainerSpec } from '@bulkhead/runtime';
import { benchCgroup, type Bench } from './fixture.ts';
import { median, time, type Result } from './measure.ts';
import { instanceName, specOf } from './start.ts';

/**
 * A victim does a fixed piece of work, alone and beside a hostile container at full stretch: once
 * with the limit of that axis, once with that limit taken away and nothing else. Numbers are times
 * as many as alone, so 1 is untouched. What is hostile is bounded even without its limit: in time by
 * the rounds, in size by the numbers below.
 */
interface Axis {
  name: string;
  /** Shell, run in the victim. */
  victim: string;
  /** Shell, what each hostile container runs. */
  hostile: string;
  /** Of the hostile containers. */
  limited: Partial<Resources>;
  unlimited: Partial<Resources>;
  /** Of their tenant, where the limit is its. */
  unlimitedTenant?: Partial<TenantLimits>;
  /** What all containers have together, as on a small host. */
  host?: { memoryMiB?: number; pids?: number };
  /** Until the hostile is at full stretch. */
  warmUpMs?: number;
  /** Hostile containers, all of one tenant; each of its own where the tenant's share is taken away. */
  count?: number;
  ownTenants?: boolean;
}

const rounds = 5;
const defaultWarmUpMs = 2000;
const deadlineMs = 60_000;
const MiB = 1024 * 1024;
/** Far above what this work could reach, so that no other limit than the axis' own is met. */
const roomy: Resources = {
  ...defaultResources,
  ...{ cpuMillis: 100, cpuCapMillis: 64_000, memoryMiB: 512, pids: 4096, diskMiB: 512 },
  ...{ ioBytesPerSecond: 2047 * MiB, ioOperationsPerSecond: 1_000_000 },
  ...{ networkBytesPerSecond: 1_250_000_000, logBytesPerSecond: MiB },
};

const count = (to: number): string => `i=0; while [ $i -lt ${to} ]; do i=$((i+1)); done`;
const forever = (command: string): string => `while :; do ${command}; done`;
const spinners = `for n in 1 2 3 4 5 6 7 8; do (${forever(':')}) & done; wait`;
const directWrite = (blocks: number): string =>
  `dd if=/dev/zero of=/data bs=65536 count=${blocks} oflag=direct 2>/dev/null`;

/** Little of a processor, so that an axis is not also about that one. */
const quiet = { cpuCapMillis: 300 };

const axes: readonly Axis[] = [
  {
    name: 'CPU: 8 busy processes of one container',
    ...{ victim: count(300_000), hostile: spinners },
    ...{ limited: { cpuCapMillis: 1000 }, unlimited: {} },
    // What 8 processes weigh where nobody groups them.
    unlimitedTenant: { cpuWeight: 800 },
  },
  {
    name: "a tenant's share: 8 containers of one tenant",
    ...{ victim: count(300_000), hostile: forever(':'), count: 8 },
    ...{ limited: {}, unlimited: {}, ownTenants: true },
  },
  {
    name: 'processes: a fork bomb on a host of 512 processes',
    victim: 'i=0; while [ $i -lt 200 ]; do /bin/busybox true; i=$((i+1)); done',
    hostile: 'bomb() { bomb | bomb & }; bomb; sleep 1000',
    ...{ limited: { ...quiet, pids: 64 }, unlimited: { ...quiet, pids: 4000 } },
    host: { pids: 512 },
  },
  {
    name: 'memory: a hog on a host of 512 MiB',
    victim: `[ -f /a ] || ${directWrite(1024).replace('/data', '/a')}; ${count(100).replace('i+1));', 'i+1)); cat /a >/dev/null;')}`,
    hostile: forever('head -c 1500m /dev/zero | tail -n 1 >/dev/null'),
    limited: { cpuCapMillis: 1000, memoryMiB: 64 },
    unlimited: { cpuCapMillis: 1000, memoryMiB: 2048 },
    host: { memoryMiB: 512 },
  },
  {
    name: 'disk rates: 8 direct writers without pause',
    victim: directWrite(256),
    hostile: `for n in 1 2 3 4 5 6 7 8; do (${forever(directWrite(2048).replace('/data', '/data$n'))}) & done; wait`,
    limited: { ...quiet, diskMiB: 2048, ioBytesPerSecond: 20 * MiB, ioOperationsPerSecond: 400 },
    unlimited: { diskMiB: 2048 },
  },
  {
    name: 'output: a flood of lines',
    ...{ victim: count(300_000), hostile: 'yes 0123456789012345678901234567890123456789' },
    limited: { cpuCapMillis: 250, logBytesPerSecond: 65_536 },
    unlimited: {},
  },
  {
    // The last: what it filled is given back a while after it is gone.
    name: 'disk size: fills what it gets and keeps it',
    victim: directWrite(256),
    hostile: 'dd if=/dev/zero of=/big bs=1M 2>/dev/null; sleep 1000',
    ...{ limited: { diskMiB: 64 }, unlimited: { diskMiB: 65_536 } },
    warmUpMs: 20_000,
  },
];

export async function neighboursBench(bench: Bench): Promise<Result[]> {
  const runtime = await bench.runtime();
  const results = [await networkResult(runtime, bench)];
  for (const axis of axes) {
    const alone = median(await beside(runtime, bench, axis, 'nobody'));
    const slowdown = (times: readonly number[]) => times.map((each) => each / alone);
    results.push({
      ...{ bench: 'neighbours', work: axis.name, rival: 'the same without that limit' },
      unit: 'times as long as alone',
      ours: slowdown(await beside(runtime, bench, axis, 'limited')),
      theirs: slowdown(await beside(runtime, bench, axis, 'unlimited')),
    });
  }
  return results;
}

type Company = 'nobody' | 'limited' | 'unlimited';

/** The hostile containers of an axis. */
function hostiles(bench: Bench, axis: Axis, company: Company): ContainerSpec[] {
  if (company === 'nobody') return [];
  return Array.from({ length: axis.count ?? 1 }, (_, index) => ({
    ...specOf(instanceName(3000 + index), bench),
    tenantId: axis.ownTenants && company === 'unlimited' ? `hostile-${index}` : 'hostile',
    command: ['/bin/busybox', 'sh', '-c', axis.hostile],
    resources: { ...roomy, ...axis[company] },
    tenantLimits: { ...defaultTenantLimits, ...(company === 'unlimited' && axis.unlimitedTenant) },
  }));
}

/** Milliseconds of the victim's work, each round. */
async function beside(
  runtime: ContainerRuntime,
  bench: Bench,
  axis: Axis,
  company: Company,
): Promise<number[]> {
  const others = hostiles(bench, axis, company);
  return withContainers(runtime, bench, others, async (victim) => {
    await limitHost(axis.host ?? {});
    await delay(others.length > 0 ? (axis.warmUpMs ?? defaultWarmUpMs) : 0);
    const times: number[] = [];
    for (let round = 0; round < rounds; round++) {
      let finished = false;
      const took = await time(async () => {
        const command = ['/bin/busybox', 'sh', '-c', axis.victim];
        const { outcome, exitCode, output } = await runtime.check(victim.id, command, deadlineMs);
        finished = outcome === 'ended' && exitCode === 0;
        if (!finished && company !== 'unlimited')
          throw new Error(`the victim of "${axis.name}" could not work: ${output}`);
      });
      // One that cannot even do its work has no number: the most that is waited for.
      times.push(finished ? took : deadlineMs);
    }
    return times;
  });
}

/** With a victim and `others` running; they are removed whatever happens. */
async function withContainers<T>(
  runtime: ContainerRuntime,
  bench: Bench,
  others: readonly ContainerSpec[],
  work: (victim: ContainerSpec) => Promise<T>,
): Promise<T> {
  const victim: ContainerSpec = {
    ...specOf(instanceName(2999), bench),
    ...{ tenantId: 'victim', resources: { ...roomy, memoryMiB: 128 } },
  };
  const all = [victim, ...others];
  try {
    for (const spec of all) await runtime.start(spec);
    return await work(victim);
  } finally {
    await limitHost({});
    for (const spec of all) await runtime.remove(spec.id);
  }
}

/** In cgroup v1's words or v2's. */
async function limitHost({ memoryMiB, pids }: NonNullable<Axis['host']>): Promise<void> {
  const v1 = existsSync('/sys/fs/cgroup/memory');
  const dir = (controller: string) => `/sys/fs/cgroup${v1 ? `/${controller}` : ''}/${benchCgroup}`;
  const memory = memoryMiB === undefined ? (v1 ? '-1' : 'max') : String(memoryMiB * MiB);
  await writeFile(`${dir('memory')}/${v1 ? 'memory.limit_in_bytes' : 'memory.max'}`, memory);
  await writeFile(`${dir('pids')}/pids.max`, String(pids ?? 'max'));
}

/** Both serve a file; the victim's is fetched once a round, the hostile's by 16 clients without pause. */
async function networkResult(runtime: ContainerRuntime, bench: Bench): Promise<Result> {
  const serve = ['/bin/busybox', 'sh', '-c'];
  const makeFile = 'dd if=/dev/zero of=/file bs=1M count=16 2>/dev/null';
  const measure = (rate: number | null): Promise<number[]> => {
    const hostile: ContainerSpec = {
      ...specOf(instanceName(3000), bench),
      ...{ tenantId: 'hostile', command: [...serve, `${makeFile}; exec httpd -f -p 8080 -h /`] },
      resources: { ...roomy, networkBytesPerSecond: rate ?? roomy.networkBytesPerSecond },
    };
    const others = rate === null ? [] : [hostile];
    return withContainers(runtime, bench, others, async (victim) => {
      // Its own command serves already.
      await runtime.check(victim.id, [...serve, makeFile], deadlineMs);
      const url = async (id: string) => `http://${(await runtime.find(id))?.address}:8080/file`;
      const stop = new AbortController();
      const target = rate === null ? null : await url(hostile.id);
      const clients =
        target === null ? [] : Array.from({ length: 16 }, () => download(target, stop.signal));
      await delay(defaultWarmUpMs);
      try {
        const times: number[] = [];
        const from = await url(victim.id);
        for (let round = 0; round < rounds; round++)
          times.push(await time(async () => (await fetch(from)).arrayBuffer()));
        return times;
      } finally {
        stop.abort();
        await Promise.all(clients);
      }
    });
  };
  const alone = median(await measure(null));
  const slowdown = (times: readonly number[]) => times.map((each) => each / alone);
  return {
    ...{ bench: 'neighbours', work: 'network: 16 downloads without pause' },
    ...{ rival: 'the same without that limit', unit: 'times as long as alone' },
    ours: slowdown(await measure(5_000_000)),
    theirs: slowdown(await measure(roomy.networkBytesPerSecond)),
  };
}

/** Again and again until told to stop. */
async function download(url: string, stop: AbortSignal): Promise<void> {
  while (!stop.aborted)
    await fetch(url, { signal: stop })
      .then((response) => response.arrayBuffer())
      .catch(() => delay(10));
}
