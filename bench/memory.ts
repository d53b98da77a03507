import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { benchImage, type Bench } from './fixture.ts';
import type { Result } from './measure.ts';
import { dockerLimits, inParallel, instanceName, specOf } from './start.ts';

const count = 100;

/** What an idle instance costs the machine: the drop of MemAvailable over 100 of them. */
export async function memoryBench(bench: Bench): Promise<Result[]> {
  const runtime = await bench.runtime();
  const specs = Array.from({ length: count }, (_, i) => specOf(instanceName(1000 + i), bench));
  const ours = await drop(() => inParallel(8, specs, (spec) => runtime.start(spec)));
  await inParallel(8, specs, (spec) => runtime.remove(spec.id));

  const docker = await bench.docker();
  const theirs = await drop(() =>
    inParallel(8, specs, (spec) =>
      docker.cli('run', '-d', ...dockerLimits, benchImage, ...spec.command!),
    ),
  );
  return [
    {
      bench: 'memory',
      work: `machine memory per idle instance, of ${count} running`,
      rival: 'docker run -d (20.10), without its daemons',
      unit: 'MiB',
      ours: [ours],
      theirs: [theirs],
    },
  ];
}

/** MiB of MemAvailable that `work` took, per instance. */
async function drop(work: () => Promise<unknown>): Promise<number> {
  const before = await settled();
  await work();
  return (before - (await settled())) / count;
}

/** MemAvailable in MiB, the median of a few seconds: the kernel frees late. */
export async function settled(): Promise<number> {
  const values: number[] = [];
  for (let i = 0; i < 7; i++) {
    await delay(500);
    values.push(await available());
  }
  return values.sort((a, b) => a - b)[3]!;
}

/** MemAvailable, MiB. */
export async function available(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  return Number(/^MemAvailable:\s+(\d+)/m.exec(text)![1]) / 1024;
}
