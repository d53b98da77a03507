import { Args, Context, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import type { AppView, DeploymentView } from '@bulkhead/tenancy';
import { App } from '../apps/apps.models.ts';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door, type Owned } from '../graphql/door.ts';
import type { RequestContext } from '../graphql/request-context.ts';
import { Instance } from '../instances/instances.models.ts';
import { Release } from '../releases/releases.models.ts';
import { rolloutStrategy } from '@bulkhead/protocol';
import { Deployment, DeploymentConnection, DeploymentEvent } from './deployments.models.ts';
import { Strategy, strategyOf } from './strategy.models.ts';

@Resolver(() => Deployment)
export class DeploymentFieldsResolver {
  @ResolveField(() => App, { description: 'What moves.' })
  @Requires('app.read')
  app(@OpenDoor() door: Door, @Parent() deployment: Owned<DeploymentView>) {
    return door.run({ tenantId: deployment.tenantId }, (tx) => tx.apps.getById(deployment.appId));
  }

  @ResolveField(() => Release, { nullable: true, description: 'The release that ran before.' })
  @Requires('app.read')
  from(@Context() request: RequestContext, @Parent() deployment: Owned<DeploymentView>) {
    return request.loaders.release(deployment.tenantId, deployment.fromReleaseId);
  }

  @ResolveField(() => Release, { nullable: true, description: 'The release that shall run.' })
  @Requires('app.read')
  to(@Context() request: RequestContext, @Parent() deployment: Owned<DeploymentView>) {
    return request.loaders.release(deployment.tenantId, deployment.toReleaseId);
  }

  @ResolveField(() => Strategy, { description: 'How it goes.' })
  @Requires('app.read')
  strategy(@Parent() deployment: Owned<DeploymentView>) {
    return strategyOf(deployment.strategy);
  }

  @ResolveField(() => [DeploymentEvent], {
    description: 'What happened, oldest first; the last 200.',
  })
  @Requires('app.read')
  events(@OpenDoor() door: Door, @Parent() deployment: Owned<DeploymentView>) {
    return door.run({ tenantId: deployment.tenantId }, (tx) =>
      tx.deployments.events(deployment.id),
    );
  }

  @ResolveField(() => [Instance], { description: "The app's instances that are not gone." })
  @Requires('app.read')
  instances(@OpenDoor() door: Door, @Parent() deployment: Owned<DeploymentView>) {
    return door.run({ tenantId: deployment.tenantId }, (tx) => tx.instances.live(deployment.appId));
  }
}

@Resolver(() => App)
export class AppDeploymentsResolver {
  @ResolveField(() => Deployment, {
    nullable: true,
    description: 'The newest; null when there was none.',
  })
  @Requires('app.read')
  latestDeployment(@Context() request: RequestContext, @Parent() app: AppView) {
    return request.loaders.latestDeployment(app);
  }

  @ResolveField(() => Strategy, {
    nullable: true,
    description:
      'How its deployments go unless they say so; null: rolling, as the platform has it.',
  })
  @Requires('app.read')
  strategy(@Parent() app: AppView) {
    return app.strategy === null ? null : strategyOf(rolloutStrategy.parse(app.strategy));
  }

  @ResolveField(() => DeploymentConnection, { description: 'Its deployments, newest first.' })
  @Requires('app.read')
  deployments(@OpenDoor() door: Door, @Parent() app: AppView, @Args() page: PageArguments) {
    return door.list({ tenantId: app.tenantId }, (tx) => tx.deployments.list(app.id, page));
  }
}
