import { z } from 'zod';

export const nodeCapacity = z.object({
  cpuMillis: z.number().int().min(0),
  memoryMiB: z.number().int().min(0),
  diskMiB: z.number().int().min(0),
  maxInstances: z.number().int().min(0),
});
export type NodeCapacity = z.infer<typeof nodeCapacity>;

/** What `bulkhead nodes info` shows of a host. */
export const nodeFacts = z.object({
  hostname: z.string(),
  kernel: z.string(),
  os: z.string(),
  cgroup: z.enum(['v1', 'hybrid', 'v2']),
  crun: z.string(),
  conmon: z.string(),
  /** Which way the disk limit of the writable layer is enforced here. */
  diskLimit: z.enum(['btrfs', 'none']),
  /** Room for all writable layers, set aside; null: whatever the disk has. */
  diskPoolMiB: z.number().int().min(0).nullable().default(null),
  /** Walls between tenants that this host lacks and was told to run without; agents from before doctor tell none. */
  missingWalls: z.array(z.string().max(64)).max(32).default([]),
});
export type NodeFacts = z.infer<typeof nodeFacts>;

/** Plain NATS on `heartbeat.<node>`, every 2 seconds. Nothing is lost when one is. */
/** What the host as a whole uses now, containers and all. */
export const nodeUse = z.object({
  /** Thousandths of a core, since the heartbeat before. */
  cpuMillis: z.number().int().min(0),
  /** Without what can be dropped at once. */
  memoryMiB: z.number().int().min(0),
  /** Of the pool of writable layers; null where there is none. */
  diskMiB: z.number().int().min(0).nullable(),
  /** Average number of processes that run or want to, over a minute. */
  load: z.number().min(0),
});
export type NodeUse = z.infer<typeof nodeUse>;

export const heartbeat = z.object({
  v: z.literal(1),
  at: z.iso.datetime(),
  agentVersion: z.string(),
  capacity: nodeCapacity,
  facts: nodeFacts,
  /** Instances that this node holds. */
  instances: z.number().int(),
  /** Null in the first, and from agents of before. */
  use: nodeUse.nullable().default(null),
  /** Digests of images on the node, for placement; at most 200, most recently used first. */
  images: z.array(z.string()),
});
export type Heartbeat = z.infer<typeof heartbeat>;
