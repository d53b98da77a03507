import { defaultResources, defaultTenantLimits } from '@bulkhead/protocol';
import type { ContainerSpec } from '@bulkhead/runtime';
import { benchImage, type Bench } from './fixture.ts';
import { time, type Result } from './measure.ts';

const limits = { ...defaultResources, memoryMiB: 64, pids: 64, diskMiB: 64 };

/** What the measured containers run. */
export const server = ['/bin/busybox', 'httpd', '-f', '-p', '8080'];

/** The same limits in Docker's words. */
export const dockerLimits = [
  ...['--cpus', '1', '--cpu-shares', '102', '--memory', '64m', '--memory-swap', '64m'],
  ...['--pids-limit', '64', '--security-opt', 'no-new-privileges'],
];

/** Command received to process running with network and limits, one at a time, in turns. */
export async function startBench(bench: Bench): Promise<Result[]> {
  const runtime = await bench.runtime();
  const docker = await bench.docker();
  const ours: number[] = [];
  const theirs: number[] = [];

  for (let i = 0; i < 21; i++) {
    const spec = specOf(instanceName(i), bench);
    const start = await time(() => runtime.start(spec));
    const run = await time(() =>
      docker.cli('run', '-d', ...dockerLimits, benchImage, ...spec.command!),
    );
    // The first of each pays for what is set up once.
    if (i > 0) {
      ours.push(start);
      theirs.push(run);
    }
    await runtime.remove(spec.id);
  }

  const storm = Array.from({ length: 50 }, (_, i) => specOf(instanceName(100 + i), bench));
  const oursAtOnce = await time(() => eightAtATime(storm, (spec) => runtime.start(spec)));
  const theirsAtOnce = await time(() =>
    eightAtATime(storm, (spec) =>
      docker.cli('run', '-d', ...dockerLimits, benchImage, ...spec.command!),
    ),
  );
  await eightAtATime(storm, (spec) => runtime.remove(spec.id));

  const common = { rival: 'docker run -d (20.10)', unit: 'ms' };
  return [
    { bench: 'start', work: 'one container, one at a time', ...common, ours, theirs },
    {
      bench: 'start',
      work: '50 containers, 8 at a time, all',
      ...common,
      ours: [oursAtOnce],
      theirs: [theirsAtOnce],
    },
  ];
}

export const instanceName = (i: number) => `ibench${String(i).padStart(7, '0')}`;

export function specOf(id: string, bench: Bench): ContainerSpec {
  return {
    id,
    tenantId: 'bench',
    image: bench.image,
    command: server,
    env: { PATH: '/bin' },
    resources: limits,
    tenantLimits: defaultTenantLimits,
    readOnlyRoot: false,
    idle: false,
  };
}

/** Runs `work` over `items`, never more than eight at once. */
export async function eightAtATime<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  const queue = [...items];
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
    }),
  );
}
