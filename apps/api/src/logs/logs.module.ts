import { Module } from '@nestjs/common';
import { NATS, type NatsLink } from '../nats/nats.ts';
import { LogStore } from './log-store.ts';
import { Logs } from './logs.ts';
import { LogsResolver } from './logs.resolver.ts';

@Module({
  providers: [
    { provide: LogStore, useFactory: (nats: NatsLink) => new LogStore(nats), inject: [NATS] },
    Logs,
    LogsResolver,
  ],
})
export class LogsModule {}
