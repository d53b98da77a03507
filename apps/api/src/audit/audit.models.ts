import { Field, ID, ObjectType } from '@nestjs/graphql';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';

@ObjectType({ description: 'Something that was changed, and by whom.' })
export class AuditEntry {
  @Field(() => ID, { description: 'Grows with time.' })
  id: string;

  @Field(() => DateTime, { description: 'When.' })
  at: Date;

  @Field(() => String, { description: "Email of the user, `platform`, or a node's name." })
  actor: string;

  @Field(() => String, { description: 'The permission that was used.' })
  action: string;

  @Field(() => String, { description: 'What it was done to.' })
  target: string;

  @Field(() => String, {
    description: 'More about it, as JSON: versions, names, numbers; never a secret.',
  })
  detail: string;
}

export const AuditEntryConnection = connectionOf(AuditEntry, 'AuditEntry');
