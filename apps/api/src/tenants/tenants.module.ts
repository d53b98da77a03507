import { Module } from '@nestjs/common';
import { TenantsResolver } from './tenants.resolver.ts';

@Module({ providers: [TenantsResolver] })
export class TenantsModule {}
