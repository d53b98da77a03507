import { Module } from '@nestjs/common';
import { AppsResolver, TenantAppsResolver } from './apps.resolver.ts';

@Module({ providers: [AppsResolver, TenantAppsResolver] })
export class AppsModule {}
