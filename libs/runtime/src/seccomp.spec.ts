import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, RuntimeOptions } from './runtime.ts';
import { allowedCalls, refusedCalls, refusedRequests, seccompProfile } from './seccomp.ts';
import { containerSpec, removeState, runToEnd, testOptions } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

it('refuses these calls by name', () => {
  expect(refusedCalls.join(' ')).toMatchInlineSnapshot(
    `"acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init fanotify_mark finit_module fsconfig fsmount fsopen fspick get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind memfd_secret migrate_pages modify_ldt mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise process_mrelease process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot remap_file_pages request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog umount2 unshare uselib userfaultfd ustat vhangup vmsplice"`,
  );
});

it('refuses these requests of ioctl', () => {
  expect(refusedRequests).toMatchInlineSnapshot(`
    {
      "TIOCLINUX": 21532,
      "TIOCSETD": 21539,
      "TIOCSTI": 21522,
    }
  `);
});

it('names no call twice', () => {
  const names = [
    ...allowedCalls,
    ...refusedCalls,
    'clone',
    'clone3',
    'ioctl',
    'personality',
    'socket',
    'socketpair',
  ];
  expect(names.length).toBe(new Set(names).size);
});

it('refuses what it does not know, on both architectures, and every foreign ABI', () => {
  for (const arch of ['x64', 'arm64'] as const)
    expect(seccompProfile(arch)).toMatchObject({
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrnoRet: 38,
    });
  expect(seccompProfile('x64').architectures).toEqual(['SCMP_ARCH_X86_64']);
  expect(() => seccompProfile('ia32')).toThrow('x64 and arm64');
});

describe('in a container', () => {
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

  // Numbers of x86-64; each call must fail with EPERM (1) or ENOSYS (38), whatever the kernel would say.
  it.runIf(process.arch === 'x64').each([
    ['socket AF_VSOCK', 'syscall(41, 40, 1, 0)', 38],
    ['socket AF_ALG', 'syscall(41, 38, 5, 0)', 38],
    ['socket AF_PACKET', 'syscall(41, 17, 3, 0)', 38],
    ['socket AF_KEY', 'syscall(41, 15, 3, 2)', 38],
    ['socket netlink netfilter', 'syscall(41, 16, 3, 12)', 38],
    ['socket netlink xfrm', 'syscall(41, 16, 3, 6)', 38],
    ['socket netlink route', 'syscall(41, 16, 3, 0)', 0],
    ['socket AF_INET', 'syscall(41, 2, 1, 0)', 0],
    ['socket TCP', 'syscall(41, 2, 1, 6)', 0],
    ['socket UDP', 'syscall(41, 2, 2, 17)', 0],
    ['socket TCP over IPv6', 'syscall(41, 10, 1, 6)', 0],
    ['socket UDP over IPv6', 'syscall(41, 10, 2, 17)', 0],
    ['socket MPTCP', 'syscall(41, 2, 1, 262)', 38],
    ['socket MPTCP over IPv6', 'syscall(41, 10, 1, 262)', 38],
    ['socket MPTCP behind a high bit', 'syscall(41, 2, 1, 262 + 2**32)', 38],
    ['socket UDP-Lite', 'syscall(41, 2, 2, 136)', 38],
    ['socket UDP-Lite over IPv6', 'syscall(41, 10, 2, 136)', 38],
    ['socketpair AF_TIPC', 'syscall(53, 30, 1, 0, 0)', 38],
    ['clone NEWUSER', 'syscall(56, 0x10000011, 0, 0, 0, 0)', 38],
    ['clone NEWNET', 'syscall(56, 0x40000011, 0, 0, 0, 0)', 38],
    ['clone3', 'syscall(435, 0, 0)', 38],
    ['unshare NEWUSER', 'syscall(272, 0x10000000)', 1],
    ['setns', 'syscall(308, 0, 0)', 1],
    ['keyctl', 'syscall(250, 0, -3, 0)', 1],
    ['add_key', 'syscall(248, 0, 0, 0, 0, 0)', 1],
    ['ptrace', 'syscall(101, 0, 0, 0, 0)', 1],
    ['bpf', 'syscall(321, 0, 0, 0)', 1],
    ['userfaultfd', 'syscall(323, 0)', 1],
    ['io_uring_setup', 'syscall(425, 1, 0)', 1],
    ['perf_event_open', 'syscall(298, 0, 0, 0, 0, 0)', 1],
    ['mount', 'syscall(165, 0, 0, 0, 0, 0)', 1],
    ['fsopen', 'syscall(430, 0, 0)', 1],
    ['open_tree', 'syscall(428, 0, 0, 0)', 1],
    ['name_to_handle_at', 'syscall(303, 0, 0, 0, 0, 0)', 1],
    ['open_by_handle_at', 'syscall(304, 0, 0, 0)', 1],
    ['modify_ldt', 'syscall(154, 0, 0, 0)', 1],
    ['kexec_load', 'syscall(246, 0, 0, 0, 0)', 1],
    ['mbind', 'syscall(237, 0, 0, 0, 0, 0, 0)', 1],
    ['process_vm_readv', 'syscall(310, 0, 0, 0, 0, 0, 0)', 1],
    ['a call that does not exist', 'syscall(999)', 38],
  ])('%s', async (_name, call, errno) => {
    const script = `my $r = ${call}; print $r == -1 ? $! + 0 : 0, "\\n";`;
    const { out } = await runToEnd(runtime, containerSpec(image, ['perl', '-e', script]));
    expect(out).toEqual([String(errno)]);
  });

  it.runIf(process.arch === 'x64')('refuses those requests of ioctl and no others', async () => {
    // Of the first 65,536, and of a refused one with each other bit set; /dev/null has none of them.
    const script = `
      open my $f, "<", "/dev/null" or die;
      sub tried { my ($name, $request) = @_; syscall(16, fileno $f, $request, 0) == -1 && ($! == 1 || $! == 38) and printf "$name %d\n", $! }
      tried(sprintf("%x", $_), $_) for 0 .. 0xffff;
      tried("bit $_", 0x5412 | 1 << $_) for 16 .. 63`;
    const { out, err } = await runToEnd(runtime, containerSpec(image, ['perl', '-e', script]));
    expect(err).toEqual([]);
    expect(out).toEqual([
      ...Object.values(refusedRequests).map((request) => `${request.toString(16)} 1`),
      // The kernel does not look at these.
      ...Array.from({ length: 32 }, (_, bit) => `bit ${bit + 32} 1`),
    ]);
  });

  it.runIf(process.arch === 'x64')('kills who calls through the x32 ABI', async () => {
    const { exit } = await runToEnd(
      runtime,
      containerSpec(image, ['perl', '-e', 'syscall(0x40000000 + 39); print "alive"']),
    );
    expect(exit.signal).toBe('SIGSYS');
  });

  it.runIf(process.arch === 'x64')('kills who calls through the 32-bit ABI', async () => {
    // A whole program: mov eax, 20 (getpid); int 0x80; mov eax, 60; xor edi, edi; syscall (exit).
    const code = 'b814000000cd80b83c00000031ff0f05';
    const header =
      '7f454c46020101000000000000000000' +
      '02003e0001000000' +
      '7800400000000000' +
      '4000000000000000' +
      '0000000000000000' +
      '00000000' +
      '4000' +
      '3800' +
      '0100' +
      '0000' +
      '0000' +
      '0000';
    const segment =
      '01000000' +
      '05000000' +
      '0000000000000000' +
      '0000400000000000' +
      '0000400000000000' +
      '8800000000000000' +
      '8800000000000000' +
      '0010000000000000';
    const script = `open F, ">/x"; binmode F; print F pack("H*", "${header}${segment}${code}"); close F; chmod 0755, "/x"; exec "/x"`;
    const { exit } = await runToEnd(runtime, containerSpec(image, ['perl', '-e', script]));
    expect(exit.signal).toBe('SIGSYS');
  });
});
