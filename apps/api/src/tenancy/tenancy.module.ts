import { setTimeout as delay } from 'node:timers/promises';
import { Global, Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import { DomainError } from '@bulkhead/protocol';
import { Tenancy } from '@bulkhead/tenancy';
import { readJwk } from '../auth/session-tokens.ts';
import { LOGGER, type Logger } from '../logger.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { AccessChanges } from './access-changes.ts';
import { TENANCY } from './tenancy.key.ts';

export { TENANCY };

/** How often the database is tried at the start, a second apart: it may be starting too. */
const attempts = 30;

/** Connects to the database. @throws Error when it does not answer for half a minute. */
export async function connectTenancy(settings: Settings, logger: Logger): Promise<Tenancy> {
  const configKey = await readJwk(settings.keyDir, 'config.jwk.json');
  for (let attempt = 1; ; attempt += 1) {
    try {
      const { databaseUrl, maxTenantsPerUser } = settings;
      return await Tenancy.connect({ databaseUrl, configKey, maxTenantsPerUser });
    } catch (error) {
      const mayComeYet = error instanceof DomainError && error.code === 'UNAVAILABLE';
      if (!mayComeYet || attempt === attempts) throw error;
      logger.warn({ attempt }, 'the database does not answer yet');
      await delay(1000);
    }
  }
}

@Global()
@Module({
  providers: [
    { provide: TENANCY, useFactory: connectTenancy, inject: [SETTINGS, LOGGER] },
    AccessChanges,
  ],
  exports: [TENANCY, AccessChanges],
})
export class TenancyModule implements OnApplicationShutdown {
  constructor(@Inject(TENANCY) private readonly tenancy: Tenancy) {}

  async onApplicationShutdown(): Promise<void> {
    await this.tenancy.close();
  }
}
