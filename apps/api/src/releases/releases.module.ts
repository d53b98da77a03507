import { Module } from '@nestjs/common';
import { AppReleasesResolver, ReleasesResolver } from './releases.resolver.ts';

@Module({ providers: [ReleasesResolver, AppReleasesResolver] })
export class ReleasesModule {}
