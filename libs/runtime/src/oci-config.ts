import { readFileSync } from 'node:fs';
import type { Resources } from '@bulkhead/protocol';
import { seccompProfile } from './seccomp.ts';

/** What a container's configuration is written from; every path is the host's. */
export interface OciInput {
  id: string;
  args: readonly string[];
  env: readonly string[];
  cwd: string;
  user: { uid: number; gid: number; additionalGids: readonly number[] };
  rootfs: string;
  /** The user namespace that maps its ids. */
  usernsPath: string;
  /** Relative to the cgroup roots, without a leading slash. */
  cgroupPath: string;
  resources: Resources;
  readOnlyRoot: boolean;
  /** Directory with `hosts`, `hostname` and `resolv.conf`. */
  etc: string;
  /** A static busybox; null: this host has none. */
  busybox: string | null;
}

/** Where the platform's own programs for copies and waiting are inside; any image may lack them. */
export const busyboxInside = '/dev/busybox';

/** Root's capabilities inside: enough for servers that bind low ports and drop their rights, nothing that reaches the kernel's rarer code. */
export const capabilities = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_NET_BIND_SERVICE',
  'CAP_SETGID',
  'CAP_SETUID',
] as const;

export const maskedPaths = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/cmdline',
  '/proc/config.gz',
  '/proc/diskstats',
  '/proc/interrupts',
  '/proc/kallsyms',
  '/proc/kcore',
  '/proc/keys',
  '/proc/key-users',
  '/proc/latency_stats',
  '/proc/modules',
  '/proc/partitions',
  '/proc/sched_debug',
  '/proc/schedstat',
  '/proc/scsi',
  '/proc/softirqs',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/vmallocinfo',
  '/sys/block',
  '/sys/class/block',
  '/sys/class/dmi',
  '/sys/dev/block',
  '/sys/devices/virtual/block',
  '/sys/devices/virtual/dmi',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
  '/sys/fs/selinux',
  '/sys/kernel',
  '/sys/module',
  '/sys/power',
];

export const readonlyPaths = [
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
];

const safe = ['nosuid', 'noexec', 'nodev'];

/**
 * The most of what cgroups do not count, by what the kernel calls each in /proc. Set for every
 * process, so that none has it from whoever started the agent. Processes are their cgroup's, at most
 * half as many; here they only must not meet a lower limit first.
 */
const mostPerProcess = {
  RLIMIT_NOFILE: ['open files', 65_536],
  RLIMIT_NPROC: ['processes', 65_536],
  // Threads that change their user are told of it by signals that queue.
  RLIMIT_SIGPENDING: ['pending signals', 65_536],
  // What is locked is charged to the container and cannot be reclaimed: Linux' own default.
  RLIMIT_MEMLOCK: ['locked memory', 8 * 1024 * 1024],
  RLIMIT_CORE: ['core file size', 0],
  // Seccomp refuses the calls.
  RLIMIT_MSGQUEUE: ['msgqueue size', 0],
  // Ahead of others, up to the platform, is nobody's place.
  RLIMIT_NICE: ['nice priority', 0],
  RLIMIT_RTPRIO: ['realtime priority', 0],
} as const;

/** No more than this process may have: that cannot be given without CAP_SYS_RESOURCE. */
export function processLimits(limits: string = readFileSync('/proc/self/limits', 'utf8')) {
  return Object.entries(mostPerProcess).map(([type, [name, most]]) => {
    const hard = new RegExp(`^Max ${name}\\s+\\S+\\s+(\\d+)`, 'm').exec(limits)?.[1];
    const given = Math.min(hard === undefined ? Infinity : Number(hard), most);
    return { type, hard: given, soft: given };
  });
}

/** The OCI runtime configuration, complete. 1.0.2 is the newest version that crun 1.8 knows. */
export function ociConfig(input: OciInput): object {
  const { resources, user } = input;
  const memory = resources.memoryMiB * 1024 * 1024;
  // Only root has them, and never more than the bounding set: no-new-privileges closes the other ways.
  const held = user.uid === 0 ? [...capabilities] : [];
  const bind = (name: string) => ({
    destination: `/etc/${name}`,
    type: 'bind',
    source: `${input.etc}/${name}`,
    options: ['bind', 'ro', ...safe],
  });
  return {
    ociVersion: '1.0.2',
    hostname: input.id,
    root: { path: input.rootfs, readonly: input.readOnlyRoot },
    process: {
      terminal: false,
      user: {
        uid: user.uid,
        gid: user.gid,
        umask: 0o022,
        additionalGids: [...user.additionalGids],
      },
      args: [...input.args],
      env: [...input.env],
      cwd: input.cwd,
      capabilities: {
        bounding: held,
        effective: held,
        permitted: held,
        inheritable: [],
        ambient: [],
      },
      rlimits: processLimits(),
      noNewPrivileges: true,
      // When the whole machine is short of memory, tenants' processes go before the platform's.
      oomScoreAdj: 500,
    },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: safe },
      // Always a fresh one, whatever the image has there (CVE-2026-88264).
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'noexec', 'strictatime', 'mode=755', 'size=64k'],
      },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
      },
      {
        destination: '/dev/shm',
        type: 'tmpfs',
        source: 'shm',
        options: [...safe, 'mode=1777', 'size=64m'],
      },
      // Of the host, and nobody's to write: all ids of the host are strangers inside.
      ...(input.busybox === null
        ? []
        : [
            {
              destination: busyboxInside,
              type: 'bind',
              source: input.busybox,
              options: ['bind', 'ro', 'nosuid', 'nodev'],
            },
          ]),
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...safe, 'ro'] },
      // Language runtimes read their limits here to size heaps and thread pools.
      {
        destination: '/sys/fs/cgroup',
        type: 'cgroup',
        source: 'cgroup',
        options: [...safe, 'relatime', 'ro'],
      },
      // Charged to the container's memory like /dev/shm; the size says "full" before that kills.
      ...(input.readOnlyRoot
        ? [
            {
              destination: '/tmp',
              type: 'tmpfs',
              source: 'tmpfs',
              options: ['nosuid', 'nodev', 'mode=1777', `size=${tmpMiB(resources)}m`],
            },
          ]
        : []),
      bind('hosts'),
      bind('hostname'),
      bind('resolv.conf'),
    ],
    linux: {
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount', 'user', 'cgroup'].map((type) => ({
        type,
        ...(type === 'user' && { path: input.usernsPath }),
      })),
      cgroupsPath: `/${input.cgroupPath}`,
      resources: {
        devices: [{ allow: false, access: 'rwm' }],
        // Those that must stand before the first process; cgroup-limits.ts writes them and the rest.
        memory: { limit: memory, swap: memory },
        pids: { limit: resources.pids },
      },
      seccomp: seccompProfile(),
      maskedPaths,
      readonlyPaths,
    },
  };
}

/** /tmp of a read-only container: at most half of its memory. */
const tmpMiB = (resources: Resources): number => Math.min(64, Math.floor(resources.memoryMiB / 2));
