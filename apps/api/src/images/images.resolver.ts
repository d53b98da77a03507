import { Args, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import type { TenantView } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { Tenant } from '../tenants/tenants.models.ts';
import { ImageConnection } from './images.models.ts';

@Resolver(() => Tenant)
export class ImagesResolver {
  @ResolveField(() => ImageConnection, { description: 'Images that releases use, newest first.' })
  @Requires('image.read')
  images(@OpenDoor() door: Door, @Parent() tenant: TenantView, @Args() page: PageArguments) {
    return door.run({ tenantId: tenant.id }, (tx) => tx.releases.images(page));
  }
}
