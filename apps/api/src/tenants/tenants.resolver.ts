import { Args, Mutation, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql';
import type { TenantView } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import {
  CreateTenantInput,
  QuotaUsage,
  SetQuotaInput,
  Tenant,
  TenantConnection,
} from './tenants.models.ts';

@Resolver(() => Tenant)
export class TenantsResolver {
  @Query(() => Tenant, { description: 'A tenant that the caller is a member of.' })
  @Requires('tenant.read')
  tenant(
    @OpenDoor() door: Door,
    @Args('slug', { type: () => String, description: 'Its short name.' }) slug: string,
  ) {
    return door.run({ tenant: slug }, (tx) => Promise.resolve(tx.tenant));
  }

  @Query(() => TenantConnection, {
    description: "Every tenant, for operators; a user's own are `me.memberships`.",
  })
  @Requires('tenant.list')
  tenants(@OpenDoor() door: Door, @Args() page: PageArguments) {
    return door.operator((tx) => tx.tenants.list(page));
  }

  @Mutation(() => Tenant, { description: 'Makes a tenant with the caller as its owner.' })
  @Requires('signed-in')
  createTenant(
    @OpenDoor() door: Door,
    @Args('input', { type: () => CreateTenantInput, description: 'The tenant.' })
    input: CreateTenantInput,
  ) {
    return door.user((tx) => tx.tenants.create(input));
  }

  @Mutation(() => [QuotaUsage], { description: "Sets a tenant's limit. For operators." })
  @Requires('quota.set')
  setQuota(
    @OpenDoor() door: Door,
    @Args('input', { type: () => SetQuotaInput, description: 'The limit.' }) input: SetQuotaInput,
  ) {
    return door.operator((tx) => tx.quota.setLimit(input));
  }

  @ResolveField(() => [QuotaUsage], { description: 'What the tenant uses and may use.' })
  @Requires('quota.read')
  quota(@OpenDoor() door: Door, @Parent() tenant: TenantView) {
    return door.run({ tenantId: tenant.id }, (tx) => tx.quota.usage());
  }
}
