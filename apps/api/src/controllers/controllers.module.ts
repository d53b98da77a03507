import {
  Inject,
  Module,
  type OnApplicationBootstrap,
  type BeforeApplicationShutdown,
} from '@nestjs/common';
import type { Tenancy } from '@bulkhead/tenancy';
import { LOGGER, type Logger } from '../logger.ts';
import { METRICS, type Metrics } from '../metrics/metrics.ts';
import type { NatsLink } from '../nats/nats.ts';
import { NATS } from '../nats/nats.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import { Controllers } from './controllers.ts';
import { metrics } from './metrics.ts';

/** The key of the Controllers in Nest's container. */
export const CONTROLLERS = Symbol('CONTROLLERS');

function makeControllers(
  tenancy: Tenancy,
  nats: NatsLink,
  settings: Settings,
  logger: Logger,
): Controllers {
  const { platformDomain, mostMoves } = settings;
  return new Controllers({ tenancy, nats, logger, platformDomain, mostMoves });
}

/** Runs the control loops in this process, unless CONTROLLERS=off leaves them to other replicas. */
@Module({
  providers: [
    {
      provide: CONTROLLERS,
      useFactory: makeControllers,
      inject: [TENANCY, NATS, SETTINGS, LOGGER],
    },
  ],
  exports: [CONTROLLERS],
})
export class ControllersModule implements OnApplicationBootstrap, BeforeApplicationShutdown {
  constructor(
    @Inject(CONTROLLERS) private readonly controllers: Controllers,
    @Inject(SETTINGS) private readonly settings: Settings,
    @Inject(METRICS) { registry }: Metrics,
  ) {
    for (const metric of Object.values(metrics)) registry.registerMetric<string>(metric);
  }

  onApplicationBootstrap(): void {
    if (this.settings.controllers) this.controllers.start();
  }

  /** Before NATS and the database are let go, which is done in the hook after this one. */
  async beforeApplicationShutdown(): Promise<void> {
    await this.controllers.stop();
  }
}
