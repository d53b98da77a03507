import { Module } from '@nestjs/common';
import { ConfigResolver } from './config.resolver.ts';

@Module({ providers: [ConfigResolver] })
export class ConfigModule {}
