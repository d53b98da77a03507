import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Caller, Tenancy } from '@bulkhead/tenancy';
import { createTestDatabase, type TestDatabase } from '@bulkhead/tenancy/testing';
import { Authenticator } from '../auth/authenticator.ts';
import { createApp } from '../create-app.ts';
import { makeLogger } from '../logger.ts';
import type { Settings } from '../settings.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import { TestNatsServer } from './nats-server.ts';

export interface GraphqlAnswer {
  status: number;
  body: {
    data?: Record<string, never> | null;
    errors?: { message: string; path?: unknown[]; extensions: Record<string, unknown> }[];
  };
}

/** The whole API on a free port, with a real database and a real nats-server of its own. */
export interface TestApi {
  app: NestFastifyApplication;
  url: string;
  db: TestDatabase;
  /** The API's own: what is sealed in the database is sealed with its key. */
  tenancy: Tenancy;
  nats: TestNatsServer;
  settings: Settings;
  /** Sends an operation; `as` is a caller, a bearer token, or nobody. */
  graphql(query: string, variables?: object, as?: Caller | string): Promise<GraphqlAnswer>;
  /** A session token of a user, without their password. */
  sessionOf(caller: Caller): Promise<string>;
  close(): Promise<void>;
}

/** @param changes settings of the API that differ from those of production. */
export async function startTestApi(changes: Partial<Settings> = {}): Promise<TestApi> {
  const [db, nats, keyDir] = await Promise.all([
    createTestDatabase(),
    TestNatsServer.start(),
    makeKeyDir(),
  ]);
  const settings: Settings = {
    databaseUrl: db.url,
    nats: { url: nats.url, credsFile: null },
    keyDir,
    host: '127.0.0.1',
    port: 0,
    platformDomain: 'localhost',
    edgePublicPort: 8080,
    registry: { host: '127.0.0.1:5000', scheme: 'http' },
    trustedProxies: [],
    metricsPublic: false,
    maxTenantsPerUser: 3,
    mostMoves: 5,
    signUpOpen: true,
    streams: null,
    fleet: null,
    controllers: false,
    logLevel: process.env['TEST_LOG_LEVEL'] ?? 'silent',
    logsMaxBytes: 67_108_864,
    ...changes,
  };
  const dispose = () =>
    Promise.all([nats.dispose(), db.drop(), rm(keyDir, { recursive: true, force: true })]);
  const app = await createApp(settings, makeLogger(settings.logLevel)).catch(
    async (error: unknown) => {
      await dispose();
      throw error;
    },
  );
  await app.listen(settings.port, settings.host);
  const url = await app.getUrl();

  const sessionOf = async (caller: Caller) => {
    const sessions = app.get(Authenticator).sessions;
    // Users of tests have never signed out everywhere.
    return (await sessions.issue({ userId: caller.userId, epoch: 0 })).token;
  };
  return {
    app,
    url,
    db,
    tenancy: app.get<Tenancy>(TENANCY),
    nats,
    settings,
    sessionOf,
    graphql: async (query, variables, as) => {
      const token = typeof as === 'object' ? await sessionOf(as) : as;
      const response = await fetch(`${url}/graphql`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
        },
        body: JSON.stringify({ query, variables }),
      });
      return {
        status: response.status,
        body: (await response.json()) as GraphqlAnswer['body'],
      };
    },
    close: async () => {
      await app.close();
      await dispose();
    },
  };
}

/** The keys that the deployment makes, for one test. */
async function makeKeyDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'bulkhead-keys-'));
  const symmetric = (alg: string) =>
    JSON.stringify({ kty: 'oct', alg, k: randomBytes(32).toString('base64url') });
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  await Promise.all([
    writeFile(join(dir, 'session.jwk.json'), symmetric('HS256')),
    writeFile(join(dir, 'config.jwk.json'), symmetric('A256GCM')),
    writeFile(
      join(dir, 'registry-token.key.pem'),
      privateKey.export({ type: 'pkcs8', format: 'pem' }),
    ),
  ]);
  return dir;
}
