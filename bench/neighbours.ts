import { setTimeout as delay } from 'node:timers/promises';
import { defaultResources, defaultTenantLimits, type Resources } from '@bulkhead/protocol';
import type { ContainerRuntime, ContainerSpec } from '@bulkhead/runtime';
import type { Bench } from './fixture.ts';
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
  /** Hostile containers, all of one tenant; each of its own where the tenant's share is taken away. */
  count?: number;
  ownTenants?: boolean;
}

const rounds = 5;
const warmUpMs = 2000;
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

const axes: readonly Axis[] = [
  {
    name: 'CPU: 8 busy processes',
    ...{ victim: count(300_000), hostile: spinners },
    limited: { cpuMillis: 100, cpuCapMillis: 1000 },
    // What 8 processes weigh where nobody groups them.
    unlimited: { cpuMillis: 800, cpuCapMillis: 64_000 },
  },
  {
    name: "a tenant's share: 8 containers of one tenant",
    ...{ victim: count(300_000), hostile: forever(':'), count: 8 },
    ...{ limited: {}, unlimited: {}, ownTenants: true },
  },
  {
    name: 'processes: a fork bomb',
    victim: 'i=0; while [ $i -lt 200 ]; do /bin/busybox true; i=$((i+1)); done',
    hostile: 'bomb() { bomb | bomb & }; bomb; sleep 1000',
    ...{ limited: { pids: 64 }, unlimited: { pids: 1500 } },
  },
  {
    name: 'memory: a hog that comes back',
    victim: 'dd if=/dev/zero of=/dev/shm/a bs=1M count=24 2>/dev/null; cat /dev/shm/a >/dev/null',
    hostile: forever('head -c 1500m /dev/zero | tail -n 1 >/dev/null'),
    ...{ limited: { memoryMiB: 64 }, unlimited: { memoryMiB: 2048 } },
  },
  {
    name: 'disk rates: direct writes without pause',
    ...{ victim: directWrite(256), hostile: forever(directWrite(2048)) },
    limited: { ioBytesPerSecond: 20 * MiB, ioOperationsPerSecond: 400 },
    unlimited: {},
  },
  {
    name: 'disk size: fills and empties its layer',
    victim: directWrite(256),
    hostile: forever('dd if=/dev/zero of=/big bs=1M count=2000 2>/dev/null; rm -f /big'),
    ...{ limited: { diskMiB: 64 }, unlimited: { diskMiB: 2048 } },
  },
  {
    name: 'output: a flood of lines',
    ...{ victim: count(300_000), hostile: 'yes 0123456789012345678901234567890123456789' },
    limited: { cpuMillis: 100, cpuCapMillis: 250 },
    unlimited: {},
  },
];

export async function neighboursBench(bench: Bench): Promise<Result[]> {
  const runtime = await bench.runtime();
  const results: Result[] = [];
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
  results.push(await networkResult(runtime, bench));
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
    tenantLimits: defaultTenantLimits,
  }));
}

/** Milliseconds of the victim's work, each round. */
async function beside(
  runtime: ContainerRuntime,
  bench: Bench,
  axis: Axis,
  company: Company,
): Promise<number[]> {
  return withContainers(runtime, bench, hostiles(bench, axis, company), async (victim) => {
    const times: number[] = [];
    for (let round = 0; round < rounds; round++)
      times.push(
        await time(async () => {
          const command = ['/bin/busybox', 'sh', '-c', axis.victim];
          const { outcome, exitCode, output } = await runtime.check(victim.id, command, deadlineMs);
          // A victim that cannot even finish has no number: the most that was waited for.
          if (outcome !== 'timed-out' && (outcome !== 'ended' || exitCode !== 0))
            throw new Error(`the victim of "${axis.name}" could not work: ${output}`);
        }),
      );
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
    if (others.length > 0) await delay(warmUpMs);
    return await work(victim);
  } finally {
    for (const spec of all) await runtime.remove(spec.id);
  }
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
