import {
  defaultPace,
  invalid,
  rolling,
  rolloutStrategy,
  stagesOf,
  type RolloutKind,
  type RolloutStrategy,
} from '@bulkhead/protocol';
import { parse } from '../db/parse.ts';

/** What is left out, or null, is as the app had it last; of another kind only the pace. */
export interface StrategyRequest {
  readonly kind?: RolloutKind | null;
  readonly maxSurge?: string | null;
  readonly maxUnavailable?: string | null;
  readonly progressSeconds?: number | null;
  /** Of a canary. */
  readonly steps?: readonly { share: string; pauseSeconds?: number | null }[] | null;
  /** Of a blue-green one. */
  readonly manual?: boolean | null;
  readonly keepOldSeconds?: number | null;
}

/** The first: look at a tenth. */
const defaultSteps = [{ share: '10%', pauseSeconds: null }];
const defaultKeepOldSeconds = 60;

/** INVALID names the field that is wrong. */
export function resolveStrategy(
  request: StrategyRequest,
  remembered: RolloutStrategy | null,
): RolloutStrategy {
  const kind = request.kind ?? remembered?.kind ?? 'rolling';
  const before = remembered?.kind === kind ? remembered : null;
  const pace = {
    maxSurge: request.maxSurge ?? remembered?.maxSurge ?? defaultPace.maxSurge,
    maxUnavailable:
      request.maxUnavailable ?? remembered?.maxUnavailable ?? defaultPace.maxUnavailable,
    progressSeconds:
      request.progressSeconds ?? remembered?.progressSeconds ?? defaultPace.progressSeconds,
  };
  refuseForeign(kind, request);
  switch (kind) {
    case 'rolling':
      return parse(rolloutStrategy, { kind, ...pace }, 'strategy');
    case 'canary': {
      const steps = request.steps?.map(({ share, pauseSeconds }) => ({
        share,
        pauseSeconds: pauseSeconds ?? null,
      }));
      const old = before?.kind === 'canary' ? before.steps : defaultSteps;
      return parse(rolloutStrategy, { kind, ...pace, steps: steps ?? old }, 'strategy');
    }
    case 'blue-green': {
      const old = before?.kind === 'blue-green' ? before : null;
      const manual = request.manual ?? old?.manual ?? false;
      const keepOldSeconds = request.keepOldSeconds ?? old?.keepOldSeconds ?? defaultKeepOldSeconds;
      return parse(rolloutStrategy, { kind, ...pace, manual, keepOldSeconds }, 'strategy');
    }
  }
}

function refuseForeign(kind: RolloutKind, request: StrategyRequest): void {
  const owners = { steps: 'canary', manual: 'blue-green', keepOldSeconds: 'blue-green' } as const;
  for (const [field, owner] of Object.entries(owners)) {
    if (kind === owner || request[field as keyof typeof owners] == null) continue;
    throw invalid(`strategy.${field}: only a ${owner} deployment has it, and this is ${kind}`, {
      field: `strategy.${field}`,
    });
  }
}

/** Of an app or a deployment as it is stored; null for none. */
export const readStrategy = (stored: unknown): RolloutStrategy | null =>
  stored === null || stored === undefined ? null : rolloutStrategy.parse(stored);

/** The pace without any gate. */
export const withoutGates = (strategy: RolloutStrategy | null): RolloutStrategy => {
  const { maxSurge, maxUnavailable, progressSeconds } = strategy ?? rolling;
  return { kind: 'rolling', maxSurge, maxUnavailable, progressSeconds };
};

interface Progress {
  readonly strategy: unknown;
  readonly step: number;
}

/** Whether it has a gate before it that somebody or some time has to open. */
export function isGated({ strategy, step }: Progress): boolean {
  return step < stagesOf(rolloutStrategy.parse(strategy)).length;
}

/** Whether its release was let through: it is on trial no more. */
export function isPromoted({ strategy, step }: Progress): boolean {
  const stages = stagesOf(rolloutStrategy.parse(strategy));
  const stage = stages[step];
  return stages.length > 0 && (stage === undefined || stage.serves === 'new');
}
