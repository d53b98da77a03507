import { Args, Mutation, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import type { TenantView } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { Tenant } from '../tenants/tenants.models.ts';
import {
  ApiTokenConnection,
  ApiTokenPayload,
  CreateApiTokenInput,
  RevokeApiTokenInput,
} from './tokens.models.ts';

@Resolver(() => Tenant)
export class TokensResolver {
  @ResolveField(() => ApiTokenConnection, { description: 'API tokens, newest first.' })
  @Requires('token.read')
  tokens(@OpenDoor() door: Door, @Parent() tenant: TenantView, @Args() page: PageArguments) {
    return door.run({ tenantId: tenant.id }, (tx) => tx.tokens.list(page));
  }

  @Mutation(() => ApiTokenPayload, {
    description:
      'Makes an API token. Not through an API token: a leaked one must not outlive itself.',
  })
  @Requires('token.create')
  createApiToken(
    @OpenDoor() door: Door,
    @Args('input', { type: () => CreateApiTokenInput, description: 'The token.' })
    input: CreateApiTokenInput,
  ) {
    return door.run({ tenant: input.tenant }, (tx) => tx.tokens.create(input));
  }

  @Mutation(() => Boolean, { description: 'Ends an API token at once.' })
  @Requires('token.revoke')
  async revokeApiToken(
    @OpenDoor() door: Door,
    @Args('input', { type: () => RevokeApiTokenInput, description: 'Which.' })
    input: RevokeApiTokenInput,
  ) {
    await door.run({ tenant: input.tenant }, (tx) => tx.tokens.revoke(input));
    return true;
  }
}
