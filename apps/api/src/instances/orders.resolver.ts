import { Args, Mutation, Resolver } from '@nestjs/graphql';
import { App, AppInput } from '../apps/apps.models.ts';
import { Requires } from '../auth/permissions.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { Instance, InstanceInput } from './instances.models.ts';

const which = { type: () => InstanceInput, description: 'Which.' };
const whichApp = { type: () => AppInput, description: 'Which app.' };

@Resolver(() => Instance)
export class OrdersResolver {
  @Mutation(() => App, {
    description:
      'Holds every instance still: no requests, no checks, no restarts. What is deployed or scaled up later runs. CONFLICT while a deployment is on its way.',
  })
  @Requires('app.pause')
  pauseApp(@OpenDoor() door: Door, @Args('input', whichApp) { tenant, app }: AppInput) {
    return door.run({ tenant }, (tx) => tx.orders.pauseApp(app));
  }

  @Mutation(() => App, { description: 'Lets every instance that is held still run on.' })
  @Requires('app.resume')
  resumeApp(@OpenDoor() door: Door, @Args('input', whichApp) { tenant, app }: AppInput) {
    return door.run({ tenant }, (tx) => tx.orders.resumeApp(app));
  }

  @Mutation(() => Instance, { description: 'Holds one instance still, as `pauseApp` does all.' })
  @Requires('app.pause')
  pauseInstance(@OpenDoor() door: Door, @Args('input', which) input: InstanceInput) {
    return door.run({ tenant: input.tenant }, (tx) => tx.orders.pause(input));
  }

  @Mutation(() => Instance, { description: 'Lets one instance that is held still run on.' })
  @Requires('app.resume')
  resumeInstance(@OpenDoor() door: Door, @Args('input', which) input: InstanceInput) {
    return door.run({ tenant: input.tenant }, (tx) => tx.orders.resume(input));
  }

  @Mutation(() => Instance, {
    description: 'Replaces one instance: it ends when the one in its place is ready.',
  })
  @Requires('app.restart')
  restartInstance(@OpenDoor() door: Door, @Args('input', which) input: InstanceInput) {
    return door.run({ tenant: input.tenant }, (tx) => tx.orders.restart(input));
  }

  @Mutation(() => Instance, {
    description:
      'Ends one instance once its requests are done; another takes its place if it is wanted, and is not waited for.',
  })
  @Requires('instance.delete')
  deleteInstance(@OpenDoor() door: Door, @Args('input', which) input: InstanceInput) {
    return door.run({ tenant: input.tenant }, (tx) => tx.orders.remove(input));
  }
}
