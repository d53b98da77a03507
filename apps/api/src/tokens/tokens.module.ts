import { Module } from '@nestjs/common';
import { TokensResolver } from './tokens.resolver.ts';

@Module({ providers: [TokensResolver] })
export class TokensModule {}
