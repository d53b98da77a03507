import { readFileSync } from 'node:fs';
import type * as Oci from '../oci-config.ts';
import { MS_NODEV, MS_NOSUID } from '../syscalls.ts';
import type * as Syscalls from '../syscalls.ts';

/**
 * Containers with one wall taken out, for the controls of the attack suite. Production code has no
 * door for this: a spec replaces the modules `oci-config.ts` by `weakened(...)` and `syscalls.ts` by
 * `withoutFlags(...)` in its own process.
 */
export type Wall =
  | 'seccomp'
  | 'capabilities'
  | 'no-new-privileges'
  | 'userns'
  | 'ipcns'
  | 'masks'
  | 'readonly'
  | 'cgroup-read-only'
  | 'devices'
  | 'nodev'
  | 'nosuid';

interface Config {
  process: { capabilities: Record<string, string[]>; noNewPrivileges: boolean };
  mounts: { type: string; destination: string; options: string[] }[];
  linux: {
    namespaces: { type: string }[];
    resources: { devices: unknown };
    seccomp?: unknown;
    maskedPaths: string[];
    readonlyPaths: string[];
  };
}

/** Those that matter to the attacks, as far as this process has them to give. */
function given(): string[] {
  const bounding = BigInt(
    `0x${/^CapBnd:\s+(\w+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]}`,
  );
  const bits = {
    CAP_DAC_READ_SEARCH: 2,
    CAP_NET_ADMIN: 12,
    CAP_NET_RAW: 13,
    CAP_SYS_CHROOT: 18,
    CAP_SYS_ADMIN: 21,
    CAP_MKNOD: 27,
  };
  return Object.entries(bits)
    .filter(([, bit]) => (bounding >> BigInt(bit)) & 1n)
    .map(([name]) => name);
}

/** Flags of the root file system's mount. */
const mountFlags = { nodev: MS_NODEV, nosuid: MS_NOSUID } as const;

const remove: Record<Exclude<Wall, keyof typeof mountFlags>, (config: Config) => void> = {
  seccomp: (config) => delete config.linux.seccomp,
  capabilities: (config) => {
    for (const set of ['bounding', 'effective', 'permitted'])
      config.process.capabilities[set]?.push(...given());
  },
  'no-new-privileges': (config) => (config.process.noNewPrivileges = false),
  devices: ({ linux }) => (linux.resources.devices = [{ allow: true, access: 'rwm' }]),
  userns: ({ linux }) => {
    linux.namespaces = linux.namespaces.filter((namespace) => namespace.type !== 'user');
  },
  ipcns: ({ linux }) => {
    linux.namespaces = linux.namespaces.filter((namespace) => namespace.type !== 'ipc');
  },
  'cgroup-read-only': ({ mounts }) => {
    for (const mount of mounts)
      if (mount.type === 'cgroup') mount.options = mount.options.filter((each) => each !== 'ro');
  },
  masks: (config) => (config.linux.maskedPaths = []),
  readonly: (config) => (config.linux.readonlyPaths = []),
};

/** Walls that the container of this id is made without; others are whole. */
export const wallsRemoved = new Map<string, readonly Wall[]>();

const isMountFlag = (wall: Wall): wall is keyof typeof mountFlags => wall in mountFlags;

export const weakened = (real: typeof Oci): typeof Oci => ({
  ...real,
  ociConfig: (input) => {
    const config = structuredClone(real.ociConfig(input)) as Config;
    for (const wall of wallsRemoved.get(input.id) ?? [])
      if (!isMountFlag(wall)) remove[wall](config);
    return config;
  },
});

export const withoutFlags = (real: typeof Syscalls): typeof Syscalls => ({
  ...real,
  mount: (source, target, type, flags, data) => {
    const [, removed = []] = [...wallsRemoved].find(([id]) => target.includes(`/${id}/`)) ?? [];
    const without = type === 'overlay' ? removed.filter(isMountFlag) : [];
    real.mount(
      source,
      target,
      type,
      without.reduce((all, wall) => all & ~mountFlags[wall], flags),
      data,
    );
  },
});
