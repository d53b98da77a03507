import { Module } from '@nestjs/common';
import { RegistryModule } from '../registry/registry.module.ts';
import { RegistryTokens } from '../registry/registry-tokens.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { ImageResolver } from './image-resolver.ts';
import { ImagesResolver } from './images.resolver.ts';

function makeImageResolver({ registry }: Settings, tokens: RegistryTokens): ImageResolver {
  return new ImageResolver({
    registryHost: registry.host,
    ownOrigin: `${registry.scheme}://${registry.host}`,
    ownToken: async (path) =>
      (await tokens.issue('platform', [{ name: path, actions: ['pull'] }])).token,
  });
}

@Module({
  imports: [RegistryModule],
  providers: [
    { provide: ImageResolver, useFactory: makeImageResolver, inject: [SETTINGS, RegistryTokens] },
    ImagesResolver,
  ],
  exports: [ImageResolver],
})
export class ImagesModule {}
