import { ArgsType, Field, ID, InputType, Int, ObjectType, registerEnumType } from '@nestjs/graphql';
import type { InstanceExit as ExitView } from '@bulkhead/protocol';
import type { InstanceDesired as DesiredName, InstanceState as StateName } from '@bulkhead/tenancy';
import { PageArguments, connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';

export const InstanceState = {
  PENDING: 'pending',
  ASSIGNED: 'assigned',
  PULLING: 'pulling',
  STARTING: 'starting',
  RUNNING: 'running',
  READY: 'ready',
  UNREADY: 'unready',
  PAUSED: 'paused',
  BACKOFF: 'backoff',
  CRASHLOOP: 'crashloop',
  FAILED: 'failed',
  STOPPING: 'stopping',
  ENDED: 'ended',
  GONE: 'gone',
} as const;
registerEnumType(InstanceState, {
  name: 'InstanceState',
  description: 'What was last observed of an instance.',
  valuesMap: {
    PENDING: { description: 'Waits for a node with room.' },
    ASSIGNED: { description: 'Has a node that has not spoken of it yet.' },
    PULLING: { description: 'Its image is being fetched.' },
    STARTING: { description: 'Its container is being made.' },
    RUNNING: { description: 'It runs; its health check has not passed yet.' },
    READY: { description: 'It runs and its health check passes.' },
    UNREADY: { description: 'It was ready; its health check fails now.' },
    PAUSED: { description: 'It is held still until it is resumed.' },
    BACKOFF: { description: 'It ended and waits for its restart.' },
    CRASHLOOP: {
      description:
        'It ended five times in a row without running well for a minute in between; it is tried more and more rarely.',
    },
    FAILED: { description: 'It cannot start, and waiting does not help.' },
    STOPPING: { description: 'It is being stopped.' },
    ENDED: { description: 'A one-off task that has run; `lastExit` says how it ended.' },
    GONE: { description: 'Nothing of it is left.' },
  },
});

export const InstanceDesired = { RUNNING: 'running', DRAINING: 'draining', GONE: 'gone' } as const;
registerEnumType(InstanceDesired, {
  name: 'InstanceDesired',
  description: 'What the platform wants of an instance.',
  valuesMap: {
    RUNNING: { description: 'That it runs.' },
    DRAINING: { description: 'That it finishes its requests; no new ones reach it.' },
    GONE: { description: 'That it stops.' },
  },
});

export const InstanceExitReason = {
  EXITED: 'exited',
  SIGNAL: 'signal',
  OOM: 'oom',
  DISK_FULL: 'disk-full',
  HEALTH: 'health',
  START_FAILED: 'start-failed',
  IMAGE_NOT_FOUND: 'image-not-found',
  IMAGE_UNAUTHORISED: 'image-unauthorised',
  IMAGE_WRONG_PLATFORM: 'image-wrong-platform',
  IMAGE_CORRUPT: 'image-corrupt',
  IMAGE_NO_SPACE: 'image-no-space',
  REGISTRY_UNREACHABLE: 'registry-unreachable',
  IMAGE_PULL_FAILED: 'image-pull-failed',
} as const satisfies Record<string, ExitView['reason']>;
registerEnumType(InstanceExitReason, {
  name: 'InstanceExitReason',
  description: 'Why an instance ended, or could not start.',
  valuesMap: {
    EXITED: { description: 'Its process ended by itself; `exitCode` says how.' },
    SIGNAL: { description: 'A signal killed its process; `signal` names it.' },
    OOM: { description: 'It needed more memory than it may have and was killed.' },
    DISK_FULL: { description: 'It ended with its disk full.' },
    HEALTH: { description: 'Its health check kept failing, so it was ended.' },
    START_FAILED: {
      description: 'Its process could not be started: no such command, for example.',
    },
    IMAGE_NOT_FOUND: { description: 'The registry has no such image.' },
    IMAGE_UNAUTHORISED: { description: 'The registry does not give the image to the platform.' },
    IMAGE_WRONG_PLATFORM: { description: 'The image is for another kind of machine.' },
    IMAGE_CORRUPT: { description: 'What the registry gave is not what the digest promises.' },
    IMAGE_NO_SPACE: { description: "The node's disk has no room for the image." },
    REGISTRY_UNREACHABLE: { description: 'The registry does not answer.' },
    IMAGE_PULL_FAILED: { description: 'The image could not be fetched for another reason.' },
  },
});

@ObjectType({ description: 'How a process ended that was not asked to.' })
export class InstanceExit {
  @Field(() => InstanceExitReason, { description: 'What kind of end it was.' })
  reason: ExitView['reason'];

  @Field(() => Int, { nullable: true, description: 'Its exit code, when it exited.' })
  exitCode: number | null;

  @Field(() => String, { nullable: true, description: 'The signal that killed it.' })
  signal: string | null;

  @Field(() => String, { description: 'One sentence for people.' })
  message: string;

  @Field(() => [String], { description: 'The last lines that it wrote, newest last.' })
  lastLines: string[];

  @Field(() => DateTime, { description: 'When.' })
  at: string;
}

@ObjectType({ description: 'One copy of one process of one release.' })
export class Instance {
  @Field(() => ID, { description: 'Also its host name.' })
  id: string;

  @Field(() => String, { description: 'Name of the process; `run` for a one-off task.' })
  process: string;

  @Field(() => Boolean, {
    description: 'Whether it is a one-off task, outside of formation and routes.',
  })
  oneOff: boolean;

  @Field(() => Int, { description: 'Version of the release.' })
  release: number;

  @Field(() => InstanceState, { description: 'What was last observed.' })
  state: StateName;

  @Field(() => InstanceDesired, { description: 'What the platform wants of it.' })
  desired: DesiredName;

  @Field(() => Boolean, {
    description: 'Whether it is to be held still; its state is PAUSED when it is.',
  })
  paused: boolean;

  @Field(() => String, { nullable: true, description: 'One sentence about the state.' })
  message: string | null;

  @Field(() => Int, { description: 'How often it was started again.' })
  restarts: number;

  @Field(() => String, {
    nullable: true,
    description: "The node's name, for operators; null for others.",
  })
  node: string | null;

  @Field(() => DateTime, { description: 'When it was planned.' })
  createdAt: Date;

  @Field(() => DateTime, { nullable: true, description: 'When it was first ready.' })
  readyAt: Date | null;

  @Field(() => DateTime, { nullable: true, description: 'When it was gone.' })
  goneAt: Date | null;

  @Field(() => DateTime, {
    nullable: true,
    description: 'When a one-off task is stopped if it still runs.',
  })
  deadlineAt: Date | null;

  @Field(() => InstanceExit, {
    nullable: true,
    description: 'The last end that was not asked for; of a one-off task, its end.',
  })
  lastExit: ExitView | null;
}

export const InstanceConnection = connectionOf(Instance, 'Instance');

@ArgsType()
export class InstancePageArguments extends PageArguments {
  @Field(() => Boolean, { nullable: true, description: 'Those that are gone, too.' })
  includeGone?: boolean | null;
}

@InputType({ description: 'Names an instance.' })
export class InstanceInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => String, { description: 'Id of the instance.' })
  instance: string;
}
