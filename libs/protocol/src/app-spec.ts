import { z } from 'zod';
import { nodeLabels } from './labels.ts';

/** One DNS label: names of tenants, apps, processes and nodes. */
export const dnsLabel = z
  .string()
  .regex(
    /^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$/,
    'use 1 to 40 of a-z, 0-9 and -, starting with a letter, not ending with -',
  );

export const configName = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'use letters, digits and _, not starting with a digit');

export const sha256Digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);

const checkTimes = {
  intervalSeconds: z.number().min(0.1).max(300).default(2),
  timeoutSeconds: z.number().min(0.1).max(60).default(2),
  failureThreshold: z.number().int().min(1).max(100).default(3),
  /** Successes in a row until it is ready, also after it was not. */
  successThreshold: z.number().int().min(1).max(100).default(1),
  startupGraceSeconds: z.number().min(0).max(3600).default(30),
};

/** Decides readiness, and restarts after `failureThreshold` failures in a row. Times in seconds. */
export const healthCheck = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('http'), path: z.string().startsWith('/').max(1024), ...checkTimes }),
  z.object({ kind: z.literal('tcp'), ...checkTimes }),
  z.object({
    kind: z.literal('command'),
    /** Run in the container; it is well when the exit code is 0. */
    command: z.array(z.string().max(8192)).min(1).max(64),
    ...checkTimes,
    // A process for each check costs more than a request does.
    intervalSeconds: z.number().min(1).max(300).default(10),
    timeoutSeconds: z.number().min(0.1).max(60).default(5),
  }),
]);
export type HealthCheck = z.infer<typeof healthCheck>;

const MiB = 1024 * 1024;

/** What an instance may take. Fields with a default came later: releases stored before do not have them. */
export const resources = z.object({
  /** Reserved on the node and the CPU weight, in thousandths of a core. */
  cpuMillis: z.number().int().min(10).max(64_000),
  /** Hard cap, in thousandths of a core. */
  cpuCapMillis: z.number().int().min(10).max(64_000),
  /** Reserved and hard limit; swap is none. MiB. */
  memoryMiB: z.number().int().min(8).max(1_048_576),
  /** Most processes and threads. */
  pids: z.number().int().min(8).max(32_768),
  /** Reserved and hard limit of the writable layer: data, names and everything else in it. MiB. */
  diskMiB: z.number().int().min(16).max(1_048_576),
  /** Disk, reading and writing each. */
  ioBytesPerSecond: z
    .number()
    .int()
    .min(MiB)
    .max(2047 * MiB)
    .default(50 * MiB),
  /** Disk operations, reading and writing each. */
  ioOperationsPerSecond: z.number().int().min(50).max(1_000_000).default(2000),
  /** Network, in and out each. The least lets a TCP connection live, the most is 10 Gbit/s. */
  networkBytesPerSecond: z.number().int().min(10_000).max(1_250_000_000).default(25_000_000),
  /** Output that is kept; what is more in the long run is dropped and counted. */
  logBytesPerSecond: z.number().int().min(1024).max(MiB).default(65_536),
});
export type Resources = z.infer<typeof resources>;

export const defaultResources: Resources = resources.parse({
  cpuMillis: 100,
  cpuCapMillis: 1000,
  memoryMiB: 128,
  pids: 256,
  diskMiB: 512,
});

/**
 * What all instances of a tenant on one node may take together. The weight is that of the tenant's
 * plan, however many instances it has: 1 to 10000 as in cgroup v2, 100 being everybody's default.
 */
export const tenantLimits = z.object({
  cpuWeight: z.number().int().min(1).max(10_000).default(100),
  /** Hard cap, in thousandths of a core; null: none. */
  cpuCapMillis: z.number().int().min(10).nullable().default(null),
  /** Processes and threads; null: no more than each instance may. */
  pids: z.number().int().min(8).max(4_194_304).nullable().default(null),
  /** When this was read from the truth, ms since 1970: of two specifications the younger knows better. */
  asOf: z.number().int().min(0).default(0),
});
export type TenantLimits = z.infer<typeof tenantLimits>;
export const defaultTenantLimits: TenantLimits = tenantLimits.parse({});

/** Whose instances make room for whose, the least first. */
export const processPriorities = ['low', 'normal', 'high'] as const;
export type ProcessPriority = (typeof processPriorities)[number];

/** How the edge asks a process: in HTTP/1.1, or in HTTP/2 without TLS, as gRPC needs it. */
export const processProtocols = ['http1', 'http2'] as const;
export type ProcessProtocol = (typeof processProtocols)[number];

/** The pool of nodes that have no other one, open to everybody. */
export const defaultPool = 'default';

/** A process of a release. `web` gets a route; a process without a port gets none. */
export const processDefinition = z.object({
  name: dnsLabel,
  /** Replaces the image's entrypoint and command when set. */
  command: z.array(z.string().max(8192)).min(1).max(256).nullable(),
  /** What the process listens on; also given to it as PORT. */
  port: z.number().int().min(1).max(65_535).nullable(),
  protocol: z.enum(processProtocols).default('http1'),
  health: healthCheck.nullable(),
  resources,
  /** From SIGTERM to SIGKILL. */
  graceSeconds: z.number().int().min(0).max(600),
  /** Only /tmp, in memory, can be written. */
  readOnlyRoot: z.boolean().default(false),
  /** Most instances on one node; 0: as many as fit. */
  mostPerNode: z.number().int().min(0).max(1000).default(0),
  /** When the fleet is full, instances of a lower priority end for those of a higher. */
  priority: z.enum(processPriorities).default('normal'),
  /** Of nodes on which it may run. */
  pool: dnsLabel.default(defaultPool),
  /** What a node must have to run it. */
  nodeLabels: nodeLabels.default({}),
});
export type ProcessDefinition = z.infer<typeof processDefinition>;

/** A one-off task: a command of its own with the settings of one of the release's processes. */
export const taskDefinition = z.object({
  command: z.array(z.string().max(8192)).min(1).max(256),
  /** Whose settings it has. */
  process: z.string(),
  resources,
  graceSeconds: z.number().int().min(0).max(600),
  readOnlyRoot: z.boolean().default(false),
  /** Its standard streams are a terminal. */
  terminal: z.boolean(),
  /** It has a standard input, which whoever attaches to it writes. */
  stdin: z.boolean(),
});
export type TaskDefinition = z.infer<typeof taskDefinition>;

/** The part of an OCI image configuration that we use. */
export const imageConfig = z.object({
  entrypoint: z.array(z.string()),
  cmd: z.array(z.string()),
  /** NAME=value */
  env: z.array(z.string()),
  workingDir: z.string(),
  user: z.string(),
  /** Numbers of the exposed TCP ports. */
  exposedPorts: z.array(z.number().int()),
  stopSignal: z.string().nullable(),
});
export type ImageConfig = z.infer<typeof imageConfig>;

/** Why a deployment did not succeed; `message` is for people, `code` for scripts. */
export const deploymentFailureCodes = [
  'IMAGE_NOT_FOUND',
  'IMAGE_UNAUTHORISED',
  'IMAGE_WRONG_PLATFORM',
  'IMAGE_CORRUPT',
  'IMAGE_NO_SPACE',
  'REGISTRY_UNREACHABLE',
  'IMAGE_PULL_FAILED',
  'CRASHED',
  'OUT_OF_MEMORY',
  'DISK_FULL',
  'HEALTH_CHECK_FAILED',
  'START_FAILED',
  'NO_ROOM',
  'DEADLINE_EXCEEDED',
  /** Somebody wanted it to end. */
  'ABORTED',
] as const;
export type DeploymentFailureCode = (typeof deploymentFailureCodes)[number];

export const deploymentFailure = z.object({
  code: z.enum(deploymentFailureCodes),
  message: z.string(),
  process: z.string().nullable(),
  instance: z.string().nullable(),
  exitCode: z.number().int().nullable(),
  /** The last lines that the crashed process wrote. */
  lastLines: z.array(z.string()),
});
export type DeploymentFailure = z.infer<typeof deploymentFailure>;
