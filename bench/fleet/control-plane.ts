/** The control plane of the simulated fleet: the built API with its controllers, PostgreSQL and NATS. */
import { spawn, type ChildProcess } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { apiPermissions, type NatsPermissions } from '@bulkhead/protocol/bus-access';
import { Tenancy } from '@bulkhead/tenancy';
import { natsServerBinary } from '../../deploy/nats/binary.ts';
import { natsConfig } from '../../deploy/nats/config.ts';
import {
  issueNatsCreds,
  makeNatsSeeds,
  makeNatsTrust,
  makeUserSeed,
} from '../../deploy/nats/identity.ts';
import { until } from '../../e2e/support/until.ts';
import { startPostgres, type Postgres } from './postgres.ts';

const root = join(import.meta.dirname, '../..');
const ports = { api: 16_085, nats: 16_086, natsMonitor: 16_087 };

/** What NATS has carried since its start. */
export interface Carried {
  readonly messages: number;
  readonly bytes: number;
}

export interface ControlPlane {
  readonly postgres: Postgres;
  readonly tenancy: Tenancy;
  readonly natsUrl: string;
  readonly pids: { readonly api: number; readonly postgres: number; readonly nats: number };
  /** Credentials for a user of NATS. */
  credsOf(name: string, permissions: NatsPermissions): Promise<string>;
  /** In and out. */
  carried(): Promise<Carried>;
  /** The API's own metrics. */
  metrics(): Promise<string>;
}

export async function startControlPlane(
  dir: string,
  ends: (() => Promise<unknown>)[],
): Promise<ControlPlane> {
  const postgres = await startPostgres(join(dir, 'postgres'), ends);
  const keyDir = await makeKeys(join(dir, 'keys'));
  const seeds = makeNatsSeeds();
  const credsOf = (name: string, permissions: NatsPermissions) =>
    issueNatsCreds(seeds, { name, seed: makeUserSeed(), permissions });
  const credsFile = join(keyDir, 'nats.creds');
  await writeFile(credsFile, await credsOf('api', apiPermissions()), { mode: 0o600 });

  const natsFile = join(dir, 'nats.conf');
  const at = { host: '127.0.0.1', port: ports.nats, storeDir: join(dir, 'jetstream') };
  await writeFile(natsFile, natsConfig({ ...at, trust: await makeNatsTrust(seeds) }));
  // A monitoring port, which production has not: somebody must count.
  const monitor = ['-a', '127.0.0.1', '-m', String(ports.natsMonitor)];
  const nats = start(natsServerBinary(root), ['-c', natsFile, ...monitor], {}, 'ignore', ends);
  const natsUrl = `nats://127.0.0.1:${ports.nats}`;
  const varz = `http://127.0.0.1:${ports.natsMonitor}/varz`;
  await until('nats-server answers', async () => (await fetch(varz)).ok);

  const env = {
    ...{ DATABASE_URL: postgres.url, NATS_URL: natsUrl, NATS_CREDS_FILE: credsFile },
    ...{ BULKHEAD_KEY_DIR: keyDir, API_PORT: String(ports.api), NODE_ENV: 'production' },
    ...{ PATH: process.env['PATH'], LOG_LEVEL: 'warn' },
  };
  const log = openSync(join(dir, 'api.log'), 'w');
  const api = start(process.execPath, [join(root, 'apps/api/dist/main.js')], env, log, ends);
  const url = `http://127.0.0.1:${ports.api}`;
  await until('the API is ready', async () => (await fetch(`${url}/readyz`)).ok);

  const tenancy = await Tenancy.connect({
    databaseUrl: postgres.url,
    configKey: JSON.parse(await readFile(join(keyDir, 'config.jwk.json'), 'utf8')),
    maxTenantsPerUser: 1000,
  });
  ends.push(() => tenancy.close());
  return {
    ...{ postgres, tenancy, natsUrl, credsOf },
    pids: { api: api.pid!, postgres: postgres.pid, nats: nats.pid! },
    carried: async () => {
      const now = (await (await fetch(varz)).json()) as Record<string, number>;
      return {
        messages: now['in_msgs']! + now['out_msgs']!,
        bytes: now['in_bytes']! + now['out_bytes']!,
      };
    },
    metrics: async () => (await fetch(`${url}/metrics`)).text(),
  };
}

function start(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  output: 'ignore' | number,
  ends: (() => Promise<unknown>)[],
): ChildProcess {
  const child = spawn(program, [...args], { env, stdio: ['ignore', output, output] });
  ends.push(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return child;
}

/** As the deployment makes them. */
async function makeKeys(dir: string): Promise<string> {
  await mkdir(dir, { mode: 0o700 });
  const symmetric = (alg: string) =>
    JSON.stringify({ kty: 'oct', alg, k: randomBytes(32).toString('base64url') });
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  await writeFile(join(dir, 'session.jwk.json'), symmetric('HS256'), { mode: 0o600 });
  await writeFile(join(dir, 'config.jwk.json'), symmetric('A256GCM'), { mode: 0o600 });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  await writeFile(join(dir, 'registry-token.key.pem'), pem, { mode: 0o600 });
  return dir;
}
