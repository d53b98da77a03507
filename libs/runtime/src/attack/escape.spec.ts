import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createRuntime } from '../host-runtime.ts';
import type { ContainerRuntime, RuntimeOptions } from '../runtime.ts';
import { containerSpec, removeState, runToEnd, testOptions } from '../testing/host.ts';
import { baseLayer, startRegistry } from '../testing/registry.ts';
import type { TestImage, TestRegistry } from '../testing/registry.ts';
import { wallsRemoved } from '../testing/weaken.ts';
import type { Wall } from '../testing/weaken.ts';

vi.mock(import('../oci-config.ts'), async (original) =>
  (await import('../testing/weaken.ts')).weakened(await original()),
);
vi.mock(import('../syscalls.ts'), async (original) =>
  (await import('../testing/weaken.ts')).withoutFlags(await original()),
);

/**
 * Root inside tries each way out. Every attack names the walls that stand before it: with all of
 * them it fails with `refused`; with any one taken away the others still hold it; with none left it
 * succeeds, so that the failure is the walls' doing and not the probe's.
 */
interface Attack {
  name: string;
  /** A Perl expression that gives an errno, 0 for success. Harmless where it succeeds. */
  probe: string;
  refused: string;
  walls: readonly Wall[];
}

const [EPERM, EACCES, EROFS, ENOSYS] = ['EPERM', 'EACCES', 'EROFS', 'ENOSYS'];
const attack = (name: string, probe: string, refused: string, ...walls: Wall[]): Attack => ({
  name,
  probe,
  refused,
  walls,
});

// Numbers of x86-64. The probes write back what they read, or only open.
const attacks: readonly Attack[] = [
  attack('a user namespace by unshare', 'call(272, 0x10000000)', EPERM, 'seccomp'),
  attack('a user namespace by clone', 'cloned(0x10000011)', ENOSYS, 'seccomp'),
  attack('a mount namespace by unshare', 'call(272, 0x20000)', EPERM, 'seccomp', 'capabilities'),
  attack('mount', 'call(165, "x", "/root", "tmpfs", 0, "")', EPERM, 'seccomp', 'capabilities'),
  attack('mount by the new interface', 'call(430, "tmpfs", 0)', EPERM, 'seccomp', 'capabilities'),
  attack(
    'a bind mount',
    'call(165, "/bin", "/root", "", 4096, "")',
    EPERM,
    'seccomp',
    'capabilities',
  ),
  attack('lifting a mask', 'call(166, "/proc/keys", 2)', EPERM, 'seccomp', 'capabilities'),
  attack('chroot', 'call(161, "/")', EPERM, 'seccomp', 'capabilities'),
  attack('a host name', 'call(170, "other", 5)', EPERM, 'seccomp', 'capabilities'),
  attack('keyctl', 'call(250, 0, -3, 1)', EPERM, 'seccomp'),
  attack('io_uring', 'my $p = "\\0" x 120; call(425, 1, $p)', EPERM, 'seccomp'),
  attack('ptrace', 'call(101, 0, 0, 0, 0)', EPERM, 'seccomp'),
  attack('a netfilter socket', 'call(41, 16, 3, 12)', ENOSYS, 'seccomp'),
  attack('a packet socket', 'call(41, 17, 3, 0)', ENOSYS, 'seccomp', 'capabilities'),
  attack('a raw socket', 'call(41, 2, 3, 1)', EPERM, 'capabilities'),
  attack(
    'writing kernel settings',
    'same("/proc/sys/kernel/core_pattern")',
    EACCES,
    'readonly',
    'userns',
  ),
  attack('a control group', 'group()', EROFS, 'cgroup-read-only', 'userns'),
  attack('memory that is shared on the host', 'shared()', 'EINVAL', 'ipcns'),
  // The disk is the pool, where the layers of all tenants are. Without a user namespace crun drops
  // the flags of the root file system's mount with it.
  attack('a device for a disk', 'device()', EPERM, 'capabilities', 'userns', 'devices'),
  attack('a disk by a device in the image', 'disk("/image-disk")', EACCES, 'nodev', 'devices'),
  attack('root by a setuid program', 'setuid()', EACCES, 'no-new-privileges', 'nosuid'),
  attack(
    'interrupts by another name',
    'holds("/proc/thread-self/root/proc/interrupts")',
    'empty',
    'masks',
  ),
];

const perl = `
sub group { my $d = "/sys/fs/cgroup/" . (-d "/sys/fs/cgroup/memory" ? "memory/x" : "x"); mkdir($d) ? (rmdir($d), 0)[1] : $!+0 }
sub call { my ($n, @a) = @_; syscall($n, @a) == -1 ? $!+0 : 0 }
sub cloned { my $p = syscall(56, $_[0], 0, 0, 0, 0); return $!+0 if $p == -1; syscall(60, 0) if $p == 0; 0 }
sub put { sysopen(my $f, $_[0], 1) or return $!+0; defined(syswrite($f, $_[1])) ? 0 : $!+0 }
sub same { open(my $f, "<", $_[0]) or return $!+0; my $t = <$f>; put($_[0], $t) }
sub disk { sysopen(my $f, $_[0], 0) or return $!+0; sysseek($f, 0x10040, 0); sysread($f, my $t, 8); $t eq "_BHRfS_M" ? 0 : "another disk" }
sub setuid { $) = 1001; ($<, $>) = (1000, 1000); my $t = qx(/usr/bin/reader /root-only 2>&1); $t eq "for root\n" ? 0 : $t =~ /Permission denied/ ? 13 : $t }
sub holds { open(my $f, "<", $_[0]) or return $!+0; defined(<$f>) ? 0 : "empty" }
`;

/** The disk under the pool of writable layers. */
function poolDevice(stateDir: string): { major: number; minor: number } {
  for (const name of readdirSync('/sys/block')) {
    const backing = `/sys/block/${name}/loop/backing_file`;
    if (!existsSync(backing) || !readFileSync(backing, 'utf8').startsWith(`${stateDir}/`)) continue;
    const [major = 0, minor = 0] = readFileSync(`/sys/block/${name}/dev`, 'utf8')
      .split(':')
      .map(Number);
    return { major, minor };
  }
  throw new Error('The runtime has no pool on a loop device.');
}

const errnoName = (text: string): string =>
  text === '0'
    ? 'succeeded'
    : (Object.entries(constants.errno).find(([, number]) => String(number) === text)?.[0] ?? text);

describe.runIf(process.arch === 'x64')('root inside', () => {
  let registry: TestRegistry;
  let options: RuntimeOptions;
  let runtime: ContainerRuntime;
  let image: TestImage;
  /** Of the host, for everybody there. */
  let sharedMemory: string;
  let disk: { major: number; minor: number };

  beforeAll(async () => {
    const made = execFileSync('ipcmk', ['-M', '4096', '-p', '0666'], { encoding: 'utf8' });
    sharedMemory = /\d+/.exec(made)?.[0] ?? '';
    registry = await startRegistry();
    options = testOptions([registry.host]);
    runtime = createRuntime(options);
    await runtime.reconcile();
    disk = poolDevice(options.stateDir);
    image = await registry.push('test/base', [
      {
        ...baseLayer,
        'image-disk': { disk },
        'root-only': { mode: 0o600, text: 'for root\n' },
        'usr/bin/reader': { copy: '/bin/cat', mode: 0o4755 },
      },
    ]);
    await runtime.ensureImage(image);
  });

  afterAll(async () => {
    execFileSync('ipcrm', ['-m', sharedMemory]);
    await runtime.destroy();
    await registry.close();
    removeState(options);
  });

  const answers = new Map<string, Promise<ReadonlyMap<string, string>>>();

  /** What each attack gets in a container without these walls; one container for all of them. */
  function tryWithout(removed: readonly Wall[]): Promise<ReadonlyMap<string, string>> {
    const key = removed.toSorted().join(' ');
    const known = answers.get(key) ?? attempt(removed);
    answers.set(key, known);
    return known;
  }

  async function attempt(removed: readonly Wall[]): Promise<ReadonlyMap<string, string>> {
    const probes = attacks.map(
      ({ probe }, index) =>
        `unless ($pid = fork) { my $r = do { ${probe} }; syswrite(STDOUT, "${index} $r\\n"); syscall(231, 0) } waitpid($pid, 0);`,
    );
    // S_IFBLK; mknod(2) takes the number as the kernel's old 16 bits and the rest of the minor above.
    const number = (disk.major << 8) | (disk.minor & 0xff) | ((disk.minor & ~0xff) << 12);
    const shared = `sub shared { my $b = "\\0" x 200; call(31, ${sharedMemory}, 2, $b) }
      sub device { my $r = call(133, "/disk", 0060600, ${number}); $r == 0 ? disk("/disk") : $r }`;
    const spec = containerSpec(image, [
      'perl',
      '-e',
      `${perl} ${shared} my $pid; ${probes.join('\n')}`,
    ]);
    wallsRemoved.set(spec.id, removed);
    const { out } = await runToEnd(runtime, spec);
    return new Map(
      out.map((line) => {
        const [index, result] = line.split(' ');
        return [attacks[Number(index)]?.name ?? line, errnoName(result ?? '')];
      }),
    );
  }

  it.each(attacks)(
    '$name: refused, held by each wall, open without',
    async ({ name, refused, walls }) => {
      expect((await tryWithout([])).get(name)).toBe(refused);
      if (walls.length > 1)
        for (const wall of walls) {
          const said = (await tryWithout([wall])).get(name);
          expect([
            wall,
            said === EPERM || said === EACCES || said === EROFS || said === ENOSYS || said,
          ]).toEqual([wall, true]);
        }
      expect((await tryWithout(walls)).get(name)).toBe('succeeded');
    },
  );
});
