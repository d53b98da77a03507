import { Args, Mutation, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import type { AppView } from '@bulkhead/tenancy';
import { App } from '../apps/apps.models.ts';
import { Requires } from '../auth/permissions.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { ConfigPayload, ConfigVar, SetConfigInput } from './config.models.ts';

@Resolver(() => App)
export class ConfigResolver {
  @ResolveField(() => [ConfigVar], { description: 'Its environment variables, by name.' })
  @Requires('config.read')
  config(@OpenDoor() door: Door, @Parent() app: AppView) {
    return door.run({ tenantId: app.tenantId }, (tx) => tx.config.list(app.name));
  }

  @Mutation(() => ConfigPayload, {
    description:
      'Sets and removes environment variables, as a new release when something is deployed.',
  })
  @Requires('config.set')
  setConfig(
    @OpenDoor() door: Door,
    @Args('input', { type: () => SetConfigInput, description: 'The changes.' })
    input: SetConfigInput,
  ) {
    const vars = input.vars.map(({ name, value }) => ({ name, value: value ?? null }));
    return door.run({ tenant: input.tenant }, async (tx) => {
      const { app, deployment } = await tx.config.set({
        app: input.app,
        vars,
        strategy: input.strategy ?? null,
      });
      return { app, deployment: deployment && { ...deployment, tenantId: tx.tenant.id } };
    });
  }
}
