import { Inject } from '@nestjs/common';
import { Args, Query, Resolver, Subscription } from '@nestjs/graphql';
import { Requires } from '../auth/permissions.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import {
  FollowArguments,
  LogArguments,
  LogLine,
  LogPage,
  LogPageArguments,
} from './logs.models.ts';
import { Logs } from './logs.ts';

@Resolver(() => LogLine)
export class LogsResolver {
  constructor(@Inject(Logs) private readonly logs: Logs) {}

  @Query(() => [LogLine], { name: 'logs', description: 'The last lines of an app, oldest first.' })
  @Requires('log.read')
  readLogs(@OpenDoor() door: Door, @Args() which: LogArguments) {
    return this.logs.read(door, which);
  }

  @Query(() => LogPage, {
    description: 'All lines of an app that are kept, from the oldest on, page by page.',
  })
  @Requires('log.read')
  logPage(@OpenDoor() door: Door, @Args() which: LogPageArguments) {
    return this.logs.page(door, which);
  }

  @Subscription(() => LogLine, {
    name: 'logs',
    description: 'The last lines of an app, oldest first, and then each new one.',
  })
  @Requires('log.read')
  followLogs(@OpenDoor() door: Door, @Args() which: FollowArguments) {
    return this.logs.follow(door, which, which.after ?? null);
  }
}
