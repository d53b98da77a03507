/** Puts into words, for the tenant, why an instance does not run (yet). */
import { assertNever, type InstanceExit, type RunningSpec } from '@bulkhead/protocol';
import { RuntimeError, type ContainerExit, type PullProgress } from '@bulkhead/runtime';

/** How a process that ended by itself ended. */
export function describeExit(
  exit: ContainerExit,
  spec: RunningSpec,
  lastLines: string[],
): InstanceExit {
  const { exitCode, signal } = exit;
  const base = { exitCode, signal, lastLines, at: exit.at.toISOString() };
  if (exit.oomKilled) {
    const limit = spec.resources.memoryMiB;
    const message = `killed because it needed more than its ${limit} MiB of memory: give the process more, or make it need less`;
    return { ...base, reason: 'oom', message };
  }
  if (exit.diskFull) {
    const limit = spec.resources.diskMiB;
    const message = `ended (${signal ?? `exit code ${exitCode ?? 'unknown'}`}) with its disk full: it had written its ${limit} MiB; let it write less, or give the process more disk`;
    return { ...base, reason: 'disk-full', message };
  }
  if (signal !== null) return { ...base, reason: 'signal', message: `killed by ${signal}` };
  const message = exitCode === null ? 'ended, nobody knows how' : `exited with code ${exitCode}`;
  return { ...base, reason: 'exited', message };
}

/** A container that we ended because its check kept failing; `why` comes from the check. */
export function describeHealthStop(
  exit: ContainerExit | null,
  why: string | null,
  lastLines: string[],
  now: Date,
): InstanceExit {
  return {
    reason: 'health',
    exitCode: exit?.exitCode ?? null,
    signal: exit?.signal ?? null,
    message: why ?? 'its health check kept failing',
    lastLines,
    at: (exit?.at ?? now).toISOString(),
  };
}

/** Its container is gone, or ended with the host. */
export function describeVanished(exit: ContainerExit | null, now: Date): InstanceExit {
  return {
    reason: 'exited',
    exitCode: null,
    signal: null,
    message: exit?.rebooted
      ? 'the host restarted'
      : 'its container was gone: the host restarted, or somebody removed it',
    lastLines: [],
    at: now.toISOString(),
  };
}

/** How the command of a task ended that somebody was attached to. */
export function describeAttached(exitCode: number | null, now: Date): InstanceExit {
  const message =
    exitCode === null
      ? 'the connection to its standard streams was lost'
      : `exited with code ${exitCode}`;
  const base = { exitCode, signal: null, lastLines: [], at: now.toISOString() };
  return { ...base, reason: 'exited', message };
}

export function describeUnattended(now: Date): InstanceExit {
  const base = { exitCode: null, signal: null, lastLines: [], at: now.toISOString() };
  return { ...base, reason: 'exited', message: 'nobody attached to it within 5 minutes' };
}

export interface StartFailure {
  exit: InstanceExit;
  /** Trying again soon does not help, somebody must change something. */
  hopeless: boolean;
}

export function describeStartFailure(error: unknown, now: Date): StartFailure {
  const { reason, hopeless, message } = classify(error);
  const at = now.toISOString();
  const exit = { reason, exitCode: null, signal: null, message, lastLines: [], at };
  return { exit, hopeless };
}

function classify(error: unknown): {
  reason: InstanceExit['reason'];
  hopeless: boolean;
  message: string;
} {
  if (error instanceof SealedEnvError) {
    return { reason: 'start-failed', hopeless: true, message: error.message };
  }
  if (!(error instanceof RuntimeError)) {
    // Its text may hold host paths; it is in the agent's own log.
    return { reason: 'start-failed', hopeless: false, message: 'the node could not start it' };
  }
  const { message } = error;
  switch (error.reason) {
    case 'image-not-found':
    case 'image-unauthorised':
    case 'image-wrong-platform':
      return { reason: error.reason, hopeless: true, message };
    case 'image-corrupt':
    case 'image-no-space':
    case 'registry-unreachable':
    case 'image-pull-failed':
      return { reason: error.reason, hopeless: false, message };
    case 'no-command':
    case 'command-not-found':
      return { reason: 'start-failed', hopeless: true, message };
    case 'out-of-addresses':
    case 'out-of-disk':
    case 'limit-refused':
    case 'not-running':
    case 'exec-refused':
    case 'file-not-found':
    case 'copy-failed':
    case 'port-refused':
    case 'start-failed':
      return { reason: 'start-failed', hopeless: false, message };
    default:
      return assertNever(error.reason);
  }
}

/** The config in a specification cannot be opened on this node. */
export class SealedEnvError extends Error {
  override readonly name = 'SealedEnvError';
}

/** "pulling 3 of 7 layers, 41 of 120 MB". */
export function describePull(progress: PullProgress): string {
  const { layersDone, layersTotal, bytesDone, bytesTotal } = progress;
  const megabytes = (bytes: number) => Math.round(bytes / 1_000_000);
  const size = megabytes(bytesTotal);
  // The last bytes are here long before the last layer is unpacked.
  if (bytesDone >= bytesTotal) return `unpacking ${layersTotal} layers, ${size} MB`;
  return `pulling ${layersDone} of ${layersTotal} layers, ${megabytes(bytesDone)} of ${size} MB`;
}
