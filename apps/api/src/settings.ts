import { readFileSync } from 'node:fs';
import { compile } from '@fastify/proxy-addr';
import { z } from 'zod';
import type { RelaySettings } from './streams/relay.ts';

/** The key of the settings in Nest's container. */
export const SETTINGS = Symbol('SETTINGS');

const port = z.coerce.number().int().min(0).max(65_535);
const portOr = (number: number) => port.default(number);

/** Addresses and networks, with commas or blanks between; empty: none. */
const networks = z
  .string()
  .default('')
  .transform((text) => text.split(/[\s,]+/).filter((part) => part !== ''))
  .refine(areNetworks, 'write addresses or networks, with commas between: 127.0.0.1, 10.0.0.0/8');

function areNetworks(list: readonly string[]): boolean {
  try {
    compile([...list]);
    return list.every((part) => /[.:]/.test(part));
  } catch {
    return false;
  }
}

const environment = z
  .object({
    DATABASE_URL: z.string().startsWith('postgres').optional(),
    DATABASE_URL_FILE: z.string().min(1).optional(),
    NATS_URL: z.string().min(1).default('nats://127.0.0.1:4222'),
    NATS_CREDS_FILE: z.string().min(1).optional(),
    BULKHEAD_KEY_DIR: z.string().min(1),
    API_HOST: z.string().min(1).default('127.0.0.1'),
    API_PORT: portOr(4000),
    PLATFORM_DOMAIN: z.string().min(1).default('localhost'),
    EDGE_PUBLIC_PORT: portOr(8080),
    REGISTRY_HOST: z
      .string()
      .regex(/^[a-z0-9.-]+(:[0-9]+)?$/, 'write it as host:port, without a scheme')
      .default('127.0.0.1:5000'),
    REGISTRY_SCHEME: z.enum(['http', 'https']).default('http'),
    /** Whose X-Forwarded-For is believed: the TLS proxies in front. */
    TRUSTED_PROXIES: networks,
    /** `off`: /metrics answers on loopback only, and to nobody who comes through a proxy. */
    METRICS_PUBLIC: z.enum(['on', 'off']).default('off'),
    /** How many tenants a user may own who is no operator. */
    MAX_TENANTS_PER_USER: z.coerce.number().int().min(0).max(1_000_000).default(3),
    REBALANCE_MOVES: z.coerce.number().int().min(0).max(1_000).default(5),
    SIGN_UP: z.enum(['open', 'closed']).default('open'),
    /** Where agents dial for streams: commands, copies, forwarded ports. Without STREAMS_PORT there are none. */
    STREAMS_HOST: z.string().min(1).default('127.0.0.1'),
    STREAMS_PORT: port.optional(),
    /** Has ca.pem, cert.pem and key.pem. */
    STREAMS_TLS_DIR: z.string().min(1).optional(),
    /** What agents dial, where it is not host and port. */
    STREAMS_ADVERTISE: z
      .string()
      .regex(/^[^\s:]+:\d+$/, 'write it as host:port')
      .optional(),
    /**
     * Where clients reach this very replica's /streams, when several answer to one name: an address,
     * or what a balancer knows it by behind the path, /streams?replica=2.
     */
    STREAMS_PUBLIC_URL: z
      .union([z.url({ protocol: /^wss?$/ }), z.string().regex(/^\/streams\?[a-z0-9=-]+$/)])
      .optional(),
    /** IPv4 address by which other hosts reach this one. Without it none can join. */
    FLEET_ADDRESS: z.ipv4().optional(),
    /** Where nodes attend and ask for tokens of the registry there, when it is not at this replica's ports. */
    FLEET_STREAMS_PORT: port.optional(),
    FLEET_API_PORT: port.optional(),
    /** The port there at which hosts join. */
    FLEET_JOIN_PORT: portOr(4103),
    /** Addresses of the hosts with an edge; FLEET_ADDRESS when empty. */
    FLEET_EDGES: networks,
    /** Admin socket of the gate, by which it is told whom to let in. */
    GATE_SOCKET: z.string().startsWith('/').optional(),
    CONTROLLERS: z.enum(['on', 'off']).default('on'),
    LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
    /** Most bytes of tenants' logs that JetStream keeps; the oldest go first. */
    LOGS_MAX_BYTES: z.coerce.number().int().min(1_048_576).default(1_073_741_824),
  })
  .refine((env) => env.DATABASE_URL !== undefined || env.DATABASE_URL_FILE !== undefined, {
    path: ['DATABASE_URL_FILE'],
    message: 'set it to a file that holds the PostgreSQL URL (or set DATABASE_URL)',
  });

/** Everything the API is told from outside, checked once at the start. */
export interface Settings {
  databaseUrl: string;
  nats: { url: string; credsFile: string | null };
  keyDir: string;
  host: string;
  port: number;
  /** Apps live at `<app>.<tenant>.<platformDomain>:<edgePublicPort>`. */
  platformDomain: string;
  edgePublicPort: number;
  registry: { host: string; scheme: 'http' | 'https' };
  /** Addresses and networks of the proxies that say truly who their client is. */
  trustedProxies: readonly string[];
  /** Whether everybody who reaches the API reads its metrics, or loopback alone. */
  metricsPublic: boolean;
  maxTenantsPerUser: number;
  /** Instances that may be under way at once to spread their processes; 0: none is moved. */
  mostMoves: number;
  signUpOpen: boolean;
  /** Null: this replica opens none. */
  streams: (RelaySettings & { readonly publicUrl: string | null }) | null;
  /** Null: this host is the whole fleet. */
  fleet: FleetSettings | null;
  controllers: boolean;
  logLevel: string;
  logsMaxBytes: number;
}

export interface FleetSettings {
  /** By which other hosts reach this one. */
  readonly address: string;
  readonly joinPort: number;
  /** Where nodes attend, and where they ask for tokens of the registry. */
  readonly streamsPort: number;
  readonly apiPort: number;
  readonly edges: readonly string[];
  /** Null: nobody is let in or out by this replica. */
  readonly gateSocket: string | null;
}

/** What is wrong with the environment, one line for each variable; nothing of a value is repeated. */
export class SettingsError extends Error {}

/** @throws SettingsError naming every variable that is missing or wrong. */
export function readSettings(env: Readonly<Record<string, string | undefined>>): Settings {
  const parsed = environment.safeParse(withoutEmpty(env));
  if (!parsed.success) {
    const lines = parsed.error.issues.map(({ path, message }) => {
      const variable = path.join('.');
      const unset = env[variable] === undefined || env[variable] === '';
      return `  ${variable}: ${unset && !message.startsWith('set it') ? 'is not set' : message}`;
    });
    throw new SettingsError(
      `The API cannot start; correct these environment variables:\n${lines.join('\n')}`,
    );
  }
  const values = parsed.data;
  return {
    databaseUrl:
      values.DATABASE_URL ?? readSecret('DATABASE_URL_FILE', values.DATABASE_URL_FILE ?? ''),
    nats: { url: values.NATS_URL, credsFile: values.NATS_CREDS_FILE ?? null },
    keyDir: values.BULKHEAD_KEY_DIR,
    host: values.API_HOST,
    port: values.API_PORT,
    platformDomain: values.PLATFORM_DOMAIN,
    edgePublicPort: values.EDGE_PUBLIC_PORT,
    registry: { host: values.REGISTRY_HOST, scheme: values.REGISTRY_SCHEME },
    trustedProxies: values.TRUSTED_PROXIES,
    metricsPublic: values.METRICS_PUBLIC === 'on',
    maxTenantsPerUser: values.MAX_TENANTS_PER_USER,
    mostMoves: values.REBALANCE_MOVES,
    signUpOpen: values.SIGN_UP === 'open',
    streams: streamsOf(values),
    fleet: fleetOf(values),
    controllers: values.CONTROLLERS === 'on',
    logLevel: values.LOG_LEVEL,
    logsMaxBytes: values.LOGS_MAX_BYTES,
  };
}

function streamsOf(values: z.infer<typeof environment>): Settings['streams'] {
  const { STREAMS_PORT: port, STREAMS_TLS_DIR: tlsDir } = values;
  if (port === undefined || tlsDir === undefined) return null;
  return {
    ...{ host: values.STREAMS_HOST, port, tlsDir },
    advertise: values.STREAMS_ADVERTISE ?? null,
    publicUrl: values.STREAMS_PUBLIC_URL ?? null,
  };
}

function fleetOf(values: z.infer<typeof environment>): FleetSettings | null {
  const { FLEET_ADDRESS: address, FLEET_EDGES: edges } = values;
  if (address === undefined) return null;
  return {
    ...{ address, joinPort: values.FLEET_JOIN_PORT, edges: edges.length > 0 ? edges : [address] },
    streamsPort: values.FLEET_STREAMS_PORT ?? values.STREAMS_PORT ?? 0,
    apiPort: values.FLEET_API_PORT ?? values.API_PORT,
    gateSocket: values.GATE_SOCKET ?? null,
  };
}

/** An empty variable counts as unset: that is what `FOO=` in a service file means to people. */
function withoutEmpty(env: Readonly<Record<string, string | undefined>>) {
  return Object.fromEntries(
    Object.entries(env).filter(([, value]) => value !== undefined && value !== ''),
  );
}

function readSecret(variable: string, path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new SettingsError(
      `The API cannot start; ${variable} names ${path}, which cannot be read (${code})`,
    );
  }
}
