import {
  Inject,
  Module,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import type { Tenancy } from '@bulkhead/tenancy';
import type { FastifyInstance } from 'fastify';
import { LOGGER, type Logger } from '../logger.ts';
import { METRICS, type Metrics } from '../metrics/metrics.ts';
import { NATS, type NatsLink } from '../nats/nats.ts';
import { Fleet } from '../nodes/fleet.ts';
import { NodesModule } from '../nodes/nodes.module.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { AccessChanges } from '../tenancy/access-changes.ts';
import { TENANCY } from '../tenancy/tenancy.key.ts';
import { Readings } from './readings.ts';
import { Relay } from './relay.ts';
import { StreamSockets } from './stream-sockets.ts';
import { StreamsResolver } from './streams.resolver.ts';
import { Tickets } from './tickets.ts';

/** Streams between clients and containers; without settings for them the API asks no node for any. */
@Module({
  imports: [NodesModule],
  providers: [
    {
      provide: Relay,
      useFactory: (settings: Settings, nats: NatsLink, logger: Logger, fleet: Fleet) =>
        new Relay(settings.streams ?? nowhere, nats, logger, (node, endsAt, attendance) =>
          fleet.attend(node, endsAt, attendance),
        ),
      inject: [SETTINGS, NATS, LOGGER, Fleet],
    },
    {
      provide: Tickets,
      useFactory: (tenancy: Tenancy) => new Tickets(() => tenancy.now().getTime()),
      inject: [TENANCY],
    },
    { provide: Readings, useFactory: (relay: Relay) => new Readings(relay), inject: [Relay] },
    StreamsResolver,
  ],
})
export class StreamsModule implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #sockets: StreamSockets;

  constructor(
    @Inject(SETTINGS) private readonly settings: Settings,
    @Inject(HttpAdapterHost) private readonly host: HttpAdapterHost,
    @Inject(Relay) private readonly relay: Relay,
    @Inject(Tickets) tickets: Tickets,
    @Inject(TENANCY) tenancy: Tenancy,
    @Inject(AccessChanges) access: AccessChanges,
    @Inject(METRICS) metrics: Metrics,
    @Inject(LOGGER) log: Logger,
  ) {
    this.#sockets = new StreamSockets({ relay, tickets, tenancy, access, metrics, log });
  }

  async onApplicationBootstrap(): Promise<void> {
    this.#sockets.attach(this.host.httpAdapter.getInstance<FastifyInstance>().server);
    if (this.settings.streams) await this.relay.start();
  }

  /** Sockets first: an HTTP server does not close while they are open. */
  async beforeApplicationShutdown(): Promise<void> {
    await this.#sockets.close();
    this.relay.stop();
  }
}

const nowhere = { host: '127.0.0.1', port: 0, tlsDir: '', advertise: null };
