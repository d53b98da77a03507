import { Module } from '@nestjs/common';
import { InstancesResolver } from './instances.resolver.ts';
import { OrdersResolver } from './orders.resolver.ts';

@Module({ providers: [InstancesResolver, OrdersResolver] })
export class InstancesModule {}
