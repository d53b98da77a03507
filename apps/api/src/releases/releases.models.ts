import { Field, ID, Int, ObjectType } from '@nestjs/graphql';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';

@ObjectType({ description: 'Image, config and processes of an app at one time. Never changes.' })
export class Release {
  @Field(() => ID, { description: 'Never changes.' })
  id: string;

  @Field(() => Int, { description: 'Its number in the app: 1, 2, ...' })
  version: number;

  @Field(() => String, { description: 'The image, as it was written in the deploy.' })
  image: string;

  @Field(() => String, { description: 'What is pulled: sha256:...' })
  digest: string;

  @Field(() => String, { description: 'What changed.' })
  description: string;

  @Field(() => DateTime, { description: 'When it was made.' })
  createdAt: Date;

  @Field(() => String, {
    nullable: true,
    description: 'Email of its maker; null for the platform.',
  })
  createdBy: string | null;

  @Field(() => [String], { description: 'Names of its environment variables.' })
  configNames: readonly string[];

  @Field(() => Boolean, { description: 'Whether the app should run it now.' })
  current: boolean;
}

export const ReleaseConnection = connectionOf(Release, 'Release');
