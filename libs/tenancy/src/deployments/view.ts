import {
  rolloutStrategy,
  stagesOf,
  type DeploymentFailure,
  type RolloutStrategy,
} from '@bulkhead/protocol';
import type { DeploymentKind, DeploymentStatus } from '../generated/enums.ts';

export interface DeploymentView {
  readonly id: string;
  readonly appId: string;
  readonly kind: DeploymentKind;
  readonly status: DeploymentStatus;
  /** The last release that was not on trial; null before there was one. */
  readonly fromReleaseId: string | null;
  readonly toReleaseId: string | null;
  readonly failure: DeploymentFailure | null;
  /** Email; null for a user who is no member any more. */
  readonly createdBy: string | null;
  readonly createdAt: Date;
  readonly finishedAt: Date | null;
  /** When it fails unless it gets on; says nothing while it stands at a gate. */
  readonly deadlineAt: Date;
  readonly strategy: RolloutStrategy;
  /** How many gates lie behind it, and how many there are in all. */
  readonly step: number;
  readonly steps: number;
  readonly pause: PauseView | null;
}

/** It stands at a gate. */
export interface PauseView {
  /** The number of the gate, from 1. */
  readonly step: number;
  readonly since: Date;
  /** When it goes on by itself; null: when it is promoted. */
  readonly until: Date | null;
}

export interface DeploymentEventView {
  readonly id: string;
  readonly at: Date;
  readonly message: string;
}

export const deploymentColumns = {
  id: true,
  appId: true,
  kind: true,
  status: true,
  fromReleaseId: true,
  toReleaseId: true,
  failure: true,
  createdById: true,
  createdAt: true,
  finishedAt: true,
  deadlineAt: true,
  strategy: true,
  step: true,
  reachedAt: true,
} as const;

interface Row extends Omit<
  DeploymentView,
  'createdBy' | 'failure' | 'strategy' | 'steps' | 'pause'
> {
  readonly createdById: string | null;
  readonly failure: unknown;
  readonly strategy: unknown;
  readonly reachedAt: Date | null;
}

export function toDeploymentView(
  { createdById, failure, reachedAt, ...row }: Row,
  emails: ReadonlyMap<string, string>,
): DeploymentView {
  const strategy = rolloutStrategy.parse(row.strategy);
  return {
    ...row,
    strategy,
    steps: stagesOf(strategy).length,
    pause: row.status === 'running' ? pauseOf(strategy, row.step, reachedAt) : null,
    failure: failure as DeploymentFailure | null,
    createdBy: emails.get(createdById ?? '') ?? null,
  };
}

function pauseOf(strategy: RolloutStrategy, step: number, since: Date | null): PauseView | null {
  const stage = stagesOf(strategy)[step];
  if (since === null || stage === undefined) return null;
  const until =
    stage.gate.kind === 'time' ? new Date(since.getTime() + stage.gate.seconds * 1000) : null;
  return { step: step + 1, since, until };
}
