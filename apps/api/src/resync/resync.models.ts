import { Field, ID, Int, ObjectType } from '@nestjs/graphql';

@ObjectType({ description: 'What is being written to NATS again from PostgreSQL.' })
export class Resync {
  @Field(() => ID, { description: 'For resyncWaiting: done when nothing up to it waits.' })
  until: string;

  @Field(() => Int, { description: 'Instances whose specification is written again.' })
  instances: number;

  @Field(() => Int, { description: 'Routes that are written again.' })
  routes: number;

  @Field(() => Int, { description: 'Keys that stand for nothing any more and are removed.' })
  stale: number;

  @Field(() => Int, {
    description:
      'Keys that are left alone, since the database knows too little: of nodes that nobody registered, or of routes while it has none.',
  })
  left: number;
}
