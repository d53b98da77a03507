import { Global, Module } from '@nestjs/common';
import type { Tenancy } from '@bulkhead/tenancy';
import { SETTINGS, type Settings } from '../settings.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import { AuthResolver } from './auth.resolver.ts';
import { Authenticator } from './authenticator.ts';
import { SessionTokens, readJwk } from './session-tokens.ts';

async function makeAuthenticator(settings: Settings, tenancy: Tenancy): Promise<Authenticator> {
  const key = await readJwk(settings.keyDir, 'session.jwk.json');
  return new Authenticator(tenancy, await SessionTokens.fromJwk(key, tenancy.now));
}

@Global()
@Module({
  providers: [
    { provide: Authenticator, useFactory: makeAuthenticator, inject: [SETTINGS, TENANCY] },
    AuthResolver,
  ],
  exports: [Authenticator],
})
export class AuthModule {}
