/**
 * What the rollout planner sees: one app at one moment, as plain data. Times are milliseconds since
 * 1970 by PostgreSQL's clock, so that replicas with different clocks plan alike.
 */
import { z } from 'zod';
import { instanceExit, processDefinition, rolloutStrategy, routeBackend } from '@bulkhead/protocol';

export const instanceStates = [
  'pending',
  'assigned',
  'pulling',
  'starting',
  'running',
  'ready',
  'unready',
  'paused',
  'backoff',
  'crashloop',
  'failed',
  'stopping',
  'ended',
] as const;

const instance = z.object({
  id: z.string(),
  process: z.string(),
  releaseId: z.string(),
  /** What its release differs from in nothing but sizes. */
  family: z.string(),
  version: z.number(),
  /** Its node has taken on what is wanted of it now. */
  settled: z.boolean(),
  /** It came to its release by a change of sizes in place. */
  resized: z.boolean(),
  /** Its node has no room for other sizes. */
  outgrown: z.boolean(),
  deploymentId: z.string().nullable(),
  epoch: z.number(),
  nodeId: z.string().nullable(),
  /** The node has been silent for so long that its instances are replaced. */
  nodeLost: z.boolean(),
  /** Its node is being drained, or it moves to another: it is replaced before it stops. */
  leavesNode: z.boolean(),
  /** The node that its replacement should go to; null: any. */
  moveTo: z.string().nullable(),
  desired: z.enum(['running', 'draining', 'gone']),
  /** Its owner wants it held still. */
  paused: z.boolean(),
  /** Its node has been told to hold it. */
  frozen: z.boolean(),
  /** Instances that are proven gone are not in a snapshot. */
  state: z.enum(instanceStates),
  host: z.string().nullable(),
  port: z.number().nullable(),
  /** The edge asks it in HTTP/2. */
  http2: z.boolean(),
  restarts: z.number(),
  message: z.string().nullable(),
  lastExit: instanceExit.nullable(),
  drainRevision: z.number().nullable(),
  drainStartedAt: z.number().nullable(),
  createdAt: z.number(),
  stateAt: z.number(),
  readyAt: z.number().nullable(),
});
export type InstanceSnapshot = z.infer<typeof instance>;

/** A one-off task: the formation and the rollout know nothing of it. */
const task = z.object({
  id: z.string(),
  nodeId: z.string().nullable(),
  desired: z.enum(['running', 'draining', 'gone']),
  state: z.enum(instanceStates),
  stateAt: z.number(),
  deadlineAt: z.number(),
});
export type TaskSnapshot = z.infer<typeof task>;

const release = z.object({
  id: z.string(),
  family: z.string(),
  version: z.number(),
  imageReference: z.string(),
  processes: z.array(processDefinition),
});
export type ReleaseSnapshot = z.infer<typeof release>;

const deployment = z.object({
  id: z.string(),
  kind: z.enum(['deploy', 'config', 'scale', 'restart', 'rollback', 'stop', 'start', 'resize']),
  status: z.enum(['running', 'succeeded', 'failed', 'superseded']),
  fromReleaseId: z.string().nullable(),
  toReleaseId: z.string().nullable(),
  createdAt: z.number(),
  strategy: rolloutStrategy,
  /** How many of the strategy's gates it has passed. */
  step: z.number(),
  /** Since when it stands at the gate; null while it moves. */
  reachedAt: z.number().nullable(),
  /** The most progress that was seen, and when. */
  progress: z.number(),
  progressAt: z.number(),
  /** Always as long after progressAt. */
  deadlineAt: z.number(),
  /** Messages of its events so far. */
  said: z.array(z.string()),
});
export type DeploymentSnapshot = z.infer<typeof deployment>;

/** The part that PostgreSQL knows. */
export const storedApp = z.object({
  now: z.number(),
  id: z.string(),
  tenantId: z.string(),
  state: z.enum(['active', 'stopped', 'deleting']),
  epoch: z.number(),
  name: z.string(),
  tenantSlug: z.string(),
  /** The current release. */
  release: release.nullable(),
  /** What the newest deployment goes back to when it fails. */
  from: release.nullable(),
  /** Process -> count; may name processes that the release has not, and they count nothing. */
  formation: z.record(z.string(), z.number()),
  /** Of its processes. */
  instances: z.array(instance),
  tasks: z.array(task),
  /** The newest deployment, whatever became of it. */
  deployment: deployment.nullable(),
  routes: z.array(
    z.object({
      host: z.string(),
      state: z.enum(['serving', 'starting', 'stopped', 'crashed', 'paused']),
      revision: z.number(),
      backends: z.array(routeBackend),
      deleted: z.boolean(),
    }),
  ),
  /** Process -> instances that were gone within the last minute unasked and without ever being ready. */
  vanished: z.record(z.string(), z.number()),
});
export type StoredApp = z.infer<typeof storedApp>;

/** What the edges said about this app's host name. */
export interface EdgesSnapshot {
  /** False while we cannot tell which edges live: just started, or cut off from NATS. */
  readonly known: boolean;
  /** For each live edge the revision that it last said to serve by; null when it said nothing. */
  readonly applied: readonly (number | null)[];
}

export interface AppSnapshot extends StoredApp {
  /** The host name it should be reached by. */
  readonly host: string;
  readonly edges: EdgesSnapshot;
}

/** Whether every live edge serves by `revision` or a later one. */
export function allEdgesApplied(edges: EdgesSnapshot, revision: number): boolean {
  return edges.known && edges.applied.every((applied) => applied !== null && applied >= revision);
}
