import { ArgsType, Field, Int, ObjectType } from '@nestjs/graphql';
import { DateTime } from '../graphql/date-time.ts';

@ObjectType({ description: 'A line that an instance wrote.' })
export class LogLine {
  @Field(() => DateTime, { description: 'When, by the clock of its node.' })
  at: string;

  @Field(() => String, { description: 'Which instance.' })
  instance: string;

  @Field(() => String, { description: 'Which process.' })
  process: string;

  @Field(() => String, { description: 'stdout, stderr, or platform for what we say about it.' })
  stream: string;

  @Field(() => String, { description: 'The line, without its end.' })
  text: string;
}

@ArgsType()
export class LogArguments {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => String, { nullable: true, description: 'Only of this process.' })
  process?: string | null;

  @Field(() => String, {
    nullable: true,
    description: 'Only of this instance, also when it is gone.',
  })
  instance?: string | null;

  @Field(() => DateTime, {
    nullable: true,
    description: 'Only lines from then on; kept are 7 days.',
  })
  since?: Date | null;

  @Field(() => Int, {
    nullable: true,
    defaultValue: 100,
    description: 'The last how many lines of those written so far: 0 to 1000.',
  })
  tail?: number | null;
}
