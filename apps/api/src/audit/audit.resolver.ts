import { Args, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import type { TenantView } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { Tenant } from '../tenants/tenants.models.ts';
import { AuditEntryConnection } from './audit.models.ts';

@Resolver(() => Tenant)
export class AuditResolver {
  @ResolveField(() => AuditEntryConnection, { description: 'Every change, newest first.' })
  @Requires('audit.read')
  auditLog(@OpenDoor() door: Door, @Parent() tenant: TenantView, @Args() page: PageArguments) {
    return door.run({ tenantId: tenant.id }, (tx) => tx.audit.list(page));
  }
}
