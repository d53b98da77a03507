import { Field, ID, InputType, ObjectType } from '@nestjs/graphql';
import type { Role as RoleName } from '@bulkhead/tenancy';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';
import { Role } from '../tenants/tenants.models.ts';

@ObjectType({ description: 'A member of a tenant.' })
export class Member {
  @Field(() => ID, { description: "The user's id." })
  id: string;

  @Field(() => String, { description: 'What they sign in with.' })
  email: string;

  @Field(() => String, { description: 'Their name.' })
  name: string;

  @Field(() => Role, { description: 'What they may do here.' })
  role: RoleName;

  @Field(() => DateTime, { description: 'Since when they are a member.' })
  createdAt: Date;
}

export const MemberConnection = connectionOf(Member, 'Member');

@InputType({ description: 'A member to be added.' })
export class AddMemberInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Of a user who has signed up.' })
  email: string;

  @Field(() => Role, { description: "Not above the caller's own." })
  role: RoleName;
}

@InputType({ description: "A member's new role." })
export class SetMemberRoleInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Of the member.' })
  email: string;

  @Field(() => Role, { description: "Not above the caller's own." })
  role: RoleName;
}

@InputType({ description: 'A member to be removed.' })
export class RemoveMemberInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Of the member.' })
  email: string;
}
