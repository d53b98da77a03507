/**
 * When an instance counts as ready, and when it is so ill that it must be restarted. Pure: the
 * prober (prober.ts) brings results, `judge` says what they mean.
 */
import { assertNever, type HealthCheck, type RunningSpec } from '@bulkhead/protocol';

export interface Health {
  /** `waiting`: not ready yet. `unready`: was ready, fails now. `failed`: to be restarted. */
  phase: 'waiting' | 'ready' | 'unready' | 'failed';
  /** Failures in a row that count. */
  failures: number;
  /** Successes in a row of one that is not ready. */
  successes: number;
  /** What is wrong, for the tenant. */
  message: string | null;
}

export const unknownHealth: Health = {
  phase: 'waiting',
  failures: 0,
  successes: 0,
  message: null,
};
export const goodHealth: Health = {
  phase: 'ready',
  failures: 0,
  successes: 0,
  message: null,
};

type CommandCheck = Extract<HealthCheck, { kind: 'command' }>;
type PortCheck = Exclude<HealthCheck, CommandCheck>;

/** How the health of an instance is found out. */
export type Probe =
  | { kind: 'check'; check: PortCheck; port: number }
  | { kind: 'check'; check: CommandCheck; port: null }
  /** No health check: ready as soon as something listens, and never looked at again. */
  | { kind: 'listens'; port: number }
  /** Neither check nor port: ready when it has run for a while. */
  | { kind: 'runs'; forMs: number };

/** A process without a port or check that lives this long is ready. */
const runsForMs = 1000;
/** A listening probe after this says what is missing: quick starters need not see it. */
const quietMs = 2000;
const firstProbeMs = 50;
/** A command is a process each time. */
const firstCommandMs = 250;
const slowestListenProbeMs = 2000;

export function probeOf(spec: RunningSpec): Probe {
  const { health, port } = spec;
  if (health?.kind === 'command') return { kind: 'check', check: health, port: null };
  if (port === null) return { kind: 'runs', forMs: runsForMs };
  if (health === null) return { kind: 'listens', port };
  return { kind: 'check', check: health, port };
}

export type ProbeResult = { ok: true } | { ok: false; why: string };

/** `ranMs`: how long the process ran when the probe ended. */
export function judge(probe: Probe, health: Health, result: ProbeResult, ranMs: number): Health {
  if (result.ok) return judgeSuccess(probe, health);
  switch (probe.kind) {
    case 'runs':
      return health;
    case 'listens':
      return { ...health, message: ranMs < quietMs ? null : result.why };
    case 'check':
      return judgeFailure(probe.check, health, result.why, ranMs);
    default:
      return assertNever(probe);
  }
}

function judgeSuccess(probe: Probe, health: Health): Health {
  const wanted = probe.kind === 'check' ? probe.check.successThreshold : 1;
  const successes = health.successes + 1;
  if (health.phase === 'ready' || successes >= wanted) return goodHealth;
  return { ...health, failures: 0, successes };
}

function judgeFailure(check: HealthCheck, health: Health, why: string, ranMs: number): Health {
  const wasReady = health.phase !== 'waiting';
  if (!wasReady && ranMs < check.startupGraceSeconds * 1000) {
    return { ...unknownHealth, message: ranMs < quietMs ? null : why };
  }
  const failures = health.failures + 1;
  if (failures >= check.failureThreshold) {
    const times = failures === 1 ? 'failed' : `failed ${failures} times in a row`;
    const message = `its health check ${times}: ${why}`;
    return { phase: 'failed', failures, successes: 0, message };
  }
  if (!wasReady) return { phase: 'waiting', failures, successes: 0, message: why };
  // One slow answer under load does not take an instance out of service, two do.
  return health.phase === 'ready' && failures < 2
    ? { phase: 'ready', failures, successes: 0, message: health.message }
    : { phase: 'unready', failures, successes: 0, message: why };
}

/**
 * Time to the next probe in ms, null for never. Before readiness probes come quickly and then
 * slower, since a deploy waits for them; afterwards at the tenant's interval.
 */
export function nextProbeIn(probe: Probe, health: Health, probesMade: number): number | null {
  const isCommand = probe.kind === 'check' && probe.check.kind === 'command';
  const first = isCommand ? firstCommandMs : firstProbeMs;
  const eager = Math.round(first * 1.5 ** Math.min(probesMade - 1, 20));
  switch (probe.kind) {
    case 'runs':
      return null;
    case 'listens':
      return health.phase === 'ready' ? null : Math.min(eager, slowestListenProbeMs);
    case 'check': {
      const interval = probe.check.intervalSeconds * 1000;
      return health.phase === 'waiting' && health.failures + health.successes === 0
        ? Math.min(eager, interval)
        : interval;
    }
    default:
      return assertNever(probe);
  }
}
