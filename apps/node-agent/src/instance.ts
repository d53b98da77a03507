import type { InstanceSpec } from '@bulkhead/protocol';
import { freshMemory, type InstanceMemory } from './memory.ts';
import type { Activity } from './plan.ts';
import type { Prober } from './prober.ts';

/** What the reconciler holds of one instance besides its specification. */
export interface Instance {
  readonly id: string;
  memory: InstanceMemory;
  activity: Activity;
  /** How far the pull is, for people. */
  progress: string | null;
  /** Watches the health of the run `key`. */
  prober: { key: string; prober: Prober } | null;
  /** Waits for the end of the container. */
  exitWatch: AbortController | null;
  wake: NodeJS.Timeout | null;
  /** Fingerprint of the desired specification of that generation: opening the config takes a while. */
  fingerprint: { generation: number; value: string | null } | null;
}

export function newInstance(id: string, memory: InstanceMemory | undefined): Instance {
  return {
    id,
    memory: memory ?? freshMemory,
    activity: null,
    progress: null,
    prober: null,
    exitWatch: null,
    wake: null,
    fingerprint: null,
  };
}

/** Ends everything in this process that looks after the instance; its container is not touched. */
export function release(instance: Instance): void {
  instance.exitWatch?.abort();
  instance.exitWatch = null;
  instance.prober?.prober.stop();
  instance.prober = null;
  if (instance.wake !== null) clearTimeout(instance.wake);
  instance.wake = null;
}

/** One run of one specification: a new one of either needs a prober of its own. */
export function runKey(spec: InstanceSpec, startedAt: Date | null, pid: number | null): string {
  return `${spec.generation}/${startedAt?.getTime() ?? 0}/${pid ?? 0}`;
}
