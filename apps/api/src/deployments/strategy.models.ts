import { Field, ID, InputType, Int, ObjectType, registerEnumType } from '@nestjs/graphql';
import type { RolloutKind, RolloutStrategy } from '@bulkhead/protocol';
import { DateTime } from '../graphql/date-time.ts';

export const StrategyKind = {
  ROLLING: 'rolling',
  CANARY: 'canary',
  BLUE_GREEN: 'blue-green',
} as const;
registerEnumType(StrategyKind, {
  name: 'StrategyKind',
  description: 'How a deployment goes from one release to the next.',
  valuesMap: {
    ROLLING: { description: 'A few instances at a time.' },
    CANARY: { description: 'A part of the instances and requests first, in steps.' },
    BLUE_GREEN: { description: 'All new instances beside the old; then requests change over.' },
  },
});

@ObjectType({ description: 'A step of a canary.' })
export class CanaryStep {
  @Field(() => String, { description: 'New instances and requests to them: `10%` or a count.' })
  share: string;

  @Field(() => Int, {
    nullable: true,
    description: 'How long it is looked at; null: until it is promoted.',
  })
  pauseSeconds: number | null;
}

@ObjectType({ description: 'How a deployment goes from one release to the next.' })
export class Strategy {
  @Field(() => StrategyKind, { description: 'Which of the ways.' })
  kind: RolloutKind;

  @Field(() => String, { description: 'Instances beyond what is wanted: a count or `25%`.' })
  maxSurge: string;

  @Field(() => String, { description: 'Instances that may be missing: a count or `25%`.' })
  maxUnavailable: string;

  @Field(() => Int, { description: 'Without progress for so long it fails; pauses do not count.' })
  progressSeconds: number;

  @Field(() => [CanaryStep], { description: 'Of a canary; else empty.' })
  steps: readonly CanaryStep[];

  @Field(() => Boolean, {
    nullable: true,
    description: 'Of a blue-green one: whether it waits to be promoted before the change-over.',
  })
  manual: boolean | null;

  @Field(() => Int, {
    nullable: true,
    description: 'Of a blue-green one: how long the old instances are kept after it.',
  })
  keepOldSeconds: number | null;
}

/** With a value for every field. */
export function strategyOf(strategy: RolloutStrategy): Strategy {
  return { steps: [], manual: null, keepOldSeconds: null, ...strategy };
}

@ObjectType({ description: 'A deployment stands at a gate: its new instances are ready.' })
export class DeploymentPause {
  @Field(() => Int, { description: 'The number of the gate, from 1; for `promote`.' })
  step: number;

  @Field(() => DateTime, { description: 'Since when.' })
  since: Date;

  @Field(() => DateTime, {
    nullable: true,
    description: 'When it goes on by itself; null: when it is promoted.',
  })
  until: Date | null;
}

@InputType({ description: 'A step of a canary.' })
export class CanaryStepInput {
  @Field(() => String, {
    description: 'New instances of each process, and requests to them: `10%` or a count.',
  })
  share: string;

  @Field(() => Int, {
    nullable: true,
    description: 'How long it is looked at, up to a week; null: until it is promoted.',
  })
  pauseSeconds?: number | null;
}

@InputType({ description: 'What is left out or null stays as the app had it last.' })
export class StrategyInput {
  @Field(() => StrategyKind, { nullable: true, description: 'Which of the ways.' })
  kind?: RolloutKind | null;

  @Field(() => String, {
    nullable: true,
    description: 'Instances beyond what is wanted: a count or `25%`, rounded up.',
  })
  maxSurge?: string | null;

  @Field(() => String, {
    nullable: true,
    description: 'Instances that may be missing: a count or `25%`, rounded down.',
  })
  maxUnavailable?: string | null;

  @Field(() => Int, {
    nullable: true,
    description: 'Without progress for so long it fails, 10 to 86400; pauses do not count.',
  })
  progressSeconds?: number | null;

  @Field(() => [CanaryStepInput], { nullable: true, description: 'Of a canary: 1 to 20.' })
  steps?: CanaryStepInput[] | null;

  @Field(() => Boolean, {
    nullable: true,
    description: 'Of a blue-green one: wait to be promoted before the change-over.',
  })
  manual?: boolean | null;

  @Field(() => Int, {
    nullable: true,
    description: 'Of a blue-green one: how long the old instances are kept after it.',
  })
  keepOldSeconds?: number | null;
}

@InputType({ description: 'A gate that a deployment stands at.' })
export class PromoteInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => ID, { nullable: true, description: 'Its id; null for the newest.' })
  deployment?: string | null;

  @Field(() => Int, {
    nullable: true,
    description: 'The number of the gate. With it, to ask twice does no more than to ask once.',
  })
  step?: number | null;

  @Field(() => Boolean, { nullable: true, description: 'Past all the gates that are left.' })
  full?: boolean | null;
}

@InputType({ description: 'A deployment to be ended.' })
export class AbortInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => ID, {
    nullable: true,
    description: 'Its id; null for the newest. With it, one may ask twice.',
  })
  deployment?: string | null;
}
