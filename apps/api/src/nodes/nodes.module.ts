import { Module } from '@nestjs/common';
import { NodesResolver } from './nodes.resolver.ts';

@Module({ providers: [NodesResolver] })
export class NodesModule {}
