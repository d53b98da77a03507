/** nats-server, its accounts, and the credentials of the API, the edge and the nodes. */
import { createHash } from 'node:crypto';
import { copyFile, readFile, rename } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import {
  ensureDirectory,
  ensureServiceDirectory,
  ensureFile,
  ensureFileOnce,
  readTextIfThere,
  setOwnerAndMode,
  root,
  type Owner,
} from '../files.ts';
import { natsConfig } from '../nats/config.ts';
import {
  issueNatsCreds,
  makeNatsSeeds,
  makeNatsTrust,
  makeUserSeed,
  publicKeyOf,
  type NatsSeeds,
} from '../nats/identity.ts';
import type { NatsPermissions } from '@bulkhead/protocol/bus-access';
import type { Layout, PlatformSettings } from '../settings.ts';
import type { Service } from '../supervise.ts';

const configFile = (paths: Layout) => join(paths.nats, 'nats-server.conf');
const binaryFile = (paths: Layout) => join(paths.bin, 'nats-server');

export const natsUrl = (settings: PlatformSettings) =>
  `nats://${settings.host}:${settings.ports.nats}`;

/** The keys of this platform's NATS, made once. Root only: with them, any user can be made. */
export async function ensureNatsSeeds(paths: Layout): Promise<NatsSeeds> {
  const file = join(paths.rootKeys, 'nats-seeds.json');
  const made = makeNatsSeeds();
  const known = JSON.parse(
    await ensureFileOnce(file, () => JSON.stringify(made, null, 2), 0o600),
  ) as Partial<NatsSeeds>;
  // A platform from before there was more than one host has no signer.
  const seeds = { ...made, ...known };
  await ensureFile(file, JSON.stringify(seeds, null, 2), 0o600);
  return seeds;
}

/** By what the API makes users of nodes that join. */
export async function ensureNatsSigner(
  seeds: NatsSeeds,
  paths: Layout,
  owner: Owner,
): Promise<void> {
  const { signer, platform } = seeds;
  const content = JSON.stringify({ signer, account: publicKeyOf(platform) });
  await ensureFile(join(paths.apiKeys, 'nats-signer.json'), content, 0o600, owner);
}

/** A user's key, made once: its public half can be registered before there are credentials. */
export const ensureNatsUserSeed = (paths: Layout, user: string): Promise<string> =>
  ensureFileOnce(join(paths.rootKeys, `nats-user-${user}.seed`), makeUserSeed, 0o600);

/** A credentials file that grants exactly `permissions`, kept while it does. */
export async function ensureNatsCreds(
  seeds: NatsSeeds,
  file: string,
  user: { name: string; seed: string; permissions: NatsPermissions },
  owner: Owner,
): Promise<void> {
  await ensureFile(
    file,
    await issueNatsCreds(seeds, user, await readTextIfThere(file)),
    0o600,
    owner,
  );
}

/** Puts binary and configuration in place. */
export async function ensureNatsFiles(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  seeds: NatsSeeds,
  binary: string,
): Promise<void> {
  await ensureServiceDirectory(paths.nats, owner);
  await ensureDirectory(join(paths.nats, 'jetstream'), 0o700, owner);
  await ensureBinary(binary, binaryFile(paths));
  const previous = await readTextIfThere(configFile(paths));
  const trust = await makeNatsTrust(seeds);
  const text = natsConfig({
    host: settings.host,
    port: settings.ports.nats,
    storeDir: join(paths.nats, 'jetstream'),
    trust,
  });
  // Each signing gives other JWTs (time, id): what is the same apart from them is kept.
  if (previous !== null && withoutSignatures(previous) === withoutSignatures(text)) return;
  await ensureFile(configFile(paths), text, 0o600, owner);
}

/** The configuration with each JWT reduced to its claims other than time and id. */
export function withoutSignatures(config: string): string {
  return config.replace(/eyJ[\w-]+\.([\w-]+)\.[\w-]+/g, (_, claims: string) => {
    const {
      iat: _iat,
      jti: _jti,
      ...rest
    } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as Record<string, unknown>;
    return JSON.stringify(rest);
  });
}

async function ensureBinary(from: string, to: string): Promise<void> {
  const hash = (file: string) =>
    readFile(file).then(
      (bytes) => createHash('sha256').update(bytes).digest('hex'),
      () => null,
    );
  if ((await hash(to)) === (await hash(from))) return;
  await copyFile(from, `${to}.new`);
  await setOwnerAndMode(`${to}.new`, 0o755, root);
  await rename(`${to}.new`, to);
}

export function natsService(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  fingerprint: string,
): Service {
  return {
    name: 'nats',
    owner,
    command: [binaryFile(paths), '--config', configFile(paths)],
    // The fingerprint changes with binary and configuration, and with it the run script: a restart.
    env: {
      BULKHEAD_STATE: settings.stateDir,
      BULKHEAD_SERVICE: 'nats',
      BULKHEAD_FINGERPRINT: fingerprint,
    },
    seesClone: false,
    check: () => greets(settings.host, settings.ports.nats),
  };
}

/** Hash of what nats-server reads at its start. */
export async function natsFingerprint(paths: Layout): Promise<string> {
  const hash = createHash('sha256');
  for (const file of [binaryFile(paths), configFile(paths)]) hash.update(await readFile(file));
  return hash.digest('hex').slice(0, 16);
}

/** A NATS server speaks first: `INFO {...}`. */
function greets(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, timeout: 2_000 });
    const finish = (error?: Error) => {
      socket.destroy();
      if (error === undefined) resolve();
      else reject(error);
    };
    socket.once('data', (data) =>
      finish(data.toString().startsWith('INFO ') ? undefined : new Error('this is not NATS')),
    );
    socket.once('error', finish).once('timeout', () => finish(new Error('no greeting')));
  });
}
