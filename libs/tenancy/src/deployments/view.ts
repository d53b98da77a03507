import type { DeploymentFailure } from '@bulkhead/protocol';
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
  readonly deadlineAt: Date;
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
} as const;

interface Row extends Omit<DeploymentView, 'createdBy' | 'failure'> {
  readonly createdById: string | null;
  readonly failure: unknown;
}

export function toDeploymentView(
  { createdById, failure, ...row }: Row,
  emails: ReadonlyMap<string, string>,
): DeploymentView {
  return {
    ...row,
    failure: failure as DeploymentFailure | null,
    createdBy: emails.get(createdById ?? '') ?? null,
  };
}
