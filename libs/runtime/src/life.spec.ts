import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { detectCgroups } from './cgroups.ts';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, RuntimeOptions } from './runtime.ts';
import { containerSpec, removeState, testOptions, traces, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let runtime: ContainerRuntime;
let image: TestImage;

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  runtime = createRuntime(options);
  await runtime.reconcile();
  image = await registry.push('test/life', [baseLayer]);
  await runtime.ensureImage(image);
});

afterAll(async () => {
  await runtime.destroy();
  expect(await traces(options)).toEqual([]);
  await registry.close();
  removeState(options);
});

const sh = (script: string): string[] => ['sh', '-c', script];
const lineCount = async (id: string): Promise<number> =>
  (await runtime.readLogs(id, null, 10_000)).lines.length;

async function running(script: string) {
  const spec = containerSpec(image, sh(script));
  await runtime.start(spec);
  return spec;
}
const ticking = 'while :; do echo tick; sleep 0.02; done';
const cgroupOf = (id: string): string => `${options.cgroup}/tenant-a/${id}`;

/** Paths below the roots, one for each hierarchy; v2 of a hybrid machine is not used. */
const cgroupsOf = (pid: number | null | undefined): string[] =>
  textOf(`/proc/${pid}/cgroup`)
    .trim()
    .split('\n')
    .filter((line) => detectCgroups().layout !== 'hybrid' || !line.startsWith('0::'))
    .map((line) => line.split(':').slice(2).join(':'));
const textOf = (file: string): string => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
};

describe('check', () => {
  it('runs as the container does: user, variables, limits and walls', async () => {
    const spec = containerSpec(image, sh('exec sleep 1000'), { env: { SECRET: 'xyzzy' } });
    await runtime.start(spec);
    const facts = `grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status;
      ulimit -n; ulimit -c; cat /proc/self/oom_score_adj; pwd; hostname; echo $SECRET; readlink /proc/self/ns/pid`;
    const own = await runtime.check(spec.id, sh(facts), 10_000);
    const inside = cgroupsOf((await runtime.find(spec.id))?.pid);
    expect(inside.some((path) => path.endsWith(cgroupOf(spec.id)))).toBe(true);
    const where = runtime.check(spec.id, ['sleep', '4321'], 4000);
    let checked: number[] = [];
    await until('it runs', () => {
      const pids = detectCgroups().processes(`${cgroupOf(spec.id)}/check`);
      checked = pids.filter((pid) => textOf(`/proc/${pid}/cmdline`).startsWith('sleep'));
      return checked.length > 0;
    });
    // In every hierarchy: one below the container's, so that each of its limits holds.
    expect(cgroupsOf(checked[0]).filter((path) => !path.endsWith('/check'))).toEqual(
      inside.filter((path) => !path.endsWith(cgroupOf(spec.id))),
    );
    await where;
    expect(own).toMatchObject({ outcome: 'ended', exitCode: 0 });

    // The same asked by the container's own first process.
    const other = containerSpec(image, sh(`${facts}; sleep 1000`), { env: { SECRET: 'xyzzy' } });
    await runtime.start(other);
    await until('the facts', async () => {
      const { lines } = await runtime.readLogs(other.id, null, 100);
      return lines.some((line) => line.text.startsWith('pid:'));
    });
    const { lines } = await runtime.readLogs(other.id, null, 100);
    const perContainer = (line: string): boolean => !/^(i\d+|[a-z_]+:\[\d+\])$/.test(line);
    const shown = own.output.trim().split('\n');
    expect(shown.filter(perContainer)).toEqual(lines.map((line) => line.text).filter(perContainer));
    expect(shown).toContain('Seccomp:\t2');
    expect(shown).toContain('NoNewPrivs:\t1');
    await runtime.remove(spec.id);
    await runtime.remove(other.id);
  });

  it('tells the exit code and the end of the output, however much there is', async () => {
    const spec = await running('exec sleep 1000');
    const failed = await runtime.check(spec.id, sh('echo one; echo two >&2; exit 3'), 10_000);
    expect(failed).toMatchObject({ outcome: 'ended', exitCode: 3 });
    expect(failed.output).toContain('two');
    const flood = await runtime.check(
      spec.id,
      sh('head -c 3000000 /dev/zero | tr "\\0" x; echo; echo last'),
      20_000,
    );
    expect(flood.output.length).toBeLessThanOrEqual(4096);
    expect(flood.output.endsWith('last\n')).toBe(true);
    const absent = await runtime.check(spec.id, ['/no/such'], 10_000);
    expect(absent).toEqual({
      outcome: 'refused',
      exitCode: null,
      output: 'the image has no such command',
    });
    await runtime.remove(spec.id);
  });

  it('kills with all it started what takes too long, and what is left after a quick end', async () => {
    const spec = await running('exec sleep 1000');
    const cgroups = detectCgroups();
    const before = cgroups.processes(cgroupOf(spec.id));
    const hanging = sh('(setsid sh -c "sleep 2000; :" &) ; (sleep 2001 &); sleep 2002; :');
    const late = await runtime.check(spec.id, hanging, 300);
    expect(late.outcome).toBe('timed-out');
    expect(cgroups.processes(cgroupOf(spec.id))).toEqual(before);
    const quick = await runtime.check(spec.id, sh('(setsid sleep 2003 &); echo fine'), 10_000);
    expect(quick).toEqual({ outcome: 'ended', exitCode: 0, output: 'fine\n' });
    expect(cgroups.processes(cgroupOf(spec.id))).toEqual(before);
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'running' });
    await runtime.remove(spec.id);
  });

  it('stays within the limits of the container', async () => {
    const spec = await running('exec sleep 1000');
    const hog = await runtime.check(
      spec.id,
      sh('head -c 200000000 /dev/zero | tail -c 200000000 | wc -c'),
      20_000,
    );
    expect(hog.outcome).toBe('ended');
    // `tail` keeps what it is to show, and is killed for it.
    expect(hog.output).toMatch(/^0$/m);
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'running' });
    await runtime.remove(spec.id);
  });

  it('is refused where nothing runs', async () => {
    expect(await runtime.check('i9999', ['true'], 1000)).toMatchObject({ outcome: 'not-run' });
    const spec = await running('exec sleep 1000');
    await runtime.pause(spec.id);
    expect(await runtime.check(spec.id, ['true'], 1000)).toMatchObject({
      outcome: 'not-run',
      output: 'the container is paused',
    });
    await runtime.remove(spec.id);
  });
});

describe('pause and resume', () => {
  it('hold a container still and let it go on where it was, however often asked', async () => {
    const spec = await running(ticking);
    await until('it ticks', async () => (await lineCount(spec.id)) > 2);
    await Promise.all([runtime.pause(spec.id), runtime.pause(spec.id)]);
    await runtime.pause(spec.id);
    const paused = await runtime.find(spec.id);
    expect(paused).toMatchObject({ state: 'paused', exit: null });
    expect(paused?.pid).toBeTypeOf('number');
    expect((await runtime.list()).find(({ id }) => id === spec.id)?.state).toBe('paused');
    // Held still: the kernel counts no more CPU time for it.
    const ticks = (): string => {
      const stat = readFileSync(`/proc/${paused?.pid}/stat`, 'utf8');
      return stat.split(' ').slice(13, 17).join(' ');
    };
    const [cpu, written] = [ticks(), await lineCount(spec.id)];
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect([ticks(), await lineCount(spec.id)]).toEqual([cpu, written]);

    await Promise.all([runtime.resume(spec.id), runtime.resume(spec.id)]);
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'running', pid: paused?.pid });
    await until('it ticks again', async () => (await lineCount(spec.id)) > written);
    await runtime.remove(spec.id);
  });

  it('is kept by the kernel, and start does not undo it', async () => {
    const spec = await running(ticking);
    await runtime.pause(spec.id);
    expect(await runtime.start(spec)).toMatchObject({ state: 'paused' });
    // What a later agent has to go by: no memory of ours, the cgroup alone.
    expect(detectCgroups().isFrozen(cgroupOf(spec.id))).toBe(true);
    await runtime.remove(spec.id);
    expect(await runtime.find(spec.id)).toBeNull();
  });

  it('a paused container gets its signal and its grace when stopped', async () => {
    const spec = await running(
      "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done",
    );
    await until('its trap is set', async () => (await lineCount(spec.id)) > 0);
    await runtime.pause(spec.id);
    await runtime.stop(spec.id, 20);
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'stopped', exit: { exitCode: 7 } });
    const { lines } = await runtime.readLogs(spec.id, null, 10);
    expect(lines.map((line) => line.text)).toEqual(['up', 'bye']);
    await runtime.remove(spec.id);
  });

  it('one that does not react to its signal is killed, and without grace at once', async () => {
    for (const grace of [0.2, 0]) {
      const spec = await running("trap '' TERM; while :; do sleep 0.02; done");
      await runtime.pause(spec.id);
      await Promise.all([runtime.stop(spec.id, grace), runtime.stop(spec.id, grace)]);
      expect((await runtime.find(spec.id))?.exit?.signal).toBe('SIGKILL');
      await runtime.remove(spec.id);
    }
  });

  it('paused in the middle of a stop it ends all the same', async () => {
    const spec = await running("trap '' TERM; while :; do sleep 0.02; done");
    const stopped = runtime.stop(spec.id, 0.5);
    await runtime.pause(spec.id);
    await stopped;
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'stopped' });
    await runtime.remove(spec.id);
  });

  it('does nothing to what is stopped, removed or was never there, and races end in removal', async () => {
    const spec = await running('exit 0');
    await runtime.waitExit(spec.id, AbortSignal.timeout(10_000));
    await runtime.pause(spec.id);
    await runtime.resume(spec.id);
    expect(await runtime.find(spec.id)).toMatchObject({ state: 'stopped' });
    await runtime.remove(spec.id);
    await runtime.pause('i9999');
    await runtime.resume('i9999');

    const racing = await running(ticking);
    await Promise.all([
      runtime.pause(racing.id),
      runtime.remove(racing.id),
      runtime.pause(racing.id),
      runtime.resume(racing.id),
    ]);
    expect(await runtime.find(racing.id)).toBeNull();
    expect(detectCgroups().processes(cgroupOf(racing.id))).toEqual([]);
  });
});
