import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { defaultResources, defaultTenantLimits, type Resources } from '@bulkhead/protocol';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { run } from './exec.ts';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, ContainerSpec, RuntimeOptions } from './runtime.ts';
import {
  containerSpec,
  removeState,
  runToEnd,
  testOptions,
  traces,
  until,
} from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

/** What a container may take, tried for real: the files are there, and what goes beyond is stopped. */

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

afterEach(async () => {
  for (const { id } of await runtime.list()) await runtime.remove(id);
});

afterAll(async () => {
  await runtime.destroy();
  expect(await traces(options)).toEqual([]);
  await registry.close();
  removeState(options);
});

const MiB = 1024 * 1024;
const sh = (script: string): string[] => ['sh', '-c', script];
const idle = ['sleep', '1000'];
const sized = (resources: Partial<Resources>) => ({
  resources: { ...defaultResources, memoryMiB: 64, ...resources },
});
const spec = (command: string[], resources: Partial<Resources> = {}, rest = {}): ContainerSpec =>
  containerSpec(image, command, { ...sized(resources), ...rest });

/** Text of a cgroup file, in whichever layout the machine has. */
function cgroupFile(path: string, v1: string, v2: string): string {
  const names = [`/sys/fs/cgroup/${v1.split('.')[0]}/${options.cgroup}/${path}/${v1}`];
  if (v1.startsWith('cpuacct')) names.push(names[0]?.replace('/cpuacct/', '/cpu,cpuacct/') ?? '');
  names.push(`/sys/fs/cgroup/${options.cgroup}/${path}/${v2}`);
  for (const name of names) {
    try {
      return readFileSync(name, 'utf8').trim();
    } catch {
      // The other layout.
    }
  }
  return 'missing';
}
const isV2 = async (): Promise<boolean> => (await runtime.facts()).cgroup === 'v2';

/** Bytes per second of the token buckets into and out of a container. */
async function rates(pid: number): Promise<{ into: number; out: number }> {
  const links = await run('nsenter', [`--net=/proc/${pid}/ns/net`, 'ip', '-j', 'link', 'show']);
  const eth0 = (JSON.parse(links.stdout) as { ifname: string; link_index?: number }[]).find(
    (link) => link.ifname === 'eth0',
  );
  const all = JSON.parse((await run('ip', ['-j', 'link', 'show'])).stdout) as {
    ifindex: number;
    ifname: string;
  }[];
  const name = all.find((link) => link.ifindex === eth0?.link_index)?.ifname ?? 'none';
  const rate = (text: string): number =>
    (JSON.parse(text) as { kind: string; options: { rate: number } }[]).find(
      (qdisc) => qdisc.kind === 'tbf',
    )?.options.rate ?? 0;
  const inside = [`--net=/proc/${pid}/ns/net`, 'tc', '-j', 'qdisc', 'show', 'dev', 'eth0'];
  return {
    into: rate((await run('tc', ['-j', 'qdisc', 'show', 'dev', name])).stdout),
    out: rate((await run('nsenter', inside)).stdout),
  };
}

describe('limits stand', () => {
  it('before the process runs, in its cgroup, its tenant and its network', async () => {
    const tenantLimits = { ...defaultTenantLimits, cpuWeight: 200, cpuCapMillis: 300 };
    const given = { ioBytesPerSecond: 3 * MiB, ioOperationsPerSecond: 70, cpuCapMillis: 500 };
    const one = spec(idle, { ...given, networkBytesPerSecond: 2_000_000 }, { tenantLimits });
    const { pid } = await runtime.start(one);
    const at = `tenant-a/${one.id}`;
    expect(cgroupFile('tenant-a', 'cpu.cfs_quota_us', 'cpu.max')).toMatch(/^30000( 100000)?$/);
    expect(cgroupFile('tenant-a', 'cpu.shares', 'cpu.weight')).toMatch(/^(2048|200)$/);
    // v1 refuses more than the tenant may have.
    expect(cgroupFile(at, 'cpu.cfs_quota_us', 'cpu.max')).toBe(
      (await isV2()) ? '50000 100000' : '30000',
    );
    expect(cgroupFile(at, 'blkio.throttle.write_bps_device', 'io.max')).toMatch(
      /^\d+:\d+ (rbps=)?3145728/,
    );
    expect(cgroupFile(at, 'blkio.throttle.read_iops_device', 'io.max')).toMatch(
      /^\d+:\d+ .*70( wiops=70)?$/m,
    );
    expect(await rates(pid ?? 0)).toEqual({ into: 2_000_000, out: 2_000_000 });
  });

  it('around each process, also one that comes later, and root inside cannot lift them', async () => {
    const names =
      'processes|open files|locked memory|pending signals|msgqueue size|core file size|nice priority|realtime priority';
    const told = (limits: string) =>
      [...limits.matchAll(new RegExp(`^Max (${names})\\s+(\\d+)\\s+(\\d+)`, 'gm'))].map(
        ([, name, soft, hard]) => [name, soft, hard],
      );
    const host = readFileSync('/proc/self/limits', 'utf8');
    const most = (name: string, ours: number): string => {
      const hard = new RegExp(`^Max ${name}\\s+\\S+\\s+(\\d+)`, 'm').exec(host)?.[1];
      return String(Math.min(ours, hard === undefined ? Infinity : Number(hard)));
    };
    const expected = (
      [
        ['core file size', 0],
        ['processes', 65_536],
        ['open files', 65_536],
        ['locked memory', 8 * MiB],
        ['pending signals', 65_536],
        ['msgqueue size', 0],
        ['nice priority', 0],
        ['realtime priority', 0],
      ] as const
    ).map(([name, ours]) => [name, most(name, ours), most(name, ours)]);
    // CORE, NPROC, NOFILE, MEMLOCK, SIGPENDING, MSGQUEUE, NICE, RTPRIO; then SCHED_FIFO, and nice -1.
    const lift = `for my $limit (4, 6, 7, 8, 11 .. 14) { my $more = pack("QQ", 1 << 30, 1 << 30);
        print "$limit ", syscall(160, $limit, $more) == -1 ? $!+0 : "lifted", "\\n" }
      my $priority = pack("i", 1); print "fifo ", syscall(144, 0, 1, $priority) == -1 ? $!+0 : "set", "\\n";
      print "nice ", syscall(141, 0, 0, -1) == -1 ? $!+0 : "set", "\\n"`;
    const one = spec(sh(`cat /proc/self/limits; perl -e '${lift}'; exec sleep 1000`));
    await runtime.start(one);
    const said = async () =>
      (await runtime.readLogs(one.id, null, 100)).lines.map(({ text }) => text);
    await until('it tried', async () => (await said()).some((line) => line.startsWith('nice')));
    const lines = await said();
    expect(told(lines.join('\n'))).toEqual(expected);
    const [EPERM, EACCES] = [1, 13];
    expect(lines.slice(-10)).toEqual([
      ...[4, 6, 7, 8, 11, 12, 13, 14].map((limit) => `${limit} ${EPERM}`),
      `fifo ${EPERM}`,
      `nice ${EACCES}`,
    ]);
    const later = await runtime.exec(one.id, {
      ...{ command: ['cat', '/proc/self/limits'], stdin: false, terminal: null },
    });
    expect(told(await text(later.stdout))).toEqual(expected);
  });

  it('and change while it runs', async () => {
    const one = spec(idle, { cpuCapMillis: 500 });
    const { pid, startedAt } = await runtime.start(one);
    const ceiling = (cpuCapMillis: number | null) => ({ ...defaultTenantLimits, cpuCapMillis });
    const more = {
      ...one.resources,
      memoryMiB: 96,
      pids: 40,
      cpuCapMillis: 800,
      ioBytesPerSecond: 5 * MiB,
      networkBytesPerSecond: 1_000_000,
    };
    await runtime.update(one.id, more, ceiling(600));
    const at = `tenant-a/${one.id}`;
    const quotas = () =>
      ['tenant-a', at].map((path) =>
        Number(cgroupFile(path, 'cpu.cfs_quota_us', 'cpu.max').split(' ')[0]),
      );
    const v2 = await isV2();
    expect(quotas()).toEqual([60_000, v2 ? 80_000 : 60_000]);
    expect(cgroupFile(at, 'memory.limit_in_bytes', 'memory.max')).toBe(String(96 * MiB));
    expect(cgroupFile(at, 'pids.max', 'pids.max')).toBe('40');
    expect(cgroupFile(at, 'blkio.throttle.read_bps_device', 'io.max')).toContain(String(5 * MiB));
    expect(await rates(pid ?? 0)).toEqual({ into: 1_000_000, out: 1_000_000 });
    // The ceiling falls and rises by what another container of the tenant brings.
    await runtime.start(spec(idle, {}, { tenantLimits: ceiling(200) }));
    expect(quotas()).toEqual([20_000, v2 ? 80_000 : 20_000]);
    await runtime.start(spec(idle, {}, { tenantLimits: ceiling(null) }));
    expect(cgroupFile('tenant-a', 'cpu.cfs_quota_us', 'cpu.max')).toMatch(/^(-1|max 100000)$/);
    expect(quotas()[1]).toBe(80_000);
    expect(await runtime.find(one.id)).toMatchObject({ pid, startedAt, state: 'running' });
    await runtime.update('not-there', more, ceiling(null));
  });

  it('but memory never below what is in use: that is refused, and nothing changes or dies', async () => {
    const holder = sh(
      'dd if=/dev/zero of=/dev/shm/held bs=1M count=40 2>&1; echo held; sleep 1000',
    );
    const one = spec(holder);
    const { pid } = await runtime.start(one);
    await until('it holds', async () =>
      (await runtime.readLogs(one.id, null, 99)).lines.some((line) => line.text === 'held'),
    );
    const less = { ...one.resources, memoryMiB: 16, pids: 20 };
    await expect(runtime.update(one.id, less, one.tenantLimits)).rejects.toMatchObject({
      reason: 'limit-refused',
    });
    const at = `tenant-a/${one.id}`;
    expect(cgroupFile(at, 'memory.limit_in_bytes', 'memory.max')).toBe(String(64 * MiB));
    expect(cgroupFile(at, 'pids.max', 'pids.max')).toBe(String(one.resources.pids));
    expect(await runtime.find(one.id)).toMatchObject({ pid, state: 'running' });
    await runtime.update(one.id, { ...one.resources, memoryMiB: 50 }, one.tenantLimits);
    expect(cgroupFile(at, 'memory.limit_in_bytes', 'memory.max')).toBe(String(50 * MiB));
  });
});

/** CPU time that a tenant has had, in seconds. */
function cpuTime(tenant: string): number {
  const text = cgroupFile(tenant, 'cpuacct.usage', 'cpu.stat');
  return text.startsWith('usage_usec')
    ? Number(/usage_usec (\d+)/.exec(text)?.[1]) / 1e6
    : Number(text) / 1e9;
}

describe('CPU', () => {
  it("a tenant's share does not grow with its number of containers", async () => {
    const burner = sh('yes >/dev/null & yes >/dev/null & wait');
    const greedy = { cpuCapMillis: 64_000 };
    await runtime.start(spec(burner, greedy, { tenantId: 'tenant-one' }));
    for (let i = 0; i < 4; i += 1)
      await runtime.start(spec(burner, greedy, { tenantId: 'tenant-four' }));
    const before = [cpuTime('tenant-one'), cpuTime('tenant-four')] as const;
    const used = () =>
      [cpuTime('tenant-one') - before[0], cpuTime('tenant-four') - before[1]] as const;
    await until('both had time enough', () => used()[0] + used()[1] > 3, 60_000);
    const [one, four] = used();
    // Without the tenants' cgroups it would be four.
    expect(four / one).toBeLessThan(1.7);
  });

  it("a tenant's ceiling holds for all its containers together", async () => {
    const tenantLimits = { ...defaultTenantLimits, cpuCapMillis: 200 };
    for (let i = 0; i < 3; i += 1)
      await runtime.start(spec(sh('yes >/dev/null'), {}, { tenantLimits }));
    const began = process.hrtime.bigint();
    const before = cpuTime('tenant-a');
    await until('it had some time', () => cpuTime('tenant-a') - before > 0.3, 60_000);
    const seconds = Number(process.hrtime.bigint() - began) / 1e9;
    // Each period may begin with a little more; without the ceiling it is ten times as much.
    expect((cpuTime('tenant-a') - before) / seconds).toBeLessThan(0.3);
  });

  it('how long caps hold back is added up, over the lives of what they held', async () => {
    const busy = sh('yes >/dev/null');
    const held = async (one: ContainerSpec): Promise<void> => {
      const before = runtime.load().throttling;
      const cap = one.resources.cpuCapMillis === undefined ? 'tenant' : 'instance';
      await runtime.start(one);
      await until('it was held back', () => {
        const now = runtime.load().throttling;
        return (
          now[cap].throttledPeriods > before[cap].throttledPeriods &&
          now[cap].throttledNanos > before[cap].throttledNanos &&
          now[cap].periods > before[cap].periods
        );
      });
      const at = runtime.load().throttling[cap].throttledNanos;
      await runtime.remove(one.id);
      expect(runtime.load().throttling[cap].throttledNanos).toBeGreaterThanOrEqual(at);
    };
    const none = { ...defaultTenantLimits, cpuCapMillis: null };
    const own = spec(busy, { cpuCapMillis: 100 }, { tenantLimits: none });
    await held(own);
    // Of the same name, and counts from nothing.
    await held(own);
    const tenantLimits = { ...none, cpuCapMillis: 100 };
    await held(spec(busy, {}, { tenantLimits }));
    expect(runtime.load().use?.cpuNanos).toBeGreaterThan(0);
  });

  it('what held back before another runtime took over is not counted again by it', async () => {
    const one = spec(sh('yes >/dev/null'), { cpuCapMillis: 100 });
    await runtime.start(one);
    await until('it was held back', () => runtime.load().throttling.instance.throttledPeriods > 3);
    await runtime.pause(one.id);
    const own = runtime.load().throttling.instance.throttledPeriods;
    const next = createRuntime(options);
    await next.reconcile();
    expect(next.load().throttling.instance.throttledPeriods).toBeLessThan(own);
  });
});

describe('disk', () => {
  const MiBs = 4;
  const writer = `dd if=/dev/zero of=/file bs=64k count=${MiBs * 16} oflag=direct 2>&1`;
  const seconds = async (script: string, resources: Partial<Resources>): Promise<number> => {
    const one = spec(sh(script), resources);
    const began = Date.now();
    const { exit, out } = await runToEnd(runtime, one);
    expect([exit.exitCode, out.join()]).toEqual([0, expect.stringContaining('records out')]);
    return (Date.now() - began) / 1000;
  };

  it('bytes per second hold for direct writes and reads', async () => {
    expect(await seconds(writer, { ioBytesPerSecond: MiB })).toBeGreaterThan(MiBs * 0.75);
    const reader = `${writer}; dd if=/file of=/dev/null bs=64k iflag=direct 2>&1`;
    expect(await seconds(reader, { ioBytesPerSecond: 2 * MiB })).toBeGreaterThan(MiBs * 0.75);
  });

  it('operations per second hold', async () => {
    const small = 'dd if=/dev/zero of=/file bs=4k count=150 oflag=direct 2>&1';
    expect(await seconds(small, { ioOperationsPerSecond: 50 })).toBeGreaterThan(2);
  });
});

describe('network', () => {
  it('bandwidth holds both ways', async () => {
    const size = 4_000_000;
    const script = `dd if=/dev/zero of=/index.html bs=1000 count=${size / 1000}; httpd -p 80;
      while :; do nc -l -p 81 | wc -c; done`;
    const one = spec(sh(script), { networkBytesPerSecond: 1_000_000 });
    const { address } = await runtime.start(one);
    const get = async (): Promise<number> => {
      const began = Date.now();
      const response = await fetch(`http://${address}/index.html`);
      expect((await response.arrayBuffer()).byteLength).toBe(size);
      return (Date.now() - began) / 1000;
    };
    await until('it serves', () =>
      fetch(`http://${address}/`).then(
        () => true,
        () => false,
      ),
    );
    expect(await get()).toBeGreaterThan(2.5);

    const put = async (): Promise<number> => {
      const began = Date.now();
      const { connect } = await import('node:net');
      await new Promise<void>((resolve, reject) => {
        const socket = connect(81, address, () => socket.end(Buffer.alloc(size)));
        socket
          .on('error', reject)
          .on('close', () => resolve())
          .resume();
      });
      return (Date.now() - began) / 1000;
    };
    const slow = await put();
    const counted = async () =>
      (await runtime.readLogs(one.id, null, 99)).lines.map((line) => line.text);
    await until('all came', async () => (await counted()).includes(String(size)));
    expect(slow).toBeGreaterThan(2.5);

    const fast = { ...one.resources, networkBytesPerSecond: 1_000_000_000 };
    await runtime.update(one.id, fast, one.tenantLimits);
    expect(await get()).toBeLessThan(slow);
  });

  it('root inside cannot take the limit away', async () => {
    const script = `tc qdisc del dev eth0 root; ip link set eth0 txqueuelen 1; ip link del eth0`;
    const one = spec(sh(`${script}; sleep 1000`));
    const { pid } = await runtime.start(one);
    await until(
      'it tried',
      async () => (await runtime.readLogs(one.id, null, 99)).lines.length >= 3,
    );
    const wanted = one.resources.networkBytesPerSecond;
    expect(await rates(pid ?? 0)).toEqual({ into: wanted, out: wanted });
  });
});

describe('a hog hurts itself only', () => {
  let victim: ContainerSpec;
  const beside = async (attack: ContainerSpec, until: (lines: string[]) => boolean) => {
    victim = spec(sh('while :; do echo beat; sleep 0.1; done'), {}, { tenantId: 'tenant-b' });
    const { pid } = await runtime.start(victim);
    await runtime.start(attack);
    await eventually(async () => until(await linesOf(attack.id)));
    // It goes on, started nowhere anew.
    const beats = (await linesOf(victim.id)).length;
    await eventually(async () => (await linesOf(victim.id)).length > beats + 2);
    expect(await runtime.find(victim.id)).toMatchObject({ pid, state: 'running' });
  };
  const linesOf = async (id: string) =>
    (await runtime.readLogs(id, null, 5000)).lines.map((line) => line.text);
  const eventually = (condition: () => Promise<boolean>) => until('the attack', condition, 30_000);

  it('fork bomb', async () => {
    const bomb = sh(
      `f() { while :; do sleep 1000 & done; }; f 2>&1 | while read -r line; do echo "$line"; sleep 0.1; done; exec sleep 1000`,
    );
    const attack = spec(bomb, { pids: 32 });
    await beside(attack, (lines) => lines.some((line) => /can't fork/.test(line)));
    expect(
      Number(cgroupFile(`tenant-a/${attack.id}`, 'pids.current', 'pids.current')),
    ).toBeLessThan(33);
  });

  it('fork bombs of one tenant, each within its own limit', async () => {
    const bomb = sh(
      `f() { while :; do sleep 1000 & done; }; f 2>&1 | while read -r line; do echo "$line"; sleep 0.1; done; exec sleep 1000`,
    );
    const tenantLimits = { ...defaultTenantLimits, pids: 60 };
    const first = spec(bomb, { pids: 40 }, { tenantLimits });
    await runtime.start(first);
    await eventually(async () => (await linesOf(first.id)).some((line) => /can't fork/.test(line)));
    const second = spec(bomb, { pids: 40 }, { tenantLimits });
    await beside(second, (lines) => lines.some((line) => /can't fork/.test(line)));
    expect(Number(cgroupFile('tenant-a', 'pids.current', 'pids.current'))).toBeLessThanOrEqual(60);
    expect(Number(cgroupFile('tenant-a', 'pids.max', 'pids.max'))).toBe(60);
  });

  it.each([
    ['memory', `my @a; push @a, "x" x 1e6 while 1`],
    // Each mapping is merged with its neighbour unless every other one differs.
    [
      'many small mappings',
      `for (1..60000) { syscall(9, 0, 4096, $_ % 2 ? 3 : 1, 0x8022, -1, 0) } print "done\\n"; my @a; push @a, "x" x 1e6 while 1`,
    ],
    [
      '/dev/shm and what is in it',
      `open F, ">", "/dev/shm/f"; print F "x" x 1e6 for 1..100; print "full: $!\\n"; my @a; push @a, "x" x 1e6 while 1`,
    ],
  ])('%s: killed for want of memory', async (_, script) => {
    const attack = spec(['perl', '-e', `$| = 1; ${script}`], { memoryMiB: 32 });
    victim = spec(sh('while :; do echo beat; sleep 0.1; done'), {}, { tenantId: 'tenant-b' });
    const { pid } = await runtime.start(victim);
    await runtime.start(attack);
    const exit = await runtime.waitExit(attack.id, AbortSignal.timeout(30_000));
    expect(exit).toMatchObject({ signal: 'SIGKILL', oomKilled: true });
    expect(await runtime.find(victim.id)).toMatchObject({ pid, state: 'running' });
  });

  it('the page cache of what it writes and reads is its own, and is taken back', async () => {
    const attack = spec(
      sh(
        'dd if=/dev/zero of=/big bs=1M count=96; dd if=/big of=/dev/null bs=1M; echo over; sleep 1000',
      ),
      { memoryMiB: 32, ioBytesPerSecond: 1000 * MiB },
    );
    await beside(attack, (lines) => lines.includes('over'));
    const used = cgroupFile(`tenant-a/${attack.id}`, 'memory.max_usage_in_bytes', 'memory.current');
    expect(Number(used)).toBeLessThanOrEqual(32 * MiB);
  });

  it('buffers of sockets are counted and bounded', async () => {
    const script = `$| = 1; my @all; for (1..400) { socketpair(my $a, my $b, 1, 1, 0) or last; push @all, $a, $b;
      fcntl($a, 4, 2048); 1 while syswrite($a, "x" x 65536) } print "filled\\n"; sleep 1000`;
    const attack = spec(['perl', '-e', script], { memoryMiB: 32 });
    await runtime.start(attack);
    const exit = await runtime.waitExit(attack.id, AbortSignal.timeout(30_000));
    expect(exit).toMatchObject({ oomKilled: true });
  });

  it('small files in memory are bounded', async () => {
    const script = `$| = 1; for (1..1e6) { open my $f, ">", "/dev/shm/$_" or print("stop $!\\n"), last } sleep 1000`;
    const attack = spec(['perl', '-e', script], { memoryMiB: 32 });
    await runtime.start(attack);
    await until(
      'it was stopped',
      async () =>
        (await runtime.find(attack.id))?.state === 'stopped' ||
        (await linesOf(attack.id)).some((line) => line.startsWith('stop')),
      60_000,
    );
  });
});

describe('a read-only root', () => {
  it('takes no writes but to /tmp, which is small', async () => {
    const script = `touch /x /etc/x /root/x; echo ok > /tmp/x; cat /tmp/x; touch /dev/shm/x && echo shm
      dd if=/dev/zero of=/tmp/big bs=1M count=60 2>&1; ls /tmp/; echo end`;
    const { out, err } = await runToEnd(runtime, spec(sh(script), {}, { readOnlyRoot: true }));
    expect(err.filter((line) => line.includes('Read-only file system'))).toHaveLength(3);
    expect(out).toEqual(expect.arrayContaining(['ok', 'shm', 'end']));
    expect(out.join()).toMatch(/No space left on device/);
  });

  it('is not asked for by default', async () => {
    expect((await runToEnd(runtime, spec(sh('touch /x && echo ok')))).out).toEqual(['ok']);
  });
});
