/** What the kernel has once for the whole machine, and a container gets a share of. */
import { mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { defaultResources } from '@bulkhead/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from './exec.ts';
import { firewallRules } from './firewall.ts';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, RuntimeOptions } from './runtime.ts';
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

describe.runIf(process.arch === 'x64')('what the kernel counts by user', () => {
  let registry: TestRegistry;
  let options: RuntimeOptions;
  let runtime: ContainerRuntime;
  let image: TestImage;
  beforeAll(async () => {
    registry = await startRegistry();
    options = testOptions([registry.host]);
    runtime = createRuntime(options);
    await runtime.reconcile();
    image = await registry.push('test/shares', [baseLayer]);
    await runtime.ensureImage(image);
  });
  afterAll(async () => {
    await runtime.destroy();
    expect(await traces(options)).toEqual([]);
    await registry.close();
    removeState(options);
  });

  /**
   * Has processes take all that they can get, which they count in $n, until one gets nothing: there
   * are limits for each process or user, too. They hold it; the answer is the sum.
   */
  async function hold(take: string): Promise<{ id: string; taken: number }> {
    const script = `$| = 1; pipe(my $in, my $out);
      for (my $sum = 0;;) {
        unless (fork) { ${take} syswrite $out, "$n\n"; sleep 1000 }
        my $n = <$in>; $sum += $n;
        unless ($n > 0) { print "$sum\n"; sleep 1000 }
      }`;
    const hog = containerSpec(image, ['perl', '-e', script], {
      resources: { ...defaultResources, memoryMiB: 256 },
    });
    await runtime.start(hog);
    let taken: string | undefined;
    await until('it has all it can get', async () => {
      taken = (await runtime.readLogs(hog.id, null, 10)).lines[0]?.text;
      return taken !== undefined;
    });
    return { id: hog.id, taken: Number(taken) };
  }
  const other = (script: string) =>
    runToEnd(runtime, containerSpec(image, ['perl', '-e', script], { tenantId: 'tenant-b' }));

  it('inotify: what one container takes is no other’s, nor the host’s', async () => {
    const inotifyInit = 294;
    const take = (most: number) =>
      `my $n = 0; while ($n < ${most}) { last if syscall(${inotifyInit}, 0) == -1; $n++ }`;
    const hog = await hold(take(10_000));
    expect(hog.taken).toBe(Number(readFileSync('/proc/sys/fs/inotify/max_user_instances', 'utf8')));
    expect((await other(`${take(100)} print "$n\n"`)).out).toEqual(['100']);
    const dir = mkdtempSync(`${tmpdir()}/bulkhead-watch-`);
    const watcher = watch(dir);
    watcher.close();
    rmSync(dir, { recursive: true });
    await runtime.remove(hog.id);
  });

  it('pending signals: likewise', async () => {
    // SIGRTMIN, blocked, to itself: libc's own for setuid() and pthread_cancel() are of this kind.
    const send = (most: number) => `
      my ($all, $info) = (pack("Q", ~0), pack("iii x116", 34, 0, -1));
      syscall(14, 2, $all, 0, 8);
      my $n = 0; while ($n < ${most}) { last if syscall(129, $$ + 0, 34, $info) == -1; $n++ }`;
    const hog = await hold(`my $user = $$; ($<, $>) = ($user, $user); ${send(1_000_000)}`);
    const most = /^Max pending signals\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
    expect(hog.taken).toBe(Number(most?.[1]));
    expect((await other(`${send(10)} print "$n\n"`)).out).toEqual(['10']);
    const host = await run('perl', ['-e', `${send(10)} print "$n\n"`]);
    expect(host.stdout).toBe('10\n');
    await runtime.remove(hog.id);
  });
});

/**
 * A machine of its own: a router with the rules, a container's end of an interface, and a server.
 * Nothing of the real network is touched.
 */
it('connections that the kernel follows: a flood from one container does not fill its table', async () => {
  const names = ['inside', 'router', 'server'].map((name) => `bh-${name}-${process.pid}`);
  const [inside = '', router = '', server = ''] = names;
  const dir = mkdtempSync(`${tmpdir()}/bulkhead-flows-`);
  const ip = (lines: string) => run('ip', ['-batch', '-'], { input: lines });
  const within = (name: string, ...command: string[]) =>
    run('ip', ['netns', 'exec', name, ...command]);
  try {
    for (const name of names) await run('ip', ['netns', 'add', name]);
    await ip(`link add tf-1 netns ${router} type veth peer name eth0 netns ${inside}
link add out netns ${router} type veth peer name eth0 netns ${server}`);
    const setUp: Record<string, string> = {
      [router]: `addr add 169.254.1.1/32 dev tf-1
link set tf-1 up
route add 10.99.0.5 dev tf-1
addr add 10.98.0.1/24 dev out
link set out up
route add 9.9.9.9 via 10.98.0.2`,
      [inside]: `addr add 10.99.0.5/32 dev eth0
link set eth0 up
route add 169.254.1.1 dev eth0
route add default via 169.254.1.1`,
      [server]: `addr add 10.98.0.2/24 dev eth0
addr add 9.9.9.9/32 dev lo
link set lo up
link set eth0 up
route add default via 10.98.0.1`,
    };
    for (const [name, lines] of Object.entries(setUp))
      await run('ip', ['-n', name, '-batch', '-'], { input: lines });
    const rules = { table: 'flows', network: '10.99.0.0/24', vethPrefix: 'tf' };
    writeFileSync(`${dir}/rules`, firewallRules(rules, []));
    await within(router, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward');
    await within(router, 'nft', '-f', `${dir}/rules`);
    const flood = `use Socket; my $to = sockaddr_in(7, inet_aton("9.9.9.9"));
      for my $port (20000 .. 26000) { socket(my $s, PF_INET, SOCK_DGRAM, 0) or die;
        bind($s, sockaddr_in($port, INADDR_ANY)) or die; send($s, "x", 0, $to); }`;
    await within(inside, 'perl', '-e', flood);
    const followed = await within(router, 'cat', '/proc/sys/net/netfilter/nf_conntrack_count');
    expect(Number(followed.stdout)).toBe(4096);
    expect(readFileSync(`${dir}/rules`, 'utf8')).toContain('ct count over 4096');
  } finally {
    for (const name of names) await run('ip', ['netns', 'delete', name]).catch(() => undefined);
    rmSync(dir, { recursive: true, force: true });
  }
});
