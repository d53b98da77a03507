import { Module } from '@nestjs/common';
import { ControllersModule } from '../controllers/controllers.module.ts';
import { ResyncResolver } from './resync.resolver.ts';

@Module({ imports: [ControllersModule], providers: [ResyncResolver] })
export class ResyncModule {}
