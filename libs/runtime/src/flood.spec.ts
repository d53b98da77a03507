/** Output that comes faster than it is read: conmon begins a new file over the old one each 4 MiB. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, RuntimeOptions } from './runtime.ts';
import { Agent } from './testing/agent.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let image: TestImage;

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  image = await registry.push('test/flood', [baseLayer]);
});

afterAll(async () => {
  expect(await traces(options)).toEqual([]);
  await registry.close();
  removeState(options);
});

async function within(work: (runtime: ContainerRuntime) => Promise<void>): Promise<void> {
  const runtime = createRuntime(options);
  await runtime.reconcile();
  await runtime.ensureImage(image);
  await work(runtime);
  await runtime.destroy();
}

/** Numbered lines of 1,000 bytes in the log, with a rest after each thousand, s. */
const lineBytes = 1000;
const prefixBytes = `${'2026-01-02T03:04:05.123456789+00:00'} stdout F `.length + 1;
const textBytes = lineBytes - prefixBytes;
const write = (lines: number, rest: number) =>
  containerSpec(image, [
    'perl',
    '-e',
    `for my $n (1 .. ${lines}) { printf "%-${textBytes}d\n", $n; select(undef, undef, undef, ${rest}) if $n % 1000 == 0 }`,
  ]);
const numbers = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index);

it(
  'what is kept waits for its reader, however often it was rotated meanwhile',
  () =>
    within(async (runtime) => {
      // A megabyte and more a second, as much as an instance may write, over two rotations.
      const spec = write(11_000, 0.7);
      await runtime.start(spec);
      await runtime.waitExit(spec.id, AbortSignal.timeout(60_000));
      const { lines, lostBytes } = await runtime.readLogs(spec.id, null, 100_000);
      expect(lines.map(({ text }) => Number(text))).toEqual(numbers(1, 11_000));
      expect(lostBytes).toBe(0);
    }),
  90_000,
);

it(
  'of a flood all is read or known to be lost, in order',
  () =>
    within(async (runtime) => {
      const count = 100_000;
      const spec = write(count, 0);
      await runtime.start(spec);
      let ended = false;
      const end = runtime.waitExit(spec.id, AbortSignal.timeout(60_000)).then(() => (ended = true));
      const seen: number[] = [];
      let [lost, gaps, broken] = [0, 0, 0];
      let cursor: string | null = null;
      for (let last = false; !last;) {
        // As the agent does with one that writes too much.
        await Promise.race([end, delay(100)]);
        last = ended;
        let read;
        do {
          read = await runtime.readLogs(spec.id, cursor, last ? count : 500);
          cursor = read.cursor;
          lost += read.lostBytes;
          // What follows a gap may be the end of a line whose beginning is in it.
          const whole = read.lines.filter(({ text }) => text.length === textBytes);
          broken += read.lines.length - whole.length;
          seen.push(...whole.map(({ text }) => Number(text)));
          gaps += read.lostBytes > 0 ? 1 : 0;
        } while (last && read.lines.length > 0);
      }
      expect(seen).toEqual(seen.toSorted((a, b) => a - b));
      expect(seen.at(-1)).toBe(count);
      // Its beginning, and its end.
      expect(broken).toBeLessThanOrEqual(gaps * 2);
      expect(seen.length).toBeLessThan(count);
      // conmon leaves a file a line or so before it is full, by its own count.
      const missing = (count - seen.length) * lineBytes;
      expect(Math.abs(lost - missing) / missing).toBeLessThan(0.02);
    }),
  90_000,
);

it('a log that was rotated while there was no agent is whole for the next', async () => {
  const agent = new Agent(options);
  await agent.reconcile();
  const spec = write(6000, 0.1);
  await agent.start(spec);
  await agent.kill();
  const log = `${options.stateDir}/containers/${spec.id}/logs/current`;
  await until('it wrote all', () => / 6000 *\n$/.test(readFileSync(log, 'utf8')));
  await within(async (runtime) => {
    const { lines, lostBytes } = await runtime.readLogs(spec.id, null, 100_000);
    expect(lines.map(({ text }) => Number(text))).toEqual(numbers(1, 6000));
    expect(lostBytes).toBe(0);
  });
}, 90_000);
