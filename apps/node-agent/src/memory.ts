import { instanceExit, type InstanceExit } from '@bulkhead/protocol';
import { z } from 'zod';

/** Why the agent itself ends a container. */
export type StopReason = 'gone' | 'replaced' | 'health' | 'finished';

/**
 * What the agent remembers of an instance between two looks at it, kept on disk so that a restarted
 * agent neither forgets a back-off nor takes a ready instance out of service. Never the truth about
 * containers: that is asked of the runtime each time.
 */
export const instanceMemory = z.object({
  /** Generation that the failures below belong to; a new one starts with a clean slate. */
  generation: z.number().int(),
  /** Fingerprint of what the present container was made from; null: there should be none. */
  made: z.string().nullable(),
  /** Limits of the present container; null: not known. */
  limits: z.string().nullable().default(null),
  /** The start of that container came to its end; without that, its absence is no loss. */
  started: z.boolean(),
  /** Just before that container was started, ms since 1970: its lines are not older. */
  madeAt: z.number(),
  /** Set before the agent ends the container, so that its end is not taken for a crash. */
  stopping: z.enum(['gone', 'replaced', 'health', 'finished']).nullable(),
  /** Failed starts and crashes in a row. */
  failures: z.number().int(),
  /** Ends in a row that were not asked for, without a start that went well for a while in between. */
  crashes: z.number().int().default(0),
  /** So many of them that it is in a crash loop. */
  looping: z.boolean().default(false),
  restarts: z.number().int(),
  /** Not to be started before this, ms since 1970. */
  retryAt: z.number().nullable(),
  /** It cannot start and waiting does not help. */
  hopeless: z.boolean(),
  exit: instanceExit.nullable(),
  /** A one-off task that has run, as `exit` says; it is never started again. */
  finished: z.boolean().default(false),
  /** When somebody attached to a task that waits for it, ms since 1970; nobody does a second time. */
  attachedAt: z.number().nullable().default(null),
  /** Since when the present run has been ready, ms since 1970. */
  readySince: z.number().nullable(),
  /** Proven gone. */
  removed: z.boolean(),
});
export type InstanceMemory = z.infer<typeof instanceMemory>;

export const freshMemory: InstanceMemory = {
  generation: 0,
  made: null,
  limits: null,
  started: false,
  madeAt: 0,
  stopping: null,
  failures: 0,
  crashes: 0,
  looping: false,
  restarts: 0,
  retryAt: null,
  hopeless: false,
  exit: null,
  finished: false,
  attachedAt: null,
  readySince: null,
  removed: false,
};

/** Times in ms. */
export interface RestartPolicy {
  firstDelay: number;
  longestDelay: number;
  /** Ready for this long, and the failures before are forgiven. */
  healthyAfter: number;
  /** Between tries of what cannot start: an image may be pushed later. */
  hopelessDelay: number;
  /** So many crashes in a row are a crash loop ... */
  loopAfter: number;
  /** ... in which the delay goes on growing up to this. */
  longestLoopDelay: number;
}

export const defaultRestartPolicy: RestartPolicy = {
  firstDelay: 1000,
  longestDelay: 60_000,
  healthyAfter: 60_000,
  hopelessDelay: 60_000,
  loopAfter: 5,
  longestLoopDelay: 300_000,
};

/** What fails together should not come back together: a delay is up to this part of it shorter. */
const jitter = 0.2;

/** 1 s, 2 s, 4 s ... up to `longest`; `failures` counts from 1, `chance` is 0 to 1. */
export function backoffDelay(
  failures: number,
  policy: RestartPolicy,
  chance: number,
  longest = policy.longestDelay,
): number {
  const whole = Math.min(longest, policy.firstDelay * 2 ** Math.min(failures - 1, 30));
  return Math.round(whole * (1 - jitter * chance));
}

export function onNewGeneration(memory: InstanceMemory, generation: number): InstanceMemory {
  const clean = { failures: 0, crashes: 0, looping: false, retryAt: null, hopeless: false };
  return { ...memory, ...clean, generation, removed: false };
}

export function onStarting(
  memory: InstanceMemory,
  made: { fingerprint: string; limits: string | null },
  now: number,
): InstanceMemory {
  const fresh = { started: false, stopping: null, readySince: null, removed: false };
  return { ...memory, ...fresh, made: made.fingerprint, limits: made.limits, madeAt: now };
}

export function onLimited(memory: InstanceMemory, limits: string): InstanceMemory {
  return { ...memory, limits };
}

export function onStarted(memory: InstanceMemory): InstanceMemory {
  return { ...memory, started: true };
}

export function onStopping(memory: InstanceMemory, why: StopReason): InstanceMemory {
  return { ...memory, stopping: why };
}

export function onReady(memory: InstanceMemory, now: number): InstanceMemory {
  return { ...memory, readySince: now, exit: null, hopeless: false };
}

/** What it answered before it was held still says nothing of what it answers after. */
export function onResuming(memory: InstanceMemory): InstanceMemory {
  return { ...memory, readySince: null };
}

/** We ended it to put another in its place. */
export function onReplaced(memory: InstanceMemory): InstanceMemory {
  return { ...memory, made: null, stopping: null, readySince: null, retryAt: null };
}

/** The process ended without being asked to, or we ended it because its health check failed. */
export function onCrash(
  memory: InstanceMemory,
  exit: InstanceExit,
  now: number,
  policy: RestartPolicy,
  chance: number,
): InstanceMemory {
  const wasHealthy = memory.readySince !== null && now - memory.readySince >= policy.healthyAfter;
  const failures = wasHealthy ? 1 : memory.failures + 1;
  const crashes = wasHealthy ? 1 : memory.crashes + 1;
  const looping = crashes >= policy.loopAfter;
  const longest = looping ? policy.longestLoopDelay : policy.longestDelay;
  return {
    ...memory,
    made: null,
    stopping: null,
    readySince: null,
    exit,
    failures,
    crashes,
    looping,
    restarts: memory.restarts + 1,
    retryAt: now + backoffDelay(failures, policy, chance, longest),
  };
}

/** The container was gone when we looked: the host restarted. No fault of the app's, so no back-off. */
export function onVanished(memory: InstanceMemory, exit: InstanceExit): InstanceMemory {
  const ended = { made: null, stopping: null, readySince: null, retryAt: null };
  return { ...memory, ...ended, exit, restarts: memory.restarts + 1 };
}

export function onStartFailed(
  memory: InstanceMemory,
  failure: { exit: InstanceExit; hopeless: boolean },
  now: number,
  policy: RestartPolicy,
  chance: number,
): InstanceMemory {
  const failures = memory.failures + 1;
  const delay = failure.hopeless ? policy.hopelessDelay : backoffDelay(failures, policy, chance);
  return {
    ...memory,
    made: null,
    stopping: null,
    readySince: null,
    exit: failure.exit,
    failures,
    looping: false,
    hopeless: failure.hopeless,
    retryAt: now + delay,
  };
}

/** A task has run; its container is still to be cleared away. */
export function onFinished(memory: InstanceMemory, exit: InstanceExit): InstanceMemory {
  return { ...memory, finished: true, exit, retryAt: null };
}

/** The container of a task that had finished has ended. */
export function onCleared(memory: InstanceMemory): InstanceMemory {
  return { ...memory, made: null, stopping: null, readySince: null };
}

export function onAttached(memory: InstanceMemory, now: number): InstanceMemory {
  return { ...memory, attachedAt: now };
}

export function onRemoved(memory: InstanceMemory): InstanceMemory {
  return { ...memory, made: null, stopping: null, readySince: null, retryAt: null, removed: true };
}
