import { z } from 'zod';

/**
 * How a deployment goes from one release to the next, and the arithmetic that everybody who plans
 * or pays for it must agree on. Amounts are meant as kubectl means them: a count, or a percentage
 * of what is wanted.
 */
export const amount = z.string().regex(/^(?:\d{1,4}|(?:100|\d{1,2})%)$/, {
  error: 'use a count like 2 or a percentage like 25%',
});

const pace = {
  /** How many there may be beyond what is wanted; rounded up. */
  maxSurge: amount,
  /** How many of what is wanted may be missing; rounded down. */
  maxUnavailable: amount,
  /** Without progress for so long it has failed; pauses do not count. Beside the grace of its checks. */
  progressSeconds: z.int().min(10).max(86_400),
};

const canaryStep = z.object({
  /** New instances of each process, and requests to them. */
  share: amount.refine((value) => Number.parseInt(value, 10) > 0, {
    error: 'a step of nothing is no step',
  }),
  /** Null waits for a promotion. */
  pauseSeconds: z.int().min(0).max(604_800).nullable(),
});
export type CanaryStep = z.infer<typeof canaryStep>;

export const rolloutStrategy = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('rolling'), ...pace }),
  z.object({ kind: z.literal('canary'), ...pace, steps: z.array(canaryStep).min(1).max(20) }),
  z.object({
    kind: z.literal('blue-green'),
    ...pace,
    /** Whether it waits for a promotion before requests go to the new ones. */
    manual: z.boolean(),
    /** How long the old ones are kept after that. */
    keepOldSeconds: z.int().min(0).max(86_400),
  }),
]);
export type RolloutStrategy = z.infer<typeof rolloutStrategy>;
export type RolloutKind = RolloutStrategy['kind'];

export const defaultPace = { maxSurge: '25%', maxUnavailable: '0', progressSeconds: 300 } as const;
export const rolling: RolloutStrategy = { kind: 'rolling', ...defaultPace };

/** A stretch of a deployment that ends at a gate. After the last gate it goes on as a rolling one. */
export interface Stage {
  /** How many of each process are new. */
  readonly share: string;
  /** Whom requests reach: both by share, or one side alone. */
  readonly serves: 'both' | 'old' | 'new';
  readonly gate: { kind: 'promotion' } | { kind: 'time'; seconds: number };
}

export function stagesOf(strategy: RolloutStrategy): readonly Stage[] {
  switch (strategy.kind) {
    case 'rolling':
      return [];
    case 'canary':
      return strategy.steps.map(({ share, pauseSeconds }) => ({
        share,
        serves: 'both',
        gate:
          pauseSeconds === null ? { kind: 'promotion' } : { kind: 'time', seconds: pauseSeconds },
      }));
    case 'blue-green': {
      const gate = strategy.manual
        ? ({ kind: 'promotion' } as const)
        : ({ kind: 'time', seconds: 0 } as const);
      const kept = { kind: 'time', seconds: strategy.keepOldSeconds } as const;
      return [
        { share: '100%', serves: 'old', gate },
        { share: '100%', serves: 'new', gate: kept },
      ];
    }
  }
}

const resolve = (value: string, wanted: number, round: (n: number) => number) =>
  value.endsWith('%') ? round((Number.parseInt(value, 10) * wanted) / 100) : Number(value);

/** Never more than as many again. */
export function surgeOf(pace: Pick<RolloutStrategy, 'maxSurge'>, wanted: number): number {
  return Math.min(wanted, resolve(pace.maxSurge, wanted, Math.ceil));
}

/** One where neither would allow anything, or nothing would ever move. */
export function unavailableOf(
  pace: Pick<RolloutStrategy, 'maxSurge' | 'maxUnavailable'>,
  wanted: number,
): number {
  const allowed = Math.min(wanted, resolve(pace.maxUnavailable, wanted, Math.floor));
  return allowed === 0 && wanted > 0 && surgeOf(pace, wanted) === 0 ? 1 : allowed;
}

/** How many are new in a stage: at least one, never more than wanted. */
export function newCountOf({ share }: Pick<Stage, 'share'>, wanted: number): number {
  return Math.min(wanted, Math.max(1, resolve(share, wanted, Math.ceil)));
}

/** The part of the requests that the new ones get in a stage that serves both, 0 to 1. */
export function trafficOf({ share }: Pick<Stage, 'share'>, wanted: number): number {
  if (share.endsWith('%')) return Number.parseInt(share, 10) / 100;
  return wanted === 0 ? 1 : Math.min(1, Number(share) / wanted);
}

/**
 * What a deployment may hold beyond what is wanted at its tenant's cost. The surge of a rolling one
 * is the platform's, up to the default; what may wait for people, or is more, is the tenant's.
 */
export function extraOf(strategy: RolloutStrategy, wanted: number): number {
  switch (strategy.kind) {
    case 'rolling':
      return Math.max(0, surgeOf(strategy, wanted) - surgeOf(defaultPace, wanted));
    case 'canary':
      return surgeOf(strategy, wanted);
    case 'blue-green':
      return wanted;
  }
}
