import {
  Global,
  Inject,
  Module,
  type OnApplicationShutdown,
  type OnModuleDestroy,
} from '@nestjs/common';
import { LOGGER, type Logger } from '../logger.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { AppNudges } from './app-nudges.ts';
import { NATS, NatsLink } from './nats.ts';

function makeLink(settings: Settings, logger: Logger): NatsLink {
  const link = new NatsLink({
    url: settings.nats.url,
    credsFile: settings.nats.credsFile,
    logsMaxBytes: settings.logsMaxBytes,
    log: (message, detail) => logger.info({ part: 'nats', ...detail }, message),
  });
  link.start();
  return link;
}

function makeNudges(nats: NatsLink): AppNudges {
  const nudges = new AppNudges(nats);
  nudges.start();
  return nudges;
}

/** The connection to NATS, for every module. */
@Global()
@Module({
  providers: [
    { provide: NATS, useFactory: makeLink, inject: [SETTINGS, LOGGER] },
    { provide: AppNudges, useFactory: makeNudges, inject: [NATS] },
  ],
  exports: [NATS, AppNudges],
})
export class NatsModule implements OnModuleDestroy, OnApplicationShutdown {
  constructor(@Inject(NATS) private readonly nats: NatsLink) {}

  /** The first hook of the end: others may wait for NATS in theirs. */
  onModuleDestroy(): void {
    this.nats.giveUpWaiting();
  }

  async onApplicationShutdown(): Promise<void> {
    await this.nats.stop();
  }
}
