import { Field, Float, Int, ObjectType } from '@nestjs/graphql';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';

@ObjectType({ description: 'An image that a release of the tenant uses.' })
export class Image {
  @Field(() => String, { description: 'registry/repository, without tag or digest.' })
  repository: string;

  @Field(() => String, { description: 'What is pulled: sha256:...' })
  digest: string;

  @Field(() => String, { description: 'As it was written in the deploy.' })
  reference: string;

  @Field(() => Float, { description: 'Compressed size in bytes.' })
  size: number;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => Int, { description: "The app's first release with it." })
  release: number;

  @Field(() => DateTime, { description: 'When that release was made.' })
  createdAt: Date;
}

export const ImageConnection = connectionOf(Image, 'Image');
