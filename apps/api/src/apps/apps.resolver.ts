import { Inject } from '@nestjs/common';
import {
  Args,
  Context,
  Int,
  Mutation,
  Parent,
  Query,
  ResolveField,
  Resolver,
} from '@nestjs/graphql';
import { trafficHours, type AppView, type TenantView } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import type { RequestContext } from '../graphql/request-context.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { Tenant } from '../tenants/tenants.models.ts';
import {
  App,
  AppConnection,
  AppHealth,
  AppInput,
  CreateAppInput,
  TrafficMinute,
} from './apps.models.ts';
import { Process } from './processes.models.ts';

@Resolver(() => App)
export class AppsResolver {
  constructor(@Inject(SETTINGS) private readonly settings: Settings) {}

  @Query(() => App, { description: 'An app of a tenant that the caller is a member of.' })
  @Requires('app.read')
  app(
    @OpenDoor() door: Door,
    @Args('tenant', { type: () => String, description: 'Slug of the tenant.' }) tenant: string,
    @Args('name', { type: () => String, description: 'Name of the app.' }) name: string,
  ) {
    return door.run({ tenant }, (tx) => tx.apps.get(name));
  }

  @Mutation(() => App, { description: 'Makes an app with nothing in it yet.' })
  @Requires('app.create')
  createApp(
    @OpenDoor() door: Door,
    @Args('input', { type: () => CreateAppInput, description: 'The app.' }) input: CreateAppInput,
  ) {
    return door.run({ tenant: input.tenant }, (tx) => tx.apps.create(input));
  }

  @Mutation(() => App, {
    description:
      'Removes an app for good: its instances, routes, releases and config. Its name is free when all is gone.',
  })
  @Requires('app.destroy')
  destroyApp(
    @OpenDoor() door: Door,
    @Args('input', { type: () => AppInput, description: 'Which.' }) input: AppInput,
  ) {
    return door.run({ tenant: input.tenant }, (tx) => tx.apps.destroy(input.app));
  }

  @ResolveField(() => Tenant, { description: 'Whose it is.' })
  @Requires('app.read')
  tenant(@Context() request: RequestContext, @Parent() app: AppView) {
    return request.loaders.tenant(app.tenantId);
  }

  @ResolveField(() => String, { description: 'Where its process `web` answers.' })
  @Requires('app.read')
  async url(@Context() request: RequestContext, @Parent() app: AppView) {
    const { slug } = await request.loaders.tenant(app.tenantId);
    const { platformDomain, edgePublicPort } = this.settings;
    const port = edgePublicPort === 80 ? '' : `:${edgePublicPort}`;
    return `http://${app.name}.${slug}.${platformDomain}${port}`;
  }

  @ResolveField(() => AppHealth, { description: 'How it does, at a glance.' })
  @Requires('app.read')
  async health(@Context() request: RequestContext, @Parent() app: AppView) {
    return (await request.loaders.status(app)).health;
  }

  @ResolveField(() => [TrafficMinute], {
    description:
      'What the edges carried for it lately, oldest first; minutes without any are left out. Of the present one, and up to ten seconds before, not all is there.',
  })
  @Requires('app.read')
  traffic(
    @OpenDoor() door: Door,
    @Parent() app: AppView,
    @Args('minutes', {
      type: () => Int,
      defaultValue: 60,
      description: `From now back; at most ${trafficHours * 60}.`,
    })
    minutes: number,
    @Args('step', {
      type: () => Int,
      defaultValue: 1,
      description: `So many minutes are put together, percentiles too; they begin at multiples of it. At most ${trafficHours * 60}.`,
    })
    step: number,
  ) {
    return door.run({ tenantId: app.tenantId }, (tx) => tx.traffic.list(app.id, minutes, step));
  }

  @ResolveField(() => [Process], { description: 'What it consists of.' })
  @Requires('app.read')
  async processes(@Context() request: RequestContext, @Parent() app: AppView) {
    return (await request.loaders.status(app)).processes;
  }
}

@Resolver(() => Tenant)
export class TenantAppsResolver {
  @ResolveField(() => AppConnection, { description: 'Its apps, by name.' })
  @Requires('app.read')
  apps(@OpenDoor() door: Door, @Parent() tenant: TenantView, @Args() page: PageArguments) {
    return door.run({ tenantId: tenant.id }, (tx) => tx.apps.list(page));
  }
}
