import type { Addresses } from './addresses.ts';
import type { Cgroups } from './cgroups.ts';
import type { WritableLayers } from './disk.ts';
import type { Firewall } from './firewall.ts';
import type { Images } from './images.ts';
import type { LogRotations } from './log-rotations.ts';
import type { ContainerStore } from './state.ts';
import type { SlotPool } from './userns.ts';

/** The parts of one host's runtime, made once and used by every verb. */
export interface Host {
  readonly addresses: Addresses;
  readonly cgroups: Cgroups;
  /** Parent of the tenants' cgroups. */
  readonly cgroup: string;
  readonly firewall: Firewall;
  readonly images: Images;
  readonly rotations: LogRotations;
  readonly store: ContainerStore;
  readonly slots: SlotPool;
  /** Finds out how this host limits writable layers; `layers` throws before. */
  readonly openLayers: () => Promise<void>;
  readonly layers: () => WritableLayers;
  readonly bootId: string;
  /** Absolute paths of the programs. */
  readonly crun: string;
  readonly conmon: string;
  /** Null: not installed, and nothing can be copied into or out of containers. */
  readonly busybox: string | null;
  /** How long the two may take to make a container. */
  readonly createDeadlineMs: number;
  readonly dirs: {
    readonly crun: string;
    readonly exits: string;
    readonly sockets: string;
    readonly scratch: string;
  };
}

export const tenantCgroup = (host: Host, tenantId: string): string => `${host.cgroup}/${tenantId}`;

export const containerCgroup = (host: Host, of: { tenantId: string; id: string }): string =>
  `${tenantCgroup(host, of.tenantId)}/${of.id}`;

/** Where conmon processes live: outside the agent's cgroup, so that stopping that one spares them. The dot keeps it apart from tenants. */
export const conmonCgroup = (host: Host): string => `${host.cgroup}/.conmon`;

/** What a container's first process waits on before it runs the command; gone once it was let go. */
export const startFifo = (host: Host, id: string): string => `${host.dirs.crun}/${id}/exec.fifo`;
