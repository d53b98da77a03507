import { Field, ID, InputType, Int, ObjectType, registerEnumType } from '@nestjs/graphql';
import type { DeploymentFailure as FailureView } from '@bulkhead/protocol';
import type { DeploymentKind as KindName, DeploymentStatus as StatusName } from '@bulkhead/tenancy';
import { ProcessInput } from '../apps/processes.models.ts';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';
import { DeploymentPause, StrategyInput } from './strategy.models.ts';

export const DeploymentKind = {
  DEPLOY: 'deploy',
  CONFIG: 'config',
  SCALE: 'scale',
  RESTART: 'restart',
  ROLLBACK: 'rollback',
  STOP: 'stop',
  START: 'start',
  RESIZE: 'resize',
} as const;
registerEnumType(DeploymentKind, {
  name: 'DeploymentKind',
  description: 'What was asked for.',
  valuesMap: {
    DEPLOY: { description: 'A new image.' },
    CONFIG: { description: 'New config.' },
    SCALE: { description: 'Other counts.' },
    RESTART: { description: 'New instances of the same.' },
    ROLLBACK: { description: 'An old release again.' },
    STOP: { description: 'No instances.' },
    START: { description: 'Instances again.' },
    RESIZE: { description: 'Other sizes, in place where that can be.' },
  },
});

export const DeploymentStatus = {
  RUNNING: 'running',
  SUCCEEDED: 'succeeded',
  FAILED: 'failed',
  SUPERSEDED: 'superseded',
} as const;
registerEnumType(DeploymentStatus, {
  name: 'DeploymentStatus',
  description: 'How far a deployment is.',
  valuesMap: {
    RUNNING: { description: 'On its way.' },
    SUCCEEDED: { description: 'All that was wanted is ready, and what was not is gone.' },
    FAILED: { description: 'It did not come about; `failure` says why.' },
    SUPERSEDED: { description: 'A later deployment took its place.' },
  },
});

@ObjectType({ description: 'Why a deployment did not come about.' })
export class DeploymentFailure {
  @Field(() => String, {
    description:
      'For scripts: IMAGE_NOT_FOUND, IMAGE_UNAUTHORISED, IMAGE_WRONG_PLATFORM, IMAGE_CORRUPT, IMAGE_NO_SPACE, REGISTRY_UNREACHABLE, IMAGE_PULL_FAILED, CRASHED, OUT_OF_MEMORY, DISK_FULL, HEALTH_CHECK_FAILED, START_FAILED, NO_ROOM, DEADLINE_EXCEEDED or ABORTED.',
  })
  code: string;

  @Field(() => String, { description: 'For people.' })
  message: string;

  @Field(() => String, { nullable: true, description: 'The process that it failed at.' })
  process: string | null;

  @Field(() => String, { nullable: true, description: 'The instance that it failed at.' })
  instance: string | null;

  @Field(() => Int, { nullable: true, description: 'How that instance exited.' })
  exitCode: number | null;

  @Field(() => [String], { description: 'The last lines that it wrote, newest last.' })
  lastLines: string[];
}

@ObjectType({ description: 'Something that happened in a deployment.' })
export class DeploymentEvent {
  @Field(() => ID, { description: 'Grows with time.' })
  id: string;

  @Field(() => DateTime, { description: 'When.' })
  at: Date;

  @Field(() => String, { description: 'What, for people.' })
  message: string;
}

@ObjectType({ description: 'A move of an app from one state to another, with a verdict.' })
export class Deployment {
  @Field(() => ID, { description: 'For deployment and deploymentProgress.' })
  id: string;

  @Field(() => DeploymentKind, { description: 'What was asked for.' })
  kind: KindName;

  @Field(() => DeploymentStatus, { description: 'How far it is.' })
  status: StatusName;

  @Field(() => DateTime, { description: 'When it was asked for.' })
  createdAt: Date;

  @Field(() => DateTime, { nullable: true, description: 'When it was over.' })
  finishedAt: Date | null;

  @Field(() => DateTime, {
    description: 'When it fails unless it gets on; while it stands at a gate this means nothing.',
  })
  deadlineAt: Date;

  @Field(() => Int, { description: 'How many of its gates lie behind it.' })
  step: number;

  @Field(() => Int, { description: 'How many gates there are in all; 0 for a rolling one.' })
  steps: number;

  @Field(() => DeploymentPause, {
    nullable: true,
    description: 'Set while it stands at a gate.',
  })
  pause: DeploymentPause | null;

  @Field(() => String, {
    nullable: true,
    description: 'Email of who asked; null for the platform.',
  })
  createdBy: string | null;

  @Field(() => DeploymentFailure, { nullable: true, description: 'Why it failed.' })
  failure: FailureView | null;
}

export const DeploymentConnection = connectionOf(Deployment, 'Deployment');

@InputType({ description: 'An image to be deployed.' })
export class DeployInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => String, {
    description:
      "The image: `hello:1` is looked for in the platform's registry under the tenant and then on Docker Hub; `ghcr.io/owner/name:tag` at that registry.",
  })
  image: string;

  @Field(() => [ProcessInput], {
    nullable: true,
    description:
      'What it consists of. Null: as in the release before; the first time one process `web` on the only port that the image exposes, else 8080.',
  })
  processes?: ProcessInput[] | null;

  @Field(() => String, { nullable: true, description: 'What changed, for people.' })
  description?: string | null;

  @Field(() => StrategyInput, {
    nullable: true,
    description: 'How it goes, and how the next ones go unless they say so.',
  })
  strategy?: StrategyInput | null;
}

@InputType({ description: 'How many instances of a process.' })
export class FormationInput {
  @Field(() => String, { description: 'Name of the process.' })
  process: string;

  @Field(() => Int, { description: '0 to 1000.' })
  count: number;
}

@InputType({ description: 'New counts.' })
export class ScaleInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => [FormationInput], { description: 'The counts that change; the rest stays.' })
  formation: FormationInput[];
}

@InputType({ description: 'The release to go back to.' })
export class RollbackInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => Int, {
    nullable: true,
    description: 'Its version; null for the one before the current.',
  })
  version?: number | null;

  @Field(() => StrategyInput, {
    nullable: true,
    description: 'How it goes; null: without a stop.',
  })
  strategy?: StrategyInput | null;
}

@InputType({ description: 'Other sizes for a process; what is left out or null stays.' })
export class ResizeInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => String, { description: 'Name of the process.' })
  process: string;

  @Field(() => Int, { nullable: true, description: 'Reserved CPU, in thousandths of a core.' })
  cpuMillis?: number | null;

  @Field(() => Int, { nullable: true, description: 'The most CPU, in thousandths of a core.' })
  cpuCapMillis?: number | null;

  @Field(() => Int, { nullable: true, description: 'Memory, reserved and at most. MiB.' })
  memoryMiB?: number | null;

  @Field(() => Int, { nullable: true, description: 'The most processes and threads.' })
  pids?: number | null;
}
