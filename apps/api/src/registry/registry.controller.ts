/**
 * The token endpoint of the platform's registry
 * (https://distribution.github.io/distribution/spec/auth/token/): `docker login` and nodes come
 * here with Basic authentication and leave with a token for what they may pull and push.
 */
import { Controller, Get, Headers, Inject, Query, Req, Res } from '@nestjs/common';
import { DomainError, invalid, unauthenticated } from '@bulkhead/protocol';
import type { Caller, Tenancy } from '@bulkhead/tenancy';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Authenticator } from '../auth/authenticator.ts';
import { Public } from '../auth/permissions.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import {
  RegistryTokens,
  registryService,
  registryTokenLifetime,
  type RepositoryAccess,
} from './registry-tokens.ts';
import { readScopes, type RequestedScope } from './scopes.ts';

const nodeName = /^n[a-z0-9]{12}$/;

@Controller('registry')
export class RegistryController {
  constructor(
    @Inject(SETTINGS) private readonly settings: Settings,
    @Inject(TENANCY) private readonly tenancy: Tenancy,
    @Inject(Authenticator) private readonly authenticator: Authenticator,
    @Inject(RegistryTokens) private readonly tokens: RegistryTokens,
  ) {}

  @Get('token')
  @Public('it asks for Basic credentials itself, and gives only what these may do')
  async token(
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
    @Headers('authorization') authorization: string | undefined,
    @Query('service') service: string | undefined,
    @Query('scope') scope: string | string[] | undefined,
  ) {
    reply.header('cache-control', 'no-store');
    if (service !== undefined && service !== registryService) {
      throw invalid(`This endpoint makes tokens for ${registryService} only`);
    }
    try {
      const { name, password } = readBasic(authorization);
      const scopes = readScopes(scope);
      const { subject, access } = nodeName.test(name)
        ? await this.#forNode(name, password, scopes)
        : await this.#forUser(await this.authenticator.basic(name, password, request.ip), scopes);
      const { token, issuedAt } = await this.tokens.issue(subject, access);
      return {
        token,
        access_token: token,
        expires_in: registryTokenLifetime,
        issued_at: issuedAt.toISOString(),
      };
    } catch (error) {
      if (error instanceof DomainError && error.code === 'UNAUTHENTICATED') {
        reply.header('www-authenticate', 'Basic realm="bulkhead registry"');
      }
      throw error;
    }
  }

  async #forNode(id: string, secret: string, scopes: readonly RequestedScope[]) {
    const node = await this.tenancy.nodeFromRegistrySecret(id, secret);
    const access: RepositoryAccess[] = [];
    for (const { name, actions } of scopes) {
      const repository = `${this.settings.registry.host}/${name}`;
      if (!actions.includes('pull') || !(await this.tenancy.mayPull(node.id, repository))) continue;
      access.push({ name, actions: ['pull'] });
    }
    return { subject: node.id, access };
  }

  async #forUser(caller: Caller, scopes: readonly RequestedScope[]) {
    const access: RepositoryAccess[] = [];
    for (const { name, tenant, actions } of scopes) {
      const granted: RepositoryAccess['actions'] = [];
      for (const action of actions) {
        const permission = `registry.${action}` as const;
        if (await this.tenancy.may(caller, { tenant, permission })) granted.push(action);
      }
      if (granted.length > 0) access.push({ name, actions: granted });
      if (granted.includes('push')) await this.#writeDown(caller, tenant, name);
    }
    return { subject: caller.userId, access };
  }

  /** The registry does not tell us of a push; that somebody may push now is what we can keep. */
  #writeDown(caller: Caller, tenant: string, name: string): Promise<void> {
    const access = { tenant, permission: 'registry.push' } as const;
    return this.tenancy.run(caller, access, (tx) =>
      tx.audit.write('registry.push', `image:${name}`),
    );
  }
}

/** @throws DomainError UNAUTHENTICATED when there are none. */
function readBasic(authorization: string | undefined): { name: string; password: string } {
  const [, encoded] = /^basic\s+([A-Za-z0-9+/=]+)$/i.exec(authorization ?? '') ?? [];
  const decoded = Buffer.from(encoded ?? '', 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon < 1 || decoded.length > 4096) {
    throw unauthenticated('Log in with your email and password, or as `token` with an API token');
  }
  return { name: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}
