import {
  Inject,
  Module,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import type { Tenancy } from '@bulkhead/tenancy';
import { ControllersModule } from '../controllers/controllers.module.ts';
import { Loop } from '../controllers/loop.ts';
import { LOGGER, type Logger } from '../logger.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import { Fleet } from './fleet.ts';
import { Gate } from './gate.ts';
import { JoinController } from './join.controller.ts';
import { NodesResolver } from './nodes.resolver.ts';

/** How often the gate's list is compared with the database, milliseconds. */
const gateMs = 2_000;

const GATE = Symbol('GATE');

@Module({
  imports: [ControllersModule],
  controllers: [JoinController],
  providers: [
    NodesResolver,
    {
      provide: GATE,
      useFactory: ({ fleet }: Settings) => {
        const socket = fleet?.gateSocket ?? null;
        return socket === null ? null : new Gate(socket, socket.replace(/[^/]+$/, 'nodes.acl'));
      },
      inject: [SETTINGS],
    },
    {
      provide: Fleet,
      useFactory: (settings: Settings, tenancy: Tenancy, gate: Gate | null) =>
        new Fleet({ settings, tenancy, gate }),
      inject: [SETTINGS, TENANCY, GATE],
    },
  ],
  exports: [Fleet],
})
export class NodesModule implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #loop: Loop | null;

  constructor(
    @Inject(GATE) gate: Gate | null,
    @Inject(TENANCY) tenancy: Tenancy,
    @Inject(LOGGER) log: Logger,
  ) {
    this.#loop =
      gate &&
      new Loop({
        everyMs: gateMs,
        work: async () => {
          const { admitted, shutOut } = await gate.sync(() =>
            tenancy.platform((tx) => tx.nodes.ids()),
          );
          if (admitted + shutOut > 0) log.info({ part: 'gate', admitted, shutOut }, 'the gate');
          return 'done';
        },
        onError: (error) => log.error({ part: 'gate', err: error }, 'failed, tried again later'),
      });
  }

  onApplicationBootstrap(): void {
    this.#loop?.start();
  }

  async beforeApplicationShutdown(): Promise<void> {
    await this.#loop?.stop();
  }
}
