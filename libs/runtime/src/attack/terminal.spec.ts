import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createRuntime } from '../host-runtime.ts';
import type { ContainerRuntime, RuntimeOptions } from '../runtime.ts';
import { containerSpec, removeState, testOptions, until } from '../testing/host.ts';
import { baseLayer, startRegistry } from '../testing/registry.ts';
import type { TestImage, TestRegistry } from '../testing/registry.ts';
import { wallsRemoved } from '../testing/weaken.ts';
import type { Wall } from '../testing/weaken.ts';

vi.mock(import('../oci-config.ts'), async (original) =>
  (await import('../testing/weaken.ts')).weakened(await original()),
);

/**
 * Somebody's shell on a terminal of `exec -it` runs a hostile program of another user of the
 * container. It types a line into the terminal that it was given; the shell reads it when the
 * program has ended, with its own user's rights.
 */
describe.runIf(process.arch === 'x64')('a program on somebody’s terminal', () => {
  let registry: TestRegistry;
  let options: RuntimeOptions;
  let runtime: ContainerRuntime;
  let image: TestImage;

  beforeAll(async () => {
    registry = await startRegistry();
    options = testOptions([registry.host]);
    runtime = createRuntime(options);
    await runtime.reconcile();
    image = await registry.push('test/base', [baseLayer]);
    await runtime.ensureImage(image);
  });

  afterAll(async () => {
    await runtime.destroy();
    await registry.close();
    removeState(options);
  });

  /** What TIOCSTI, as this request, says, and which line the shell read: the program's or its user's. */
  async function attack(request: string, removed: readonly Wall[]) {
    const spec = containerSpec(image, ['sleep', '1000']);
    wallsRemoved.set(spec.id, removed);
    await runtime.start(spec);
    const hostile = `
      $) = 1001; ($<, $>) = (1000, 1000);
      for my $key (split //, "hostile\\n") { syscall(16, 0, ${request}, $key) == 0 or $said = $!+0, last }
      print "answer ", $said // 0, "\\n"`;
    const shell = `/dev/busybox stty -echo; perl -e '${hostile}'; read -r line; echo "line $line"`;
    const size = { columns: 80, rows: 25 };
    const run = await runtime.exec(spec.id, {
      command: ['sh', '-c', shell],
      stdin: true,
      terminal: { term: 'xterm', size },
    });
    let shown = '';
    run.stdout.on('data', (part: Buffer) => (shown += part.toString()));
    await until('it tried', () => /answer \d+/.test(shown));
    run.stdin?.write('typed\n');
    await run.end;
    await until('the shell read', () => /line \w+/.test(shown));
    await runtime.remove(spec.id);
    return { answer: /answer (\d+)/.exec(shown)?.[1], line: /line (\w+)/.exec(shown)?.[1] };
  }

  // The kernel takes 32 bits of a request.
  const requests = ['0x5412', '0x100005412'];
  const EPERM = '1';

  it.each(requests)('types nothing into it (%s)', async (request) => {
    expect(await attack(request, [])).toEqual({ answer: EPERM, line: 'typed' });
  });

  /** Since Linux 6.2 a host may close this for everybody; it is open unless told so. */
  const hostCloses = ((): boolean => {
    try {
      return readFileSync('/proc/sys/dev/tty/legacy_tiocsti', 'utf8').trim() === '0';
    } catch {
      return false;
    }
  })();

  it.skipIf(hostCloses).each(requests)(
    'types its line without the filter (%s)',
    async (request) => {
      expect(await attack(request, ['seccomp'])).toEqual({ answer: '0', line: 'hostile' });
    },
  );
});
