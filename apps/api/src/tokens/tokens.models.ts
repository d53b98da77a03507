import { Field, ID, InputType, Int, ObjectType } from '@nestjs/graphql';
import type { Role as RoleName, TokenView } from '@bulkhead/tenancy';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';
import { Role } from '../tenants/tenants.models.ts';

@ObjectType({
  description:
    'A credential for scripts: acts as its maker, within one tenant and never above its role.',
})
export class ApiToken {
  @Field(() => ID, { description: 'For revokeApiToken.' })
  id: string;

  @Field(() => String, { description: 'What it is for.' })
  name: string;

  @Field(() => Role, { description: 'The most it may do.' })
  role: RoleName;

  @Field(() => String, { description: 'Its first characters, to recognise it by.' })
  prefix: string;

  @Field(() => DateTime, { description: 'When it was made.' })
  createdAt: Date;

  @Field(() => DateTime, { nullable: true, description: 'When it ends; null for never.' })
  expiresAt: Date | null;

  @Field(() => DateTime, { nullable: true, description: 'When it was last used; null for never.' })
  lastUsedAt: Date | null;
}

export const ApiTokenConnection = connectionOf(ApiToken, 'ApiToken');

@InputType({ description: 'An API token to be made.' })
export class CreateApiTokenInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'What it is for.' })
  name: string;

  @Field(() => Role, { description: "Not above the caller's own." })
  role: RoleName;

  @Field(() => Int, {
    nullable: true,
    description: '1 to 3650; absent for a token that never ends.',
  })
  expiresInDays?: number | null;
}

@InputType({ description: 'An API token to be ended.' })
export class RevokeApiTokenInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => ID, { description: 'Of the token.' })
  id: string;
}

@ObjectType({ description: 'A new API token.' })
export class ApiTokenPayload {
  @Field(() => String, { description: 'The token itself. Shown now and never again.' })
  secret: string;

  @Field(() => ApiToken, { description: 'What is kept of it.' })
  token: TokenView;
}
