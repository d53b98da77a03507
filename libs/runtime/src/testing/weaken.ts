import { readFileSync } from 'node:fs';
import type * as Oci from '../oci-config.ts';

/**
 * Containers with one wall taken out, for the controls of the attack suite. Production code has no
 * door for this: a spec replaces the module `oci-config.ts` by `weakened(...)` in its own process.
 */
export type Wall =
  'seccomp' | 'capabilities' | 'userns' | 'ipcns' | 'masks' | 'readonly' | 'cgroup-read-only';

interface Config {
  process: { capabilities: Record<string, string[]> };
  mounts: { type: string; destination: string; options: string[] }[];
  linux: {
    namespaces: { type: string }[];
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

const remove: Record<Wall, (config: Config) => void> = {
  seccomp: (config) => delete config.linux.seccomp,
  capabilities: (config) => {
    for (const set of ['bounding', 'effective', 'permitted'])
      config.process.capabilities[set]?.push(...given());
  },
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

export const weakened = (real: typeof Oci): typeof Oci => ({
  ...real,
  ociConfig: (input) => {
    const config = structuredClone(real.ociConfig(input)) as Config;
    for (const wall of wallsRemoved.get(input.id) ?? []) remove[wall](config);
    return config;
  },
});
