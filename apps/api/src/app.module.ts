import { Global, Module, type DynamicModule } from '@nestjs/common';
import { APP_FILTER, APP_GUARD } from '@nestjs/core';
import { AppsModule } from './apps/apps.module.ts';
import { AuditModule } from './audit/audit.module.ts';
import { AccessGuard } from './auth/access.guard.ts';
import { AuthModule } from './auth/auth.module.ts';
import { ConfigModule } from './config/config.module.ts';
import { ControllersModule } from './controllers/controllers.module.ts';
import { DeploymentsModule } from './deployments/deployments.module.ts';
import { GraphqlModule } from './graphql/graphql.module.ts';
import { HealthModule } from './health/health.module.ts';
import { HttpErrorsFilter } from './http-errors.filter.ts';
import { ImagesModule } from './images/images.module.ts';
import { InstancesModule } from './instances/instances.module.ts';
import { LOGGER, type Logger } from './logger.ts';
import { LogsModule } from './logs/logs.module.ts';
import { MembersModule } from './members/members.module.ts';
import { METRICS, Metrics } from './metrics/metrics.ts';
import { NatsModule } from './nats/nats.module.ts';
import { NodesModule } from './nodes/nodes.module.ts';
import { ResyncModule } from './resync/resync.module.ts';
import { RegistryModule } from './registry/registry.module.ts';
import { ReleasesModule } from './releases/releases.module.ts';
import { SETTINGS, type Settings } from './settings.ts';
import { StreamsModule } from './streams/streams.module.ts';
import { TenancyModule } from './tenancy/tenancy.module.ts';
import { TenantsModule } from './tenants/tenants.module.ts';
import { TokensModule } from './tokens/tokens.module.ts';

const features = [
  AuthModule,
  TenantsModule,
  MembersModule,
  TokensModule,
  AuditModule,
  AppsModule,
  ConfigModule,
  ReleasesModule,
  DeploymentsModule,
  InstancesModule,
  LogsModule,
  ImagesModule,
  NodesModule,
  ResyncModule,
  StreamsModule,
];

/** What the process was started with, for every module. */
@Global()
@Module({})
class StartModule {
  static with(settings: Settings, logger: Logger): DynamicModule {
    return {
      module: StartModule,
      providers: [
        { provide: SETTINGS, useValue: settings },
        { provide: LOGGER, useValue: logger },
        { provide: METRICS, useClass: Metrics },
      ],
      exports: [SETTINGS, LOGGER, METRICS],
    };
  }
}

@Module({})
export class AppModule {
  static with(settings: Settings, logger: Logger): DynamicModule {
    return {
      module: AppModule,
      imports: [
        StartModule.with(settings, logger),
        NatsModule,
        TenancyModule,
        ...features,
        GraphqlModule,
        RegistryModule,
        HealthModule,
        ControllersModule,
      ],
      providers: [
        { provide: APP_GUARD, useClass: AccessGuard },
        { provide: APP_FILTER, useClass: HttpErrorsFilter },
      ],
    };
  }
}
