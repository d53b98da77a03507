import { assertNever } from '@bulkhead/protocol';
import type { AppState, InstanceState } from '../generated/enums.ts';

/** What a person wants to know at a glance. */
export type AppHealth =
  'new' | 'running' | 'deploying' | 'degraded' | 'crashed' | 'paused' | 'stopped' | 'deleting';

export interface AppFacts {
  readonly state: AppState;
  readonly hasRelease: boolean;
  /** A deployment is under way. */
  readonly deploying: boolean;
  /** Of the current release's processes. */
  readonly processes: readonly { readonly count: number; readonly ready: number }[];
  /** Of all instances that are wanted and not gone. */
  readonly instanceStates: readonly InstanceState[];
}

/**
 * While a deployment runs its own verdict is awaited. After that `degraded` means some of what is
 * wanted does not serve, and `crashed` that none does and something ended that should not have;
 * `paused` that all there is of it is held still.
 */
export function appHealth(facts: AppFacts): AppHealth {
  switch (facts.state) {
    case 'deleting':
      return 'deleting';
    case 'stopped':
      return 'stopped';
    case 'active':
      break;
    default:
      return assertNever(facts.state);
  }
  if (!facts.hasRelease) return 'new';
  if (facts.deploying) return 'deploying';
  if (facts.processes.every(({ count, ready }) => ready >= count)) return 'running';
  if (facts.instanceStates.length > 0 && facts.instanceStates.every((s) => s === 'paused'))
    return 'paused';
  const anyReady = facts.processes.some(({ ready }) => ready > 0);
  const anyEnded = facts.instanceStates.some(
    (s) => s === 'backoff' || s === 'crashloop' || s === 'failed',
  );
  return !anyReady && anyEnded ? 'crashed' : 'degraded';
}
