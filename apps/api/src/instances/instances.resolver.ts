import { Args, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import type { AppView } from '@bulkhead/tenancy';
import { App } from '../apps/apps.models.ts';
import { Requires } from '../auth/permissions.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { InstanceConnection, InstancePageArguments } from './instances.models.ts';

@Resolver(() => App)
export class InstancesResolver {
  @ResolveField(() => InstanceConnection, { description: 'Its instances, oldest first.' })
  @Requires('app.read')
  instances(@OpenDoor() door: Door, @Parent() app: AppView, @Args() page: InstancePageArguments) {
    return door.run({ tenantId: app.tenantId }, (tx) => tx.instances.list(app.id, page));
  }
}
