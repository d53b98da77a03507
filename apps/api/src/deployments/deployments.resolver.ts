import { Inject } from '@nestjs/common';
import { Args, ID, Mutation, Query, Resolver, Subscription } from '@nestjs/graphql';
import { AppInput } from '../apps/apps.models.ts';
import { Requires } from '../auth/permissions.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { ImageResolver } from '../images/image-resolver.ts';
import {
  DeployInput,
  Deployment,
  ResizeInput,
  RollbackInput,
  ScaleInput,
} from './deployments.models.ts';
import { DeploymentProgress } from './deployment-progress.ts';
import { AbortInput, PromoteInput, StrategyInput } from './strategy.models.ts';

@Resolver(() => Deployment)
export class DeploymentsResolver {
  constructor(
    @Inject(ImageResolver) private readonly images: ImageResolver,
    @Inject(DeploymentProgress) private readonly progress: DeploymentProgress,
  ) {}

  @Query(() => Deployment, { description: 'A deployment of an app of a tenant of the caller.' })
  @Requires('app.read')
  deployment(
    @OpenDoor() door: Door,
    @Args('id', { type: () => ID, description: 'Its id.' }) id: string,
  ) {
    return door.get({ deployment: id }, (tx) => tx.deployments.get(id));
  }

  @Mutation(() => Deployment, { description: 'Makes a release of an image and brings it to run.' })
  @Requires('app.deploy')
  async deploy(
    @OpenDoor() door: Door,
    @Args('input', { type: () => DeployInput, description: 'What to deploy.' }) input: DeployInput,
  ) {
    // Before a registry is asked: strangers make no requests through us.
    await door.run({ tenant: input.tenant }, (tx) => tx.apps.get(input.app));
    const image = await this.images.resolve(input.image, input.tenant);
    return door.get({ tenant: input.tenant }, (tx) => tx.deployments.deploy({ ...input, image }));
  }

  @Mutation(() => Deployment, { description: 'Changes how many instances run.' })
  @Requires('app.scale')
  scale(
    @OpenDoor() door: Door,
    @Args('input', { type: () => ScaleInput, description: 'The counts.' }) input: ScaleInput,
  ) {
    return door.get({ tenant: input.tenant }, (tx) => tx.deployments.scale(input));
  }

  @Mutation(() => Deployment, {
    description:
      'Makes a release with other sizes of one process. Its instances get them while they run; one is replaced where its node has no room, and started anew where it uses more memory than it is to have.',
  })
  @Requires('app.scale')
  resize(
    @OpenDoor() door: Door,
    @Args('input', { type: () => ResizeInput, description: 'The sizes.' }) input: ResizeInput,
  ) {
    const { tenant, ...request } = input;
    return door.get({ tenant }, (tx) => tx.deployments.resize(request));
  }

  @Mutation(() => Deployment, { description: 'Replaces every instance.' })
  @Requires('app.restart')
  restart(
    @OpenDoor() door: Door,
    @Args('input', { type: () => AppInput, description: 'Which app.' }) input: AppInput,
    @Args('strategy', {
      type: () => StrategyInput,
      nullable: true,
      description: 'How it goes; null: without a stop.',
    })
    strategy: StrategyInput | null,
  ) {
    return door.get({ tenant: input.tenant }, (tx) => tx.deployments.restart(input.app, strategy));
  }

  @Mutation(() => Deployment, {
    description:
      'Lets a deployment through the gate that it stands at: to the next step of its canary, or to its change-over.',
  })
  @Requires('app.promote')
  promote(
    @OpenDoor() door: Door,
    @Args('input', { type: () => PromoteInput, description: 'Which.' }) input: PromoteInput,
  ) {
    return door.get({ tenant: input.tenant }, (tx) => tx.gates.promote(input));
  }

  @Mutation(() => Deployment, {
    description: 'Ends a deployment and goes back to what ran before, as when it fails.',
  })
  @Requires('app.abort')
  abort(
    @OpenDoor() door: Door,
    @Args('input', { type: () => AbortInput, description: 'Which.' }) input: AbortInput,
  ) {
    return door.get({ tenant: input.tenant }, (tx) => tx.gates.abort(input));
  }

  @Mutation(() => Deployment, {
    description: 'Makes a new release with image, processes and config of an old one.',
  })
  @Requires('app.rollback')
  rollback(
    @OpenDoor() door: Door,
    @Args('input', { type: () => RollbackInput, description: 'Where to.' }) input: RollbackInput,
  ) {
    return door.get({ tenant: input.tenant }, (tx) => tx.deployments.rollback(input));
  }

  @Mutation(() => Deployment, { description: 'Stops every instance; the counts are kept.' })
  @Requires('app.stop')
  stopApp(
    @OpenDoor() door: Door,
    @Args('input', { type: () => AppInput, description: 'Which app.' }) input: AppInput,
  ) {
    return door.get({ tenant: input.tenant }, (tx) => tx.deployments.stop(input.app));
  }

  @Mutation(() => Deployment, { description: 'Starts a stopped app again.' })
  @Requires('app.start')
  startApp(
    @OpenDoor() door: Door,
    @Args('input', { type: () => AppInput, description: 'Which app.' }) input: AppInput,
  ) {
    return door.get({ tenant: input.tenant }, (tx) => tx.deployments.start(input.app));
  }

  @Subscription(() => Deployment, {
    description: 'The deployment now and after each change; completes when it is over.',
  })
  @Requires('app.read')
  deploymentProgress(
    @OpenDoor() door: Door,
    @Args('id', { type: () => ID, description: 'Its id.' }) id: string,
  ) {
    return this.progress.follow(door, id);
  }
}
