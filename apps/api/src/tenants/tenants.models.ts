import { Field, Float, ID, InputType, ObjectType, registerEnumType } from '@nestjs/graphql';
import type { Role as RoleName, TenantView } from '@bulkhead/tenancy';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';

export const Role = {
  OWNER: 'owner',
  ADMIN: 'admin',
  DEVELOPER: 'developer',
  VIEWER: 'viewer',
} as const;
registerEnumType(Role, {
  name: 'Role',
  description: 'What a member may do in a tenant, highest first.',
  valuesMap: {
    OWNER: { description: 'Everything, also making other owners.' },
    ADMIN: { description: 'Members, the audit log, and all that a developer may.' },
    DEVELOPER: { description: 'Apps, their config and their deployments, and tokens.' },
    VIEWER: { description: 'Looks at everything but config and tokens.' },
  },
});

@ObjectType({ description: 'An organisation: the border of security and quota.' })
export class Tenant {
  @Field(() => ID, { description: 'Never changes.' })
  id: string;

  @Field(() => String, {
    description: 'The unique short name: part of host names and of image repositories.',
  })
  slug: string;

  @Field(() => String, { description: 'The name for people.' })
  name: string;

  @Field(() => DateTime, { description: 'When it was made.' })
  createdAt: Date;
}

export const TenantConnection = connectionOf(Tenant, 'Tenant');

@ObjectType({ description: 'A user in a tenant.' })
export class Membership {
  @Field(() => Role, {
    description: 'What the user may do there; behind a token what the token leaves of it.',
  })
  role: RoleName;

  @Field(() => Tenant, { description: 'Where.' })
  tenant: TenantView;
}

@ObjectType({ description: 'One line of the quota ledger.' })
export class QuotaUsage {
  @Field(() => String, {
    description: 'What is counted: apps, instances, cpuMillis, memoryMiB, diskMiB or tokens.',
  })
  resource: string;

  @Field(() => Float, { description: 'Reserved now.' })
  used: number;

  @Field(() => Float, { description: 'The most that may be reserved.' })
  limit: number;

  @Field(() => String, { description: 'What `used` and `limit` are counted in.' })
  unit: string;
}

@InputType({ description: 'A tenant to be made.' })
export class CreateTenantInput {
  @Field(() => String, {
    description: '1 to 40 of a-z, 0-9 and -, starting with a letter; unique.',
  })
  slug: string;

  @Field(() => String, {
    nullable: true,
    description: 'The name for people; the slug when absent.',
  })
  name?: string | null;
}

@InputType({ description: "A tenant's limit to be set." })
export class SetQuotaInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'As in QuotaUsage.' })
  resource: string;

  @Field(() => Float, {
    description: 'The new limit. Below what is used: nothing new fits until then.',
  })
  limit: number;
}
