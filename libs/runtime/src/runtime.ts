import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type {
  FileChange,
  ImageConfig,
  NodeFacts,
  Resources,
  TenantLimits,
  TerminalSize,
} from '@bulkhead/protocol';
import type { CgroupUse, Throttling } from './cgroups.ts';

/** Everything that a container is made from. Complete: the runtime asks nobody else. */
export interface ContainerSpec {
  /** Instance id: name of the container, its cgroup and its host name. */
  id: string;
  /** Names the cgroup above the container's. */
  tenantId: string;
  /** An image that `ensureImage` brought. */
  image: { repository: string; digest: string; config: ImageConfig };
  /** Replaces the image's entrypoint and command when set. */
  command: readonly string[] | null;
  /** Complete environment, without the image's own. Held in memory and in the container's bundle (mode 0600) only. */
  env: Readonly<Record<string, string>>;
  resources: Resources;
  /** Of the tenant's cgroup on this host; with the latest start or update they hold for all its containers. */
  tenantLimits: TenantLimits;
  /** Only /tmp, in memory, can be written. */
  readOnlyRoot: boolean;
  /** Its first process only waits, until it is stopped; what it is for comes by `exec`. `command` is not run. */
  idle: boolean;
}

/** A container as found on this host, by looking and not by remembering. */
export interface ContainerStatus {
  id: string;
  tenantId: string;
  /** `created`: made, not started. `paused`: runs, held still. `stopped`: its process ended, its remains wait for `remove`. */
  state: 'created' | 'running' | 'paused' | 'stopped';
  pid: number | null;
  /** Its address on the node's container network. */
  address: string;
  startedAt: Date | null;
  /** Set when stopped. */
  exit: ContainerExit | null;
}

export interface ContainerExit {
  exitCode: number | null;
  signal: string | null;
  oomKilled: boolean;
  /** It ended with another code than 0 while its writable layer was at its limit. */
  diskFull: boolean;
  /** It ended with its host: nothing it did, and nobody knows more. */
  rebooted: boolean;
  at: Date;
}

/** How a command in a container ended. */
export interface CheckResult {
  /** `refused`: the command cannot be run in this container. `not-run`: it was not tried, or the host failed; says nothing of the container. */
  outcome: 'ended' | 'timed-out' | 'refused' | 'not-run';
  /** Set when it ended. A signal is 128 and its number. */
  exitCode: number | null;
  /** The end of what it wrote, at most some KiB; when it did not run, why. */
  output: string;
}

export interface ExecOptions {
  readonly command: readonly string[];
  /** Whether it gets a standard input; with a terminal it has one in any case. */
  readonly stdin: boolean;
  readonly terminal: { readonly term: string; readonly size: TerminalSize } | null;
  /** As the container's root, whoever its own process is. */
  readonly asRoot?: boolean;
}

/** A command that runs in a container. */
export interface Exec {
  /** Null without one. Ending it is the end of the input, but for a terminal's. */
  readonly stdin: Writable | null;
  readonly stdout: Readable;
  /** Null with a terminal: all of it comes by `stdout`. */
  readonly stderr: Readable | null;
  /**
   * Its exit code, 128 and the number for a signal, when nothing of it or of what it started is left.
   * Rejects with RuntimeError `exec-refused` when it cannot be run.
   */
  readonly end: Promise<number>;
  resize(size: TerminalSize): void;
  /** Sends a signal, by name, to it and what it started. */
  signal(name: string): void;
  /** Nobody listens any more: SIGHUP, and soon after SIGKILL. */
  hangUp(): void;
}

/** A tar archive on its way; `end` rejects with RuntimeError `file-not-found`, `out-of-disk` or `copy-failed`. */
export interface CopyOut {
  readonly archive: Readable;
  readonly end: Promise<void>;
  cancel(): void;
}
export interface CopyIn {
  readonly archive: Writable;
  readonly end: Promise<void>;
  cancel(): void;
}

/** What a container has used since its start, and holds. */
export interface ContainerUse extends CgroupUse {
  receivedBytes: number;
  sentBytes: number;
  /** Of its writable layer; null where nothing is counted. */
  disk: { bytes: number; limit: number } | null;
}

/** Why a container or an image could not be had; `message` is written for the tenant, without host paths. */
export class RuntimeError extends Error {
  override readonly name = 'RuntimeError';
  readonly reason:
    | 'image-not-found'
    | 'image-unauthorised'
    | 'image-wrong-platform'
    | 'image-corrupt'
    | 'image-no-space'
    | 'registry-unreachable'
    | 'image-pull-failed'
    | 'no-command'
    | 'command-not-found'
    | 'out-of-addresses'
    | 'out-of-disk'
    | 'limit-refused'
    | 'not-running'
    | 'exec-refused'
    | 'file-not-found'
    | 'copy-failed'
    | 'port-refused'
    | 'start-failed';
  constructor(reason: RuntimeError['reason'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

/**
 * Containers of one host. Every verb is idempotent and may be killed at any point: the next call,
 * or `reconcile`, finishes or undoes it. Containers live on without the process that made them.
 */
export interface ContainerRuntime {
  /** Makes the host ready (cgroup parents, nftables table, id and address allocators) and removes what crashed calls left behind. Call once, before anything else. */
  reconcile(): Promise<void>;
  /**
   * Pulls by digest, once however many ask; throws RuntimeError `image-*` or `registry-unreachable`.
   * `onProgress` is called only when there is something to pull: with null at first, then about once
   * a second when it takes long. What was asked for stays until a start has had time to come.
   */
  ensureImage(
    image: { repository: string; digest: string },
    onProgress?: (progress: PullProgress | null) => void,
  ): Promise<void>;
  /** Digests present, most recently used first. */
  listImages(): Promise<string[]>;
  /** Makes and starts; on return its process runs with network and limits in place. Returns the present status when it runs already. */
  start(spec: ContainerSpec): Promise<ContainerStatus>;
  /**
   * Changes the limits of a container, while it runs, and of its tenant; succeeds when it does not
   * run, since a start brings its own. Throws RuntimeError `limit-refused` when it uses more memory
   * than it is to have; a start anew is then the way.
   */
  update(id: string, resources: Resources, tenantLimits: TenantLimits): Promise<void>;
  find(id: string): Promise<ContainerStatus | null>;
  list(): Promise<ContainerStatus[]>;
  /** Resolves when the container's process has ended, at once if it has. Works for containers started by an earlier agent. */
  waitExit(id: string, signal: AbortSignal): Promise<ContainerExit>;
  /** The image's stop signal (SIGTERM by default), and SIGKILL for everything in the cgroup after `graceSeconds`. Succeeds when it is gone. */
  stop(id: string, graceSeconds: number): Promise<void>;
  /** Holds all its processes still until `resume`; the kernel keeps that, whoever dies. Nothing happens to one that does not run. */
  pause(id: string): Promise<void>;
  resume(id: string): Promise<void>;
  /**
   * Runs a command beside the container's process, as that process is: user, variables, limits,
   * walls. Resolves with its end; after `timeoutMs` it is killed with all that it started, as is
   * what it leaves behind. One at a time per container.
   */
  check(id: string, command: readonly string[], timeoutMs: number): Promise<CheckResult>;
  /**
   * Runs a command beside the container's process, as that process is. Any number at a time. Throws
   * RuntimeError `not-running`, also for one that is paused.
   */
  exec(id: string, options: ExecOptions): Promise<Exec>;
  /** A file or directory as a tar archive, its names beginning with the last part of `path`. Throws as `exec`. */
  copyOut(id: string, path: string): Promise<CopyOut>;
  /** Unpacks a tar archive into the directory `path`. Throws as `exec`. */
  copyIn(id: string, path: string): Promise<CopyIn>;
  /** Whether there is a directory at `path`, links followed. Throws as `exec`. */
  isDirectory(id: string, path: string): Promise<boolean>;
  /** Files that differ from the image's, as `docker diff` tells them. Throws RuntimeError `not-running`. */
  changes(id: string): AsyncIterable<FileChange>;
  /** Of its present run; null when it does not run. */
  limits(id: string): Resources | null;
  /** Null when it does not run. */
  use(id: string): ContainerUse | null;
  /** A TCP connection to a port inside. Throws RuntimeError `not-running` or `port-refused`. */
  connect(id: string, port: number): Promise<Socket>;
  /** Kills if need be and removes every trace: cgroup, interface, address, id range, writable layer, logs. */
  remove(id: string): Promise<void>;
  /**
   * Lines since `cursor` (opaque; null: from the oldest kept) of the container's output, across its
   * restarts. `lostBytes`: about so much between the cursor, or the very first line, and the first of
   * these lines is no longer kept.
   */
  readLogs(
    id: string,
    cursor: string | null,
    limit: number,
  ): Promise<{ lines: ContainerLogLine[]; cursor: string; lostBytes: number }>;
  /**
   * Calls `onChange` soon after the container wrote output or its log was rotated, by inotify; the
   * answer ends it. Optional: an agent without it polls, which costs a thousand idle containers more.
   */
  watchLogs?(id: string, onChange: () => void): () => void;
  /** What the host is; which of its walls are missing is for whoever examined it to add. */
  facts(): Promise<HostFacts>;
  /** Bytes that the container's writable layer takes (as of the last commit, some seconds) and may take; null when nothing is counted. */
  diskUsage(id: string): Promise<{ bytes: number; limit: number } | null>;
  /** Room set aside for writable layers, bytes; null when there is no pool. */
  diskPool(): { bytes: number; usedBytes: number } | null;
  /** What the host's runtime holds, for metrics. */
  usage(): Promise<HostUsage>;
  /** What all containers together take, and what holds them back, for metrics. */
  load(): HostLoad;
  /** Who beside this host may connect to containers, and where those of other hosts are. */
  setFleet(places: FleetPlaces): Promise<void>;
  /** Removes everything this runtime ever made on this host: containers, cgroup parents, nftables table, interfaces. For `npm run down`. */
  destroy(): Promise<void>;
}

/** Of the other hosts; addresses are IPv4. */
export interface FleetPlaces {
  /** Hosts with an edge: they alone may connect to containers. */
  readonly edges: readonly string[];
  /** Networks of containers, and the hosts that they are on. */
  readonly places: readonly { readonly address: string; readonly network: string }[];
}

/** How far a pull has come. Bytes are those of the compressed layers. */
export interface PullProgress {
  layersDone: number;
  layersTotal: number;
  bytesDone: number;
  bytesTotal: number;
}

export type HostFacts = Omit<NodeFacts, 'missingWalls'>;

export interface HostUsage {
  images: {
    count: number;
    /** Unpacked layers, each counted once. */
    bytes: number;
    /** File system that holds them. */
    disk: { size: number; used: number };
  };
  /** A slot is what one container has of addresses, ids and interfaces. */
  /** `resting`: given up lately, and not to be handed out yet while there is another. */
  slots: { used: number; resting: number; total: number };
}

export interface HostLoad {
  /** Of all containers and their conmons. */
  use: CgroupUse | null;
  /**
   * By the caps of instances and of tenants, since this runtime began. Only what is there at a look
   * is added up: what came and went between two is not in it.
   */
  throttling: Readonly<Record<'instance' | 'tenant', Throttling>>;
  /** How long something on the machine (`some`), or all that could have run (`full`), waited for a resource; empty where the kernel does not tell. */
  pressure: readonly Pressure[];
}

export interface Pressure {
  resource: 'cpu' | 'memory' | 'io';
  kind: 'some' | 'full';
  seconds: number;
}

/** What operators count. */
export type RuntimeEvent =
  /** `bytes` came over the wire. */
  | { type: 'image-pulled'; seconds: number; bytes: number }
  | { type: 'image-pull-failed'; reason: RuntimeError['reason'] }
  | { type: 'images-removed'; images: number; bytes: number }
  /** Somebody changed or flushed our rules, and they are whole again. */
  | { type: 'firewall-healed' }
  /** Something that belonged to no container was found and is gone. */
  | { type: 'leak-removed'; kind: 'cgroup' | 'interface' | 'layer' | 'file' };

/** When images that nobody uses are removed. */
export interface WaterMarks {
  /** Share of the file system in use, in percent, from which on images are removed ... */
  highPercent: number;
  /** ... until so much is in use. */
  lowPercent: number;
  /** Of unpacked layers: never more than this, whatever the file system has; null: no such limit. */
  maxBytes: number | null;
}

export interface ContainerLogLine {
  at: Date;
  stream: 'stdout' | 'stderr';
  text: string;
}

export interface RuntimeOptions {
  /** Absolute; 0711 down to here. Holds images, containers and the allocators' state. */
  stateDir: string;
  /** Parent of all tenants' cgroups, relative to each controller's root. */
  cgroup: string;
  nftTable: string;
  /** Start of the names of host-side interfaces, at most 4 characters. */
  vethPrefix: string;
  /** IPv4 network of the containers in CIDR notation, a /16 to /24. */
  network: string;
  /** First host uid and gid handed out, a multiple of 65536. */
  idBase: number;
  /** Registries reached by plain http, as host:port. */
  insecureRegistries: readonly string[];
  /** containers-auth.json with the node's registry credentials, mode 0600. */
  registryAuthFile: string;
  /** Size of the pool of writable layers; undefined: half of the free space; 0: none, and no limits. Without meaning on a btrfs with quotas. */
  diskPoolMiB?: number;
  /** The whole time that a pull may take; 10 minutes when left out. */
  pullDeadlineMs?: number;
  /** How long conmon and crun may take to make a container; 30 seconds when left out. */
  createDeadlineMs?: number;
  /** 85 and 75 %, and no limit in bytes, when left out. */
  imageWaterMarks?: Partial<WaterMarks>;
  onEvent?: (event: RuntimeEvent) => void;
  /** Hears of failures that no caller waits for, such as rules that cannot be put back; they are tried again. */
  onProblem?: (what: string, error: unknown) => void;
}
