import { RequestMethod } from '@nestjs/common';
import { ModulesContainer } from '@nestjs/core';
import { GraphQLSchemaHost } from '@nestjs/graphql';
import type { FastifyInstance } from 'fastify';
import { isObjectType } from 'graphql';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { operatorPermissions, permissions } from '@bulkhead/tenancy';
import { startTestApi, type TestApi } from '../testing/test-api.ts';
import { AccessGuard } from './access.guard.ts';
import { requirementOf, type Requirement } from './permissions.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startTestApi();
});
afterAll(() => api.close());

interface Handler {
  /** `Query.me`, `Tenant.tokens`, or `GET /healthz`. */
  name: string;
  requirement: Requirement | null;
}

/** Every method that Nest made an operation, a computed field or a route of. */
function handlers(): Handler[] {
  const found: Handler[] = [];
  for (const module of api.app.get(ModulesContainer).values()) {
    for (const { metatype } of [...module.providers.values(), ...module.controllers.values()]) {
      const prototype = (metatype as { prototype?: object } | null)?.prototype;
      if (!prototype) continue;
      for (const key of Object.getOwnPropertyNames(prototype)) {
        const method = Object.getOwnPropertyDescriptor(prototype, key)?.value as unknown;
        if (typeof method !== 'function' || key === 'constructor') continue;
        const name = operationName(method, prototype, key) ?? routeName(method, metatype as object);
        if (name) found.push({ name, requirement: requirementOf(method) });
      }
    }
  }
  return found;
}

function operationName(method: object, prototype: object, key: string): string | null {
  const named = (of: object, what: string) =>
    Reflect.getMetadata(`graphql:${what}`, of) as string | undefined;
  const field = named(method, 'resolver_name') ?? key;
  const operation = named(method, 'resolver_type');
  if (operation) return `${operation}.${field}`;
  if (!named(method, 'resolve_property')) return null;
  return `${named(prototype.constructor, 'resolver_type')}.${key}`;
}

function routeName(method: object, controller: object): string | null {
  const path = Reflect.getMetadata('path', method) as string | undefined;
  if (path === undefined) return null;
  const base = String(Reflect.getMetadata('path', controller) ?? '/');
  const verb = RequestMethod[Reflect.getMetadata('method', method) as RequestMethod];
  return `${verb} /${[base, path]
    .flatMap((part) => part.split('/'))
    .filter(Boolean)
    .join('/')}`;
}

test('no operation, computed field or route is without a declared permission', () => {
  const undeclared = handlers().filter(({ requirement }) => !requirement);
  expect(undeclared).toEqual([]);
});

test('every operation of the schema is one of these', () => {
  const known = new Set(handlers().map(({ name }) => name));
  const schema = api.app.get(GraphQLSchemaHost).schema;
  const operations = [
    schema.getQueryType(),
    schema.getMutationType(),
    schema.getSubscriptionType(),
  ].flatMap((root) =>
    Object.keys(root?.getFields() ?? {}).map((field) => `${root?.name}.${field}`),
  );
  expect(operations.length).toBeGreaterThan(25);
  expect(operations.filter((operation) => !known.has(operation))).toEqual([]);
});

test('every field that takes arguments or opens a door is one of these', () => {
  const known = new Set(handlers().map(({ name }) => name));
  const schema = api.app.get(GraphQLSchemaHost).schema;
  const withResolver = Object.values(schema.getTypeMap()).flatMap((type) =>
    isObjectType(type) && !type.name.startsWith('__')
      ? Object.values(type.getFields())
          .filter((field) => field.args.length > 0)
          .map((field) => `${type.name}.${field.name}`)
      : [],
  );
  expect(withResolver.filter((field) => !known.has(field))).toEqual([]);
});

test('only these are open to everybody', () => {
  const open = handlers().flatMap(({ name, requirement }) =>
    requirement?.kind === 'public' ? [name] : [],
  );
  expect(open.sort()).toEqual([
    'GET /healthz',
    'GET /metrics',
    'GET /readyz',
    'GET /registry/token',
    'Mutation.signIn',
    'Mutation.signUp',
    'POST /fleet/join',
  ]);
});

test('there are no routes beside these and GraphQL itself', () => {
  const fastify: FastifyInstance = api.app.getHttpAdapter().getInstance();
  const printed = fastify.printRoutes({ commonPrefix: false });
  const routes = [...printed.matchAll(/[└├]── (\S+) \(([^)]*)\)/g)].map(
    ([, path, methods]) => `${methods} ${path}`,
  );
  expect(routes.sort()).toEqual([
    'GET, HEAD /healthz',
    'GET, HEAD /metrics',
    'GET, HEAD /readyz',
    'GET, HEAD /registry/token',
    'GET, HEAD, POST /graphql',
    'POST /fleet/join',
  ]);
});

test('what is declared exists in the table of permissions', () => {
  const known: readonly string[] = [...permissions, ...operatorPermissions];
  const declared = handlers().flatMap(({ requirement }) =>
    requirement && 'permission' in requirement ? [requirement.permission] : [],
  );
  expect(declared.filter((permission) => !known.includes(permission))).toEqual([]);
});

describe('the guard', () => {
  const contextOf = (handler: () => void) =>
    ({
      getHandler: () => handler,
      getClass: () => class Forgotten {},
      getType: () => 'graphql',
    }) as never;

  test('refuses what declares nothing', () => {
    const guard = new AccessGuard({ error: () => undefined } as never);
    expect(() => guard.canActivate(contextOf(() => undefined))).toThrowError(
      expect.objectContaining({ code: 'FORBIDDEN' }),
    );
  });

  test('is in front of computed fields too', async () => {
    const { TokensResolver } = await import('../tokens/tokens.resolver.ts');
    const keys = Reflect.getMetadataKeys(TokensResolver.prototype.tokens) as string[];
    expect(keys).toContain('bulkhead:requirement');
  });
});
