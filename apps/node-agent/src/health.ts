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
  /** What is wrong, for the tenant. */
  message: string | null;
}

export const unknownHealth: Health = { phase: 'waiting', failures: 0, message: null };
export const goodHealth: Health = { phase: 'ready', failures: 0, message: null };

/** How the health of an instance is found out. */
export type Probe =
  | { kind: 'check'; check: HealthCheck; port: number }
  /** No health check: ready as soon as something listens, and never looked at again. */
  | { kind: 'listens'; port: number }
  /** Neither check nor port: ready when it has run for a while. */
  | { kind: 'runs'; forMs: number };

/** A process without a port or check that lives this long is ready. */
const runsForMs = 1000;
/** A listening probe after this says what is missing: quick starters need not see it. */
const quietMs = 2000;
const firstProbeMs = 50;
const slowestListenProbeMs = 2000;

export function probeOf(spec: RunningSpec): Probe {
  if (spec.port === null) return { kind: 'runs', forMs: runsForMs };
  if (spec.health === null) return { kind: 'listens', port: spec.port };
  return { kind: 'check', check: spec.health, port: spec.port };
}

export type ProbeResult = { ok: true } | { ok: false; why: string };

/** `ranMs`: how long the process ran when the probe ended. */
export function judge(probe: Probe, health: Health, result: ProbeResult, ranMs: number): Health {
  if (result.ok) return goodHealth;
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

function judgeFailure(check: HealthCheck, health: Health, why: string, ranMs: number): Health {
  const wasReady = health.phase !== 'waiting';
  if (!wasReady && ranMs < check.startupGraceSeconds * 1000) {
    return { phase: 'waiting', failures: 0, message: ranMs < quietMs ? null : why };
  }
  const failures = health.failures + 1;
  if (failures >= check.failureThreshold) {
    const times = failures === 1 ? 'failed' : `failed ${failures} times in a row`;
    return { phase: 'failed', failures, message: `its health check ${times}: ${why}` };
  }
  if (!wasReady) return { phase: 'waiting', failures, message: why };
  // One slow answer under load does not take an instance out of service, two do.
  return failures < 2
    ? { phase: 'ready', failures, message: health.message }
    : { phase: 'unready', failures, message: why };
}

/**
 * Time to the next probe in ms, null for never. Before readiness probes come quickly and then
 * slower, since a deploy waits for them; afterwards at the tenant's interval.
 */
export function nextProbeIn(probe: Probe, health: Health, probesMade: number): number | null {
  const eager = Math.round(firstProbeMs * 1.5 ** Math.min(probesMade - 1, 20));
  switch (probe.kind) {
    case 'runs':
      return null;
    case 'listens':
      return health.phase === 'ready' ? null : Math.min(eager, slowestListenProbeMs);
    case 'check': {
      const interval = probe.check.intervalSeconds * 1000;
      return health.phase === 'waiting' && health.failures === 0
        ? Math.min(eager, interval)
        : interval;
    }
    default:
      return assertNever(probe);
  }
}
