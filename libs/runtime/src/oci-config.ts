import { readFileSync } from 'node:fs';
import type { Resources } from '@bulkhead/protocol';
import { idsPerContainer } from './addresses.ts';
import { seccompProfile } from './seccomp.ts';

/** What a container's configuration is written from; every path is the host's. */
export interface OciInput {
  id: string;
  args: readonly string[];
  env: readonly string[];
  cwd: string;
  user: { uid: number; gid: number; additionalGids: readonly number[] };
  rootfs: string;
  idBase: number;
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

/** Hard limit on open files of this process: more cannot be given without CAP_SYS_RESOURCE. */
export function openFilesLimit(limits: string = readFileSync('/proc/self/limits', 'utf8')): number {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  return Math.min(hard === undefined || hard === 'unlimited' ? 65_536 : Number(hard), 65_536);
}

/** The OCI runtime configuration, complete. 1.0.2 is the newest version that crun 1.8 knows. */
export function ociConfig(input: OciInput): object {
  const { resources, user } = input;
  const mapping = [{ containerID: 0, hostID: input.idBase, size: idsPerContainer }];
  const files = openFilesLimit();
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
      rlimits: [
        { type: 'RLIMIT_NOFILE', hard: files, soft: files },
        { type: 'RLIMIT_CORE', hard: 0, soft: 0 },
      ],
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
      })),
      uidMappings: mapping,
      gidMappings: mapping,
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
