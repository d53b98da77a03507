/**
 * The system calls that tenants may make: an allow-list of our own, tighter than the packaged ones.
 * Tenants share the kernel and, through the image layers, its page cache, so whatever reaches rarely
 * used kernel code is refused: user namespaces, mounts, BPF, io_uring, keys, ptrace, NUMA policy, and
 * every socket family but AF_UNIX, AF_INET, AF_INET6 and routing netlink (name resolution asks it).
 *
 * Refused calls fail with EPERM. Calls that this list has never heard of fail with ENOSYS, so that
 * programs take the road they take on an older kernel. Of ioctl, all requests pass but a few. Only the native ABI exists: 32-bit and x32
 * calls kill the caller, because their other numbers and socketcall would need a second list.
 */
export interface SeccompProfile {
  defaultAction: 'SCMP_ACT_ERRNO';
  defaultErrnoRet: number;
  architectures: string[];
  syscalls: SeccompRule[];
}

export interface SeccompRule {
  names: string[];
  action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO';
  errnoRet?: number;
  args?: {
    index: number;
    value: number;
    valueTwo?: number;
    op: 'SCMP_CMP_EQ' | 'SCMP_CMP_MASKED_EQ';
  }[];
}

const EPERM = 1;
const ENOSYS = 38;

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const cloneNamespaces = 0x7e020000;
const family = { unix: 1, inet: 2, inet6: 10, netlink: 16 } as const;
const NETLINK_ROUTE = 0;
/** The family's own choice, TCP, UDP and ping; not MPTCP, UDP-Lite and the like: rarely used kernel code. */
const internet = { inet: [0, 6, 17, 1], inet6: [0, 6, 17, 58] } as const;

const words = (text: string): string[] => text.trim().split(/\s+/);

export const allowedCalls: readonly string[] = words(`
  accept accept4 access alarm bind brk capget capset chdir chmod chown clock_getres clock_gettime
  clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
  epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit
  exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat
  fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate
  futex futex_waitv futex_wait futex_wake futex_requeue futimesat getcpu getcwd getdents getdents64
  getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority
  getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt get_robust_list
  get_thread_area gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1
  inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioprio_get
  ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link
  linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create
  mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect
  mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
  munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
  pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev
  pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg removexattr rename renameat
  renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
  rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr
  sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
  sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl
  semget semop semtimedop sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer
  setpgid setpriority setregid setresgid setresuid setreuid setrlimit set_robust_list setsid setsockopt
  set_thread_area set_tid_address setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd
  signalfd4 splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
  timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
  timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork wait4
  waitid write writev`);

/** Refused by name with EPERM. The list is a golden test: what leaves it is a decision. */
export const refusedCalls: readonly string[] = words(`
  acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init fanotify_mark
  finit_module fsconfig fsmount fsopen fspick get_mempolicy init_module io_uring_enter io_uring_register
  io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind memfd_secret
  migrate_pages modify_ldt mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl
  open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise process_mrelease
  process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot remap_file_pages request_key
  set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon sysfs
  syslog umount2 unshare uselib userfaultfd ustat vhangup vmsplice`);

/**
 * Requests of ioctl refused with EPERM. TIOCSTI types into the terminal that a program was started
 * from, so that whoever runs something hostile in `exec -it` types its commands themselves, with their
 * own rights; TIOCLINUX does the same by a console's selection; TIOCSETD brings in line disciplines,
 * rare kernel code for serial lines.
 */
export const refusedRequests = { TIOCSTI: 0x5412, TIOCLINUX: 0x541c, TIOCSETD: 0x5423 } as const;

/**
 * Masks and values that together every 32-bit number fits but these: at each bit where the number
 * turns off the way to all of them, what comes after is free. Rules that allow, each for a part of
 * the numbers, mean the same in any order; libseccomp promises none.
 */
function otherThan(numbers: readonly number[], bit = 31): { mask: number; value: number }[] {
  if (numbers.length === 0) return [{ mask: 0, value: 0 }];
  if (bit < 0) return [];
  const weight = 2 ** bit;
  return [0, weight].flatMap((half) =>
    otherThan(
      numbers.filter((number) => Math.floor(number / weight) % 2 === half / weight),
      bit - 1,
    ).map(({ mask, value }) => ({ mask: mask + weight, value: value + half })),
  );
}

/** Personalities that change nothing for anybody else: Linux, its 2.6 disguise, and asking. */
const personalities = [0x0, 0x0008, 0x20000, 0x20008, 0xffffffff];

export function seccompProfile(arch: NodeJS.Architecture = process.arch): SeccompProfile {
  const architecture = new Map([
    ['x64', 'SCMP_ARCH_X86_64'],
    ['arm64', 'SCMP_ARCH_AARCH64'],
  ]).get(arch);
  if (!architecture) throw new Error(`No system call list for ${arch}; x64 and arm64 have one.`);
  const allow = (names: string[], ...args: NonNullable<SeccompRule['args']>): SeccompRule => ({
    names,
    action: 'SCMP_ACT_ALLOW',
    ...(args.length > 0 ? { args } : {}),
  });
  const refuse = (names: string[]): SeccompRule => ({
    names,
    action: 'SCMP_ACT_ERRNO',
    errnoRet: EPERM,
  });
  const equal = (index: number, value: number) => ({ index, value, op: 'SCMP_CMP_EQ' }) as const;
  // The kernel reads 32 bits of the request, whatever a program has put above them.
  const request = (value: number, mask = 0xffffffff) =>
    ({ index: 1, value: mask, valueTwo: value, op: 'SCMP_CMP_MASKED_EQ' }) as const;
  const refused = Object.values(refusedRequests);
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: ENOSYS,
    architectures: [architecture],
    syscalls: [
      allow([...allowedCalls, ...(arch === 'x64' ? ['arch_prctl'] : [])]),
      allow(['socket'], equal(0, family.unix)),
      ...internet.inet.map((protocol) =>
        allow(['socket'], equal(0, family.inet), equal(2, protocol)),
      ),
      ...internet.inet6.map((protocol) =>
        allow(['socket'], equal(0, family.inet6), equal(2, protocol)),
      ),
      allow(['socket'], equal(0, family.netlink), equal(2, NETLINK_ROUTE)),
      allow(['socketpair'], equal(0, family.unix)),
      allow(['clone'], { index: 0, value: cloneNamespaces, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }),
      ...personalities.map((value) => allow(['personality'], equal(0, value))),
      ...otherThan(refused).map(({ mask, value }) => allow(['ioctl'], request(value, mask))),
      ...refused.map((value) => ({ ...refuse(['ioctl']), args: [request(value)] })),
      refuse([...refusedCalls]),
      // Its flags are behind a pointer, where no filter can look: ENOSYS sends libc back to clone.
      { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
    ],
  };
}
