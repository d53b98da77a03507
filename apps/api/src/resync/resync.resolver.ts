import { Inject } from '@nestjs/common';
import { Args, ID, Int, Mutation, Query, Resolver } from '@nestjs/graphql';
import { invalid } from '@bulkhead/protocol';
import { Requires } from '../auth/permissions.ts';
import type { Controllers } from '../controllers/controllers.ts';
import { CONTROLLERS } from '../controllers/controllers.module.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { Resync } from './resync.models.ts';

@Resolver(() => Resync)
export class ResyncResolver {
  constructor(@Inject(CONTROLLERS) private readonly controllers: Controllers) {}

  @Mutation(() => Resync, {
    description:
      'Writes everything in NATS again from PostgreSQL and removes what is stale there. Safe at any time. For operators.',
  })
  @Requires('node.manage')
  async resync(@OpenDoor() door: Door): Promise<Resync> {
    // The door checks who asks; the work is the platform's own.
    await door.operator(() => Promise.resolve());
    const { until, ...started } = await this.controllers.resync.start();
    return { ...started, until: String(until) };
  }

  @Query(() => Int, {
    description: 'How much of a resync still waits for its delivery. For operators.',
  })
  @Requires('node.manage')
  async resyncWaiting(
    @OpenDoor() door: Door,
    @Args('until', { type: () => ID, description: 'As the resync answered.' }) until: string,
  ): Promise<number> {
    await door.operator(() => Promise.resolve());
    if (!/^\d{1,18}$/.test(until)) throw invalid('until is not what a resync answers');
    return this.controllers.resync.waiting(BigInt(until));
  }
}
