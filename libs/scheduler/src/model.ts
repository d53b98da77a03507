/**
 * What the scheduler is told and what it answers: plain data, so that a run can be written down and
 * replayed. Amounts are whole numbers: thousandths of a core, MiB, instances.
 */

export const resourceNames = ['cpuMillis', 'memoryMiB', 'diskMiB', 'instances'] as const;
export type ResourceName = (typeof resourceNames)[number];
export type Amounts = Readonly<Record<ResourceName, number>>;

/** A host as the snapshot saw it. */
export interface NodeSnapshot {
  readonly id: string;
  readonly pool: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: 'joining' | 'ready' | 'suspect' | 'lost';
  readonly cordoned: boolean;
  /** What the host has; the pool's overcommit is not in it. */
  readonly capacity: Amounts;
  /** Sum of the requests of all instances on it that are not proven gone, and of all that have a claim on it. */
  readonly used: Amounts;
  /** Digests of images that it holds. */
  readonly images: readonly string[];
  /** Process -> instances of it on this node that are not proven gone; those that are asked for will do. */
  readonly processes: Readonly<Record<string, number>>;
}

/** The label that names a node's failure zone; nodes without it share one. */
export const zoneLabel = 'zone';

export interface PoolPolicy {
  /** Reserved CPU may reach this many times the cores. Memory and disk are never promised twice. */
  readonly cpuOvercommit: number;
}

export interface Snapshot {
  readonly nodes: readonly NodeSnapshot[];
  /** Pools without an entry have `defaultPoolPolicy`. */
  readonly pools: Readonly<Record<string, PoolPolicy>>;
}

/** Most apps sleep most of the time: four reserved cores share one. */
export const defaultPoolPolicy: PoolPolicy = { cpuOvercommit: 4 };

/** One instance that needs a node. */
export interface Want {
  readonly id: string;
  /** What it is counted with for spread and limits: a process of an app, in words that are equal for no other. */
  readonly process: string;
  readonly needs: {
    readonly cpuMillis: number;
    readonly memoryMiB: number;
    readonly diskMiB: number;
  };
  /** Digest of its image. */
  readonly image: string;
  readonly pool: string;
  /** Labels that the node must carry with exactly these values. */
  readonly labels: Readonly<Record<string, string>>;
  /** Most instances of its process on one node; null: as many as fit. */
  readonly mostPerNode: number | null;
  /** The greater goes first, and may take the room of the lesser (`preempt`). */
  readonly priority: number;
  /** The node on which room is being made for it; null: none. */
  readonly claim: string | null;
}

/** An instance that may have to make room, or that is on its way out. */
export interface Occupant {
  readonly id: string;
  readonly node: string;
  readonly priority: number;
  readonly needs: Want['needs'];
  /** It has been told to end: its room will be free without more being done. */
  readonly leaving: boolean;
}

/** Room that is made for a want: when the victims are gone, and what leaves anyway, it fits there. */
export interface Claim {
  readonly want: string;
  readonly node: string;
  readonly victims: readonly string[];
}

export const ruleNames = ['ready', 'cordon', 'pool', 'labels', 'perNode', 'capacity'] as const;
export type RuleName = (typeof ruleNames)[number];

export interface Placement {
  readonly want: string;
  readonly node: string;
}

/** "No", with its reason. `message` is for tenants: it names no node. */
export interface Refusal {
  readonly want: string;
  /** The rule to look at first: capacity when anything but room was right somewhere. */
  readonly rule: RuleName;
  readonly message: string;
  /** How many nodes each rule turned away, counted at the first rule that did. */
  readonly turnedAway: Readonly<Partial<Record<RuleName, number>>>;
  /** The node that lacks least, when only room was missing. */
  readonly nearestMiss: NearestMiss | null;
}

export interface NearestMiss {
  readonly node: string;
  readonly resource: ResourceName;
  readonly needs: number;
  readonly free: number;
}

/** Every want is in exactly one of the two lists. */
export interface Plan {
  readonly placements: readonly Placement[];
  readonly refusals: readonly Refusal[];
}
