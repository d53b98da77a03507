import { extraOf, type ProcessDefinition, type RolloutStrategy } from '@bulkhead/protocol';
import type { AppState } from '../generated/enums.ts';
import type { Amounts } from './ledger.ts';

/** Counted per process: instances, those of high priority among them, and three sizes. */
export const processResources = [
  'instances',
  'highPriority',
  'cpuMillis',
  'memoryMiB',
  'diskMiB',
] as const;

export const taskSubject = (appId: string, instance: string) => `task:${appId}/${instance}`;
export const processSubject = (appId: string, process: string) => `process:${appId}/${process}`;

/**
 * What an app's processes cost when all that is wanted runs, by subject, with what the strategy of
 * a running deployment may hold beside that. A stopped or deleted app wants nothing.
 */
export function wantedAmounts(
  app: {
    id: string;
    state: AppState;
    processes: readonly ProcessDefinition[];
    counts: ReadonlyMap<string, number>;
  },
  strategy: RolloutStrategy | null = null,
): Map<string, Amounts> {
  const wanted = new Map<string, Amounts>();
  if (app.state !== 'active') return wanted;
  for (const { name, resources, priority } of app.processes) {
    const own = app.counts.get(name) ?? 0;
    const count = own + (strategy ? extraOf(strategy, own) : 0);
    wanted.set(processSubject(app.id, name), {
      instances: count,
      highPriority: priority === 'high' ? count : 0,
      cpuMillis: count * resources.cpuMillis,
      memoryMiB: count * resources.memoryMiB,
      diskMiB: count * resources.diskMiB,
    });
  }
  return wanted;
}

/** The larger of each. */
export function maxAmounts(...all: readonly (Amounts | undefined)[]): Amounts {
  return combine(all, Math.max);
}

/** The smaller of each. */
export function minAmounts(...all: readonly (Amounts | undefined)[]): Amounts {
  return combine(all, Math.min);
}

function combine(
  all: readonly (Amounts | undefined)[],
  pick: (...numbers: number[]) => number,
): Amounts {
  const result: Amounts = {};
  for (const resource of processResources) {
    result[resource] = pick(...all.map((amounts) => amounts?.[resource] ?? 0));
  }
  return result;
}
