import { z } from 'zod';
import {
  defaultTenantLimits,
  healthCheck,
  imageConfig,
  resources,
  sha256Digest,
  tenantLimits,
} from './app-spec.ts';

export const instanceId = z.string().regex(/^i[a-z0-9]{12}$/);
export const nodeId = z.string().regex(/^n[a-z0-9]{12}$/);

/**
 * What should run on a node: one value per key `<node>.<instance>` of the KV bucket `desired`.
 * Complete, so that a node needs nothing else. An agent refuses a generation older than the one it
 * holds. `gone` is the only way to make an agent remove an instance; a missing key means nothing.
 */
export const instanceSpec = z.discriminatedUnion('desired', [
  z.object({
    v: z.literal(1),
    desired: z.literal('gone'),
    instance: instanceId,
    generation: z.number().int().positive(),
    graceSeconds: z.number().int().min(0),
  }),
  z.object({
    v: z.literal(1),
    desired: z.literal('running'),
    instance: instanceId,
    generation: z.number().int().positive(),
    tenant: z.object({
      id: z.string(),
      slug: z.string(),
      limits: tenantLimits.default(defaultTenantLimits),
    }),
    app: z.object({ id: z.string(), name: z.string() }),
    process: z.string(),
    release: z.number().int(),
    /** Version that its container was made for, when only its sizes changed since; null: `release`. */
    madeRelease: z.number().int().nullable().default(null),
    image: z.object({
      /** registry/repository, without tag or digest. */
      repository: z.string(),
      digest: sha256Digest,
      config: imageConfig,
    }),
    command: z.array(z.string()).nullable(),
    port: z.number().int().nullable(),
    health: healthCheck.nullable(),
    resources,
    graceSeconds: z.number().int().min(0),
    readOnlyRoot: z.boolean().default(false),
    /** Held still as it is; when it is not there it is not started. */
    paused: z.boolean().default(false),
    /** Set for a one-off task: it runs once, is never started again, and ends in the state `ended`. */
    task: z.object({ terminal: z.boolean(), stdin: z.boolean() }).nullable().default(null),
    /** Compact JWE to the node's sealing key over a JSON object name -> value: the app's config. */
    sealedEnv: z.string(),
  }),
]);
export type InstanceSpec = z.infer<typeof instanceSpec>;
export type RunningSpec = Extract<InstanceSpec, { desired: 'running' }>;

/** States an agent can report, in the words of the Prisma enum InstanceState. */
export const reportedStates = [
  'pulling',
  'starting',
  /** The process runs, its health check has not passed yet. */
  'running',
  'ready',
  /** It was ready, and its check fails now. */
  'unready',
  /** Held still: neither checked nor restarted until it is resumed. */
  'paused',
  /** It ended and waits for its restart. */
  'backoff',
  /** It ended many times in a row without running well for a while in between; it is tried more and more rarely. */
  'crashloop',
  /** It cannot start and waiting does not help: image not found, no such command. */
  'failed',
  'stopping',
  /** A one-off task has run; how it ended is in `exit`. */
  'ended',
  /** Proven gone: nothing of it is left on the node. */
  'gone',
] as const;
export type ReportedState = (typeof reportedStates)[number];

/** How a process ended. `reason` tells apart what people ask about first. */
export const instanceExit = z.object({
  reason: z.enum([
    'exited',
    'signal',
    'oom',
    'disk-full',
    'health',
    'start-failed',
    'image-not-found',
    'image-unauthorised',
    'image-wrong-platform',
    'image-corrupt',
    /** The node's disk is full. */
    'image-no-space',
    'registry-unreachable',
    'image-pull-failed',
  ]),
  exitCode: z.number().int().nullable(),
  signal: z.string().nullable(),
  /** Written for the tenant; no host paths. */
  message: z.string(),
  /** At most 20, newest last. */
  lastLines: z.array(z.string()),
  at: z.iso.datetime(),
});
export type InstanceExit = z.infer<typeof instanceExit>;

/** Published by an agent to `report.<node>.<instance>` with every change of state. */
export const instanceReport = z.object({
  v: z.literal(1),
  instance: instanceId,
  generation: z.number().int(),
  /** Grows with every report of this node, over restarts too; older ones are ignored. Microseconds since 1970, made monotonic. */
  seq: z.number().int(),
  at: z.iso.datetime(),
  state: z.enum(reportedStates),
  /** Where the edge reaches it. */
  address: z.object({ host: z.string(), port: z.number().int() }).nullable(),
  restarts: z.number().int().min(0),
  message: z.string().nullable(),
  /** The last unasked-for end, kept until the instance has been ready again. */
  exit: instanceExit.nullable(),
});
export type InstanceReport = z.infer<typeof instanceReport>;
