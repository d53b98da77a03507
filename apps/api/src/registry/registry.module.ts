import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Module } from '@nestjs/common';
import type { Tenancy } from '@bulkhead/tenancy';
import { SETTINGS, type Settings } from '../settings.ts';
import { TENANCY } from '../tenancy/tenancy.key.ts';
import { RegistryController } from './registry.controller.ts';
import { RegistryTokens } from './registry-tokens.ts';

async function makeTokens(settings: Settings, tenancy: Tenancy): Promise<RegistryTokens> {
  const path = join(settings.keyDir, 'registry-token.key.pem');
  try {
    return new RegistryTokens(await readFile(path, 'utf8'), tenancy.now);
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? 'it is no private key';
    throw new Error(
      `The API cannot start; the key ${path} (BULKHEAD_KEY_DIR) cannot be read: ${reason}`,
    );
  }
}

@Module({
  controllers: [RegistryController],
  providers: [{ provide: RegistryTokens, useFactory: makeTokens, inject: [SETTINGS, TENANCY] }],
  exports: [RegistryTokens],
})
export class RegistryModule {}
