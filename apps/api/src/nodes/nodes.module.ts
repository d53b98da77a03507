import { Module } from '@nestjs/common';
import { ControllersModule } from '../controllers/controllers.module.ts';
import { NodesResolver } from './nodes.resolver.ts';

@Module({ imports: [ControllersModule], providers: [NodesResolver] })
export class NodesModule {}
