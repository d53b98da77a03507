/**
 * Who is who on NATS, in operator mode: an operator signs two accounts (SYS for the server itself,
 * PLATFORM for us), and the PLATFORM account signs each user's JWT, which carries its permissions.
 * The server keeps no list of users; revoking is done on the account.
 */
import {
  createAccount,
  createOperator,
  createUser,
  decode,
  encodeAccount,
  encodeOperator,
  encodeUser,
  fmtCreds,
  fromSeed,
  type Account,
  type User,
} from '@nats-io/jwt';
import { grantOf, type NatsPermissions } from '@bulkhead/protocol/bus-access';

/** Secret seeds; whoever has them can make any user. */
export interface NatsSeeds {
  operator: string;
  system: string;
  platform: string;
  /** Signs the users of nodes that join, for the platform's account. The API has it. */
  signer: string;
}

/** The server's configuration of trust: public, nothing in it is secret. */
export interface NatsTrust {
  operatorJwt: string;
  systemAccount: string;
  accounts: { name: string; id: string; jwt: string }[];
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const keyOf = (seed: string) => fromSeed(new TextEncoder().encode(seed));

export function makeNatsSeeds(): NatsSeeds {
  return {
    operator: text(createOperator().getSeed()),
    system: text(createAccount().getSeed()),
    platform: text(createAccount().getSeed()),
    signer: text(createAccount().getSeed()),
  };
}

const unlimited = -1;
/** Server-wide ceilings of the platform's account: generous, but a runaway cannot fill the disk. */
const platformLimits: NonNullable<Account['limits']> = {
  subs: unlimited,
  data: unlimited,
  payload: 1024 * 1024,
  imports: 0,
  exports: 0,
  wildcards: false,
  conn: unlimited,
  leaf: 0,
  disallow_bearer: true,
  mem_storage: 256 * 1024 * 1024,
  disk_storage: 8 * 1024 * 1024 * 1024,
  streams: 32,
  // At least as many as one stream may have: the bucket of desired state has one for each node.
  consumer: 32_768,
  mem_max_stream_bytes: 0,
  disk_max_stream_bytes: 0,
  max_bytes_required: false,
  max_ack_pending: unlimited,
};

export async function makeNatsTrust(seeds: NatsSeeds): Promise<NatsTrust> {
  const operator = keyOf(seeds.operator);
  const system = keyOf(seeds.system);
  const platform = keyOf(seeds.platform);
  const signer = { signer: operator };
  const systemAccount = system.getPublicKey();
  return {
    operatorJwt: await encodeOperator('bulkhead', operator, { system_account: systemAccount }),
    systemAccount,
    accounts: [
      { name: 'SYS', id: systemAccount, jwt: await encodeAccount('SYS', system, {}, signer) },
      {
        name: 'PLATFORM',
        id: platform.getPublicKey(),
        jwt: await encodeAccount(
          'PLATFORM',
          platform,
          { limits: platformLimits, signing_keys: [keyOf(seeds.signer).getPublicKey()] },
          signer,
        ),
      },
    ],
  };
}

export const makeUserSeed = (): string => text(createUser().getSeed());
/** The public nkey by which others know the user. */
export const publicKeyOf = (userSeed: string): string => keyOf(userSeed).getPublicKey();

/**
 * A credentials file for a user of the PLATFORM account: a JWT that carries the permissions, and the
 * user's seed. `previous`, the text of an older file, is given back when it grants the same.
 */
export async function issueNatsCreds(
  seeds: NatsSeeds,
  user: { name: string; seed: string; permissions: NatsPermissions },
  previous: string | null = null,
): Promise<string> {
  const platform = keyOf(seeds.platform);
  const key = keyOf(user.seed);
  const grant = grantOf(user.permissions);
  const claims = previous === null ? null : readClaims(previous);
  const isCurrent =
    claims !== null &&
    previous?.includes(user.seed) === true &&
    claims.name === user.name &&
    claims.iss === platform.getPublicKey() &&
    claims.sub === key.getPublicKey() &&
    granted(claims.nats) === granted(grant);
  if (previous !== null && isCurrent) return previous;
  return text(fmtCreds(await encodeUser(user.name, key, platform, grant), key));
}

const granted = (user: Partial<User>) =>
  JSON.stringify([
    user.pub?.allow,
    user.sub?.allow,
    user.allowed_connection_types,
    user.bearer_token ?? false,
  ]);

function readClaims(creds: string) {
  const jwt = /BEGIN NATS USER JWT-+\s+(\S+)/.exec(creds)?.[1];
  try {
    return jwt === undefined ? null : decode<User>(jwt);
  } catch {
    return null;
  }
}
