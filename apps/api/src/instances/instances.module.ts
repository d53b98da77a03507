import { Module } from '@nestjs/common';
import { InstancesResolver } from './instances.resolver.ts';

@Module({ providers: [InstancesResolver] })
export class InstancesModule {}
