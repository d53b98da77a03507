/**
 * Decides what an instance needs next. Pure: desired state, what the runtime found and what the
 * agent remembers go in, one step comes out; the reconciler does it and asks again until the answer
 * is `settled` or `wait`. There is no other path: a start, a crash, a restart of the agent and a
 * changed specification all come through here.
 */
import {
  assertNever,
  type InstanceReport,
  type InstanceSpec,
  type RunningSpec,
} from '@bulkhead/protocol';
import type { ContainerStatus } from '@bulkhead/runtime';
import type { Health } from './health.ts';
import type { InstanceMemory, StopReason } from './memory.ts';

export interface InstanceView {
  desired: InstanceSpec;
  /** Null: the runtime has nothing under this id. */
  actual: ContainerStatus | null;
  memory: InstanceMemory;
  /** Of the present run. */
  health: Health;
  /** Of the desired specification; null when its config cannot be opened here. */
  fingerprint: string | null;
  /** Of the desired specification; null when it is to go. */
  limits: string | null;
}

export type Step =
  /** Nothing to do until something happens, or until `until`, ms since 1970. */
  | { do: 'settled'; until?: number }
  /** Nothing to do before `until`, ms since 1970. */
  | { do: 'wait'; until: number }
  /** Take the failures of the generation before as forgiven. */
  | { do: 'take-generation' }
  /** A container of which nothing is remembered runs already: it is taken for the desired one. */
  | { do: 'adopt' }
  /** What runs is given other limits, and goes on running. */
  | { do: 'update' }
  /** What runs is held still; `resume` lets it go on. */
  | { do: 'pause' }
  | { do: 'resume' }
  | { do: 'note-ready' }
  | { do: 'note-end' }
  /** A task that nobody attached to in time. */
  | { do: 'give-up' }
  | { do: 'start' }
  | { do: 'stop'; why: StopReason; graceSeconds: number }
  | { do: 'remove' };

export function planStep(view: InstanceView, now: number): Step {
  const { desired, actual, memory } = view;
  if (memory.generation !== desired.generation) return { do: 'take-generation' };
  switch (desired.desired) {
    case 'gone':
      return planGone(desired.graceSeconds, actual, memory);
    case 'running':
      if (desired.task !== null && memory.finished) return planFinished(actual, memory, desired);
      if (actual?.state === 'running') return planRunning(view, desired, now);
      if (actual?.state === 'paused') return planPaused(view, desired);
      return planAbsent(view, desired.paused, now);
    default:
      return assertNever(desired);
  }
}

function planGone(
  graceSeconds: number,
  actual: ContainerStatus | null,
  memory: InstanceMemory,
): Step {
  if (isThere(actual)) return { do: 'stop', why: 'gone', graceSeconds };
  // Removed even when nothing is found: it is idempotent and takes leftovers that `find` cannot see.
  if (actual !== null || !memory.removed) return { do: 'remove' };
  return { do: 'settled' };
}

/** A task that has run: what is left of it is its exit, and its log until it is ordered gone. */
function planFinished(
  actual: ContainerStatus | null,
  memory: InstanceMemory,
  { graceSeconds }: RunningSpec,
): Step {
  if (isThere(actual)) return { do: 'stop', why: 'finished', graceSeconds };
  return memory.made === null ? { do: 'settled' } : { do: 'note-end' };
}

/** A task with a terminal or an input waits for somebody to attach; its command runs then. */
export const waitsForSomebody = ({ task }: RunningSpec): boolean =>
  task !== null && (task.terminal || task.stdin);

/** How long it waits, ms. */
const attachWithinMs = 5 * 60_000;

/** Whether its process lives. */
export const isThere = (actual: ContainerStatus | null): actual is ContainerStatus =>
  actual?.state === 'running' || actual?.state === 'paused';

function planRunning(view: InstanceView, desired: RunningSpec, now: number): Step {
  const { memory, health, fingerprint, limits } = view;
  const { graceSeconds, paused, task } = desired;
  // An agent before this one decided to end it and did not come to it.
  if (memory.stopping !== null) return { do: 'stop', why: memory.stopping, graceSeconds };
  if (memory.made === null) return { do: 'adopt' };
  // Before anything else that is due: all of that can wait until it is resumed.
  if (paused) return { do: 'pause' };
  // A config that cannot be opened here is no reason to end what runs.
  if (fingerprint !== null) {
    // Made by an agent that reckoned fingerprints otherwise: they say nothing of each other.
    if (versionOf(memory.made) !== versionOf(fingerprint)) return { do: 'adopt' };
    // A task runs once: there is nothing to put in its place.
    if (memory.made !== fingerprint && task !== null) return { do: 'adopt' };
    if (memory.made !== fingerprint) return { do: 'stop', why: 'replaced', graceSeconds };
    if (memory.limits !== limits) return { do: 'update' };
  }
  if (health.phase === 'failed') return { do: 'stop', why: 'health', graceSeconds };
  if (health.phase === 'ready' && memory.readySince === null) return { do: 'note-ready' };
  if (waitsForSomebody(desired) && memory.attachedAt === null) {
    const until = memory.madeAt + attachWithinMs;
    return until <= now ? { do: 'give-up' } : { do: 'settled', until };
  }
  return { do: 'settled' };
}

/** What is held still is neither judged nor changed. */
function planPaused({ memory }: InstanceView, { graceSeconds, paused }: RunningSpec): Step {
  if (memory.stopping !== null) return { do: 'stop', why: memory.stopping, graceSeconds };
  if (memory.made === null) return { do: 'adopt' };
  return paused ? { do: 'settled' } : { do: 'resume' };
}

/** No back-off is as long, ms: what lies further off was noted before the clock was set back. */
const longestWaitMs = 15 * 60_000;

const versionOf = (fingerprint: string): string => fingerprint.split(':', 1)[0] ?? '';

function planAbsent({ actual, memory }: InstanceView, paused: boolean, now: number): Step {
  // Neither `created` nor a start that was never finished is an end: an agent died at it, and it is repeated.
  const ended = actual === null ? memory.started : actual.state === 'stopped';
  if (memory.made !== null && ended) return { do: 'note-end' };
  if (paused) return { do: 'settled' };
  const { retryAt } = memory;
  const isDue = retryAt === null || retryAt <= now || retryAt > now + longestWaitMs;
  if (!isDue) return { do: 'wait', until: retryAt };
  return { do: 'start' };
}

/** What the reconciler is in the middle of. */
export type Activity = 'pulling' | 'starting' | 'restarting' | null;

/** What the control plane is told of an instance; `seq` and `at` are added when it is sent. */
export type ReportContent = Omit<InstanceReport, 'v' | 'seq' | 'at'>;

export function describe(
  view: InstanceView,
  activity: Activity,
  progress: string | null = null,
): ReportContent {
  const { desired, actual, memory } = view;
  const port = desired.desired === 'running' ? desired.port : null;
  return {
    instance: desired.instance,
    generation: desired.generation,
    ...describeState(view, activity, progress),
    address: actual?.state === 'running' && port !== null ? { host: actual.address, port } : null,
    restarts: memory.restarts,
    exit: memory.exit,
  };
}

function describeState(
  { desired, actual, memory, health }: InstanceView,
  activity: Activity,
  progress: string | null,
): Pick<ReportContent, 'state' | 'message'> {
  if (desired.desired === 'gone') {
    const gone = memory.removed && actual === null;
    return { state: gone ? 'gone' : 'stopping', message: null };
  }
  // Not `stopping`: that is for what does not come back.
  if (activity === 'restarting') return { state: 'unready', message: health.message };
  if (activity === 'pulling') return { state: 'pulling', message: progress };
  if (activity !== null) return { state: activity, message: null };
  if (desired.task !== null && memory.finished) {
    const state = isThere(actual) || memory.made !== null ? 'stopping' : 'ended';
    return { state, message: memory.exit?.message ?? null };
  }
  if (actual?.state === 'running' && desired.task !== null)
    return { state: 'running', message: null };
  if (actual?.state === 'running') {
    switch (health.phase) {
      case 'waiting':
        return { state: 'running', message: health.message };
      case 'ready':
        return { state: 'ready', message: health.message };
      case 'unready':
      case 'failed':
        return { state: 'unready', message: health.message };
      default:
        return assertNever(health.phase);
    }
  }
  if (actual?.state === 'paused') return { state: 'paused', message: null };
  if (desired.paused)
    return { state: 'paused', message: 'its process is started when it is resumed' };
  if (memory.exit === null) return { state: 'starting', message: null };
  const { message } = memory.exit;
  if (memory.hopeless) return { state: 'failed', message };
  if (!memory.looping) return { state: 'backoff', message };
  return { state: 'crashloop', message: `ended ${memory.crashes} times in a row: ${message}` };
}
