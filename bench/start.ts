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

const rounds = 20;

/** Command received to process running, one at a time, in turns; each is removed before the next. */
export async function startBench(bench: Bench): Promise<Result[]> {
  const runtime = await bench.runtime();
  const docker = await bench.docker();
  const crun = await bench.crun();
  const ours: number[] = [];
  const theirs = { cli: [] as number[], api: [] as number[], bare: [] as number[] };

  for (let i = 0; i <= rounds; i++) {
    const id = instanceName(i);
    await crun.prepare([id]);
    const took = {
      ours: await time(() => runtime.start(specOf(id, bench))),
      cli: await time(() => docker.cli('run', '-d', ...dockerLimits, benchImage, ...server)),
      api: await time(() => docker.createAndStart(id, benchImage, server)),
      bare: await time(() => crun.run(id)),
    };
    // The first of each pays for what is set up once.
    if (i > 0) {
      ours.push(took.ours);
      theirs.cli.push(took.cli);
      theirs.api.push(took.api);
      theirs.bare.push(took.bare);
    }
    await runtime.remove(id);
    await docker.removeAll();
    await crun.removeAll();
  }

  const result = (rival: string, values: readonly number[]): Result => ({
    bench: 'start',
    work: 'one container, one at a time',
    rival,
    unit: 'ms',
    ours,
    theirs: values,
  });
  return [
    result('docker run -d (20.10)', theirs.cli),
    result("Docker's API, create and start (20.10)", theirs.api),
    result('bare crun run', theirs.bare),
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

/** Runs `work` over `items`, never more than `atOnce` at a time. */
export async function inParallel<T>(
  atOnce: number,
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  const queue = [...items];
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
    }),
  );
}
