import {
  assertNever,
  defaultPool,
  defaultResources,
  healthCheck,
  invalid,
  processDefinition,
  type HealthCheck,
  type ImageConfig,
  type ProcessDefinition,
  type ProcessPriority,
  type ProcessProtocol,
} from '@bulkhead/protocol';
import { parse } from '../db/parse.ts';

/** A health check as asked for; what is left out has protocol's defaults. */
export interface HealthCheckRequest {
  readonly kind: 'http' | 'tcp' | 'command';
  /** Of `http`; "/" when left out. */
  readonly path?: string | null | undefined;
  /** Of `command`. */
  readonly command?: readonly string[] | null | undefined;
  readonly intervalSeconds?: number | null | undefined;
  readonly timeoutSeconds?: number | null | undefined;
  readonly failureThreshold?: number | null | undefined;
  readonly successThreshold?: number | null | undefined;
  readonly startupGraceSeconds?: number | null | undefined;
}

/**
 * A process as asked for in a deploy. Left out (undefined) means: as in the release before, else
 * the default. Null for `command`, `port` and `healthCheck` means none; null elsewhere is the same
 * as left out.
 */
export interface ProcessRequest {
  readonly name: string;
  readonly command?: readonly string[] | null | undefined;
  readonly port?: number | null | undefined;
  readonly count?: number | null | undefined;
  readonly cpuMillis?: number | null | undefined;
  /** How the edge asks it. */
  readonly protocol?: ProcessProtocol | null | undefined;
  readonly cpuCapMillis?: number | null | undefined;
  readonly memoryMiB?: number | null | undefined;
  readonly diskMiB?: number | null | undefined;
  readonly pids?: number | null | undefined;
  /** Disk, network and output: bytes a second, and operations. */
  readonly ioBytesPerSecond?: number | null | undefined;
  readonly ioOperationsPerSecond?: number | null | undefined;
  readonly networkBytesPerSecond?: number | null | undefined;
  readonly logBytesPerSecond?: number | null | undefined;
  readonly readOnlyRoot?: boolean | null | undefined;
  /** 0 to 1000; 0: as many as fit. */
  readonly mostPerNode?: number | null | undefined;
  readonly priority?: ProcessPriority | null | undefined;
  readonly pool?: string | null | undefined;
  /** What a node must have; an empty list: nothing. */
  readonly nodeLabels?:
    readonly { readonly name: string; readonly value: string }[] | null | undefined;
  readonly graceSeconds?: number | null | undefined;
  readonly healthCheck?: HealthCheckRequest | null | undefined;
}

export const maxProcesses = 20;
export const maxCount = 1000;
const defaultPort = 8080;
const defaultGraceSeconds = 10;

export interface ProcessPlan {
  readonly processes: readonly ProcessDefinition[];
  /** Only what was asked for. */
  readonly counts: ReadonlyMap<string, number>;
}

/**
 * What the next release runs. Without a request it runs what the release before ran, and the first
 * time one process `web`. INVALID names the process and what is wrong with it.
 */
export function planProcesses(input: {
  requested: readonly ProcessRequest[] | null;
  previous: readonly ProcessDefinition[];
  image: ImageConfig;
}): ProcessPlan {
  const { requested, previous, image } = input;
  if (requested?.length === 0) throw invalid('processes: give at least one, or leave the list out');
  if (requested && requested.length > maxProcesses) {
    throw invalid(`processes: at most ${maxProcesses}`);
  }
  const counts = new Map<string, number>();
  const processes =
    requested === null && previous.length > 0
      ? previous
      : (requested ?? [{ name: 'web' }]).map((request) => {
          const base = previous.find(({ name }) => name === request.name);
          if (request.count != null) {
            counts.set(request.name, checkCount(request.name, request.count));
          }
          return planProcess(request, base, image);
        });
  const seen = new Set<string>();
  for (const { name, command } of processes) {
    if (seen.has(name)) throw invalid(`process ${name} is given twice`);
    seen.add(name);
    if (command === null && image.entrypoint.length + image.cmd.length === 0) {
      throw invalid(
        `process ${name} has nothing to run: the image names no command, so the process must give one`,
        { process: name },
      );
    }
  }
  return { processes, counts };
}

/** INVALID unless it is a whole number from 0 to 1000. */
export function checkCount(process: string, count: number): number {
  if (!Number.isInteger(count) || count < 0 || count > maxCount) {
    throw invalid(`process ${process}: count is a whole number from 0 to ${maxCount}`, { process });
  }
  return count;
}

function planProcess(
  request: ProcessRequest,
  base: ProcessDefinition | undefined,
  image: ImageConfig,
): ProcessDefinition {
  const { name } = request;
  const before = base?.resources ?? defaultResources;
  const cpuMillis = request.cpuMillis ?? before.cpuMillis;
  const cpuCapMillis = request.cpuCapMillis ?? Math.max(before.cpuCapMillis, cpuMillis);
  if (cpuCapMillis < cpuMillis) {
    throw invalid(
      `process ${name}: cpuCapMillis ${cpuCapMillis} is below what is reserved, cpuMillis ${cpuMillis}`,
      { process: name },
    );
  }
  // Here and not in protocol's schema: that one must go on reading the releases that are stored.
  if (request.command?.[0] === '') {
    throw invalid(`process ${name}: command names no program, its first word is empty`, {
      process: name,
    });
  }
  const port = request.port === undefined ? portBefore(name, base, image) : request.port;
  return parse(
    processDefinition,
    {
      name,
      command: request.command === undefined ? (base?.command ?? null) : request.command,
      port,
      protocol: request.protocol ?? base?.protocol ?? 'http1',
      health: planHealth(request, base, port),
      resources: {
        cpuMillis,
        cpuCapMillis,
        memoryMiB: request.memoryMiB ?? before.memoryMiB,
        diskMiB: request.diskMiB ?? before.diskMiB,
        pids: request.pids ?? before.pids,
        ioBytesPerSecond: request.ioBytesPerSecond ?? before.ioBytesPerSecond,
        ioOperationsPerSecond: request.ioOperationsPerSecond ?? before.ioOperationsPerSecond,
        networkBytesPerSecond: request.networkBytesPerSecond ?? before.networkBytesPerSecond,
        logBytesPerSecond: request.logBytesPerSecond ?? before.logBytesPerSecond,
      },
      graceSeconds: request.graceSeconds ?? base?.graceSeconds ?? defaultGraceSeconds,
      readOnlyRoot: request.readOnlyRoot ?? base?.readOnlyRoot ?? false,
      mostPerNode: request.mostPerNode ?? base?.mostPerNode ?? 0,
      priority: request.priority ?? base?.priority ?? 'normal',
      pool: request.pool ?? base?.pool ?? defaultPool,
      nodeLabels: request.nodeLabels
        ? labelsOf(name, request.nodeLabels)
        : (base?.nodeLabels ?? {}),
    },
    `process ${name}`,
  );
}

function labelsOf(process: string, asked: readonly { name: string; value: string }[]) {
  const labels = Object.fromEntries(asked.map(({ name, value }) => [name, value]));
  if (Object.keys(labels).length === asked.length) return labels;
  throw invalid(`process ${process}: a label of nodes is given twice`, { process });
}

/** Only `web` listens by default: on the one port that the image exposes, else on 8080. */
function portBefore(name: string, base: ProcessDefinition | undefined, image: ImageConfig) {
  if (base) return base.port;
  if (name !== 'web') return null;
  const [port, ...others] = image.exposedPorts;
  return port !== undefined && others.length === 0 ? port : defaultPort;
}

/** What listens is checked, by connecting to it when nothing else is said. */
function planHealth(
  { name, healthCheck: request }: ProcessRequest,
  base: ProcessDefinition | undefined,
  port: number | null,
): HealthCheck | null {
  if (request === null) return null;
  if (request === undefined) {
    if (base?.health?.kind === 'command') return base.health;
    if (port === null) return null;
    // No check before, though there was a port, was a choice.
    if (base && base.port !== null) return base.health;
    return healthCheck.parse({ kind: 'tcp' });
  }
  const { kind, path, command, ...times } = request;
  if (port === null && kind !== 'command') {
    throw invalid(
      `process ${name}: a health check of kind ${kind} needs a port; without one, check by a command`,
      { process: name },
    );
  }
  if (kind === 'command' && !command?.[0]) {
    throw invalid(`process ${name}: healthCheck.command names no program`, { process: name });
  }
  // It goes into a request line as it is.
  if (path != null && /\p{Cc}/u.test(path)) {
    throw invalid(`process ${name}: healthCheck.path has control characters`, { process: name });
  }
  const given = Object.fromEntries(Object.entries(times).filter(([, value]) => value != null));
  return parse(
    healthCheck,
    { kind, ...checkTarget(kind, path, command), ...given },
    `process ${name}: healthCheck`,
  );
}

/** What is asked, of the kind; what belongs to another kind is dropped. */
function checkTarget(
  kind: HealthCheckRequest['kind'],
  path: HealthCheckRequest['path'],
  command: HealthCheckRequest['command'],
) {
  switch (kind) {
    case 'http':
      return { path: path ?? '/' };
    case 'command':
      return { command };
    case 'tcp':
      return {};
    default:
      return assertNever(kind);
  }
}
