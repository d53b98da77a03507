import { ArgsType, Field, Int, ObjectType } from '@nestjs/graphql';
import { DateTime } from '../graphql/date-time.ts';

@ObjectType({ description: 'A line that an instance wrote.' })
export class LogLine {
  @Field(() => String, {
    description:
      'Marks its place: lines after it are asked for with `after`. As text, cursors sort by the order of arrival.',
  })
  cursor: string;

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

@ObjectType({ description: 'Kept lines, in the order in which they arrived.' })
export class LogPage {
  @Field(() => [LogLine], { description: 'The lines; none when a long stretch has none to fit.' })
  lines: LogLine[];

  @Field(() => String, { description: 'Where the page ends: go on with `after`.' })
  end: string;

  @Field(() => Boolean, { description: 'Whether more may follow by now.' })
  more: boolean;
}

@ArgsType()
export class WhichLogs {
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

  @Field(() => DateTime, {
    nullable: true,
    description: 'Only lines up to then, but for those that arrived more than 10 minutes late.',
  })
  until?: Date | null;
}

@ArgsType()
export class LogArguments extends WhichLogs {
  @Field(() => Int, {
    nullable: true,
    defaultValue: 100,
    description: 'The last how many lines of those written so far: 0 to 1000.',
  })
  tail?: number | null;
}

@ArgsType()
export class FollowArguments extends LogArguments {
  @Field(() => String, {
    nullable: true,
    description: 'Instead of the last lines: every one that arrived after this cursor.',
  })
  after?: string | null;
}

@ArgsType()
export class LogPageArguments extends WhichLogs {
  @Field(() => Int, {
    nullable: true,
    description: 'How many lines at most: 1 to 1000; 1000 when absent.',
  })
  first?: number | null;

  @Field(() => Int, {
    nullable: true,
    description:
      'Instead of a page: the last how many lines, in the order of their time: 0 to 1000.',
  })
  last?: number | null;

  @Field(() => String, {
    nullable: true,
    description: 'Go on after the end of an earlier page, or the cursor of a line.',
  })
  after?: string | null;
}
