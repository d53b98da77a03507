/** What one platform on one machine is made of: where it keeps its state, its ports, its names. */
import { isIPv4 } from 'node:net';
import { join, resolve } from 'node:path';

export interface Ports {
  api: number;
  edge: number;
  registry: number;
  nats: number;
  postgres: number;
  agentMetrics: number;
  edgeMetrics: number;
  /** Where agents dial the API. */
  streams: number;
  /** Where hosts join, on a platform that others reach. */
  join: number;
  /** The first of two for each replica of the API, where there are several. */
  replicas: number;
  /** The first of two for each edge from the second on. */
  edges: number;
}

/** Names and ranges of the local node; two platforms on one machine must not share any of them. */
export interface NodeSettings {
  name: string;
  /** Addresses of its containers, a /16. */
  network: string;
  cgroup: string;
  nftTable: string;
  /** At most four letters: the kernel allows 15 for an interface's name. */
  vethPrefix: string;
  /** First host id given to containers. */
  idBase: number;
  /** Disk set aside for what containers write; null: half of what is free. */
  diskPoolMiB: number | null;
  /** Walls between tenants that the host may lack, by commas; empty: none. */
  allowMissingWalls: string;
}

export interface PlatformSettings {
  /** The clone this runs from. */
  root: string;
  stateDir: string;
  host: '127.0.0.1';
  /** IPv4 address of this host at which others come in, to the gate and to streams; null: none do. */
  listen: string | null;
  ports: Ports;
  /** Replicas of the API, and edges. */
  apiReplicas: number;
  edges: number;
  /** Null: the default ports. */
  portBase: number | null;
  /** Apps answer at `<app>.<tenant>.<domain>`. */
  domain: string;
  /** Somebody else's PostgreSQL; null runs our own. */
  databaseUrl: string | null;
  signUp: 'open' | 'closed';
  /** Proxies whose X-Forwarded-For the API believes, as it reads TRUSTED_PROXIES; null: none. */
  trustedProxies: string | null;
  /** Null: the API's own default. */
  maxTenantsPerUser: number | null;
  rebalanceMoves: number | null;
  /** What the edge is told besides, as it reads it. */
  edge: Partial<Record<EdgeOption, string>>;
  node: NodeSettings;
}

/** The edge checks them itself, before anything is started with them. */
export const edgeOptions = [
  'EDGE_ACCESS_LOG',
  'EDGE_MAX_BODY_MB',
  'EDGE_TLS_BIND',
  'EDGE_TLS_CERTIFICATES',
] as const;
export type EdgeOption = (typeof edgeOptions)[number];

/** What `startPlatform` may be told; everything else has a default. */
export interface PlatformOptions {
  root: string;
  stateDir?: string | undefined;
  /** With a base, the ports are base, base + 1, ... in the order of `Ports`; see `portsFrom`. */
  portBase?: number | undefined;
  apiReplicas?: number | undefined;
  edges?: number | undefined;
  listen?: string | undefined;
  domain?: string | undefined;
  databaseUrl?: string | undefined;
  signUp?: 'open' | 'closed' | undefined;
  trustedProxies?: string | undefined;
  maxTenantsPerUser?: number | undefined;
  rebalanceMoves?: number | undefined;
  edge?: Partial<Record<EdgeOption, string>> | undefined;
  node?: Partial<NodeSettings> | undefined;
}

export const defaultPorts: Ports = {
  api: 4000,
  edge: 8080,
  registry: 5000,
  nats: 4222,
  postgres: 54321,
  agentMetrics: 4100,
  edgeMetrics: 4101,
  streams: 4102,
  join: 4103,
  replicas: 4110,
  edges: 4120,
};

export const portsFrom = (base: number): Ports => ({
  api: base,
  edge: base + 1,
  registry: base + 2,
  nats: base + 3,
  postgres: base + 4,
  agentMetrics: base + 5,
  edgeMetrics: base + 6,
  streams: base + 7,
  join: base + 8,
  replicas: base + 10,
  edges: base + 20,
});

/** Each replica has ten connections to PostgreSQL, which takes a hundred. */
const mostReplicas = 4;

/** An error of the person who set an option: shown without a stack. */
export class SettingsError extends Error {}

export function makeSettings(options: PlatformOptions): PlatformSettings {
  const { portBase } = options;
  if (
    portBase !== undefined &&
    !(Number.isInteger(portBase) && portBase >= 1024 && portBase <= 65_500)
  )
    throw new SettingsError(`the port base must be a number from 1024 to 65500, not ${portBase}`);
  const stateDir = resolve(options.stateDir ?? '/var/lib/bulkhead');
  if (stateDir === '/' || options.root.startsWith(`${stateDir}/`) || options.root === stateDir)
    throw new SettingsError(
      `the state directory ${stateDir} must be one of its own, not one that holds the clone`,
    );
  // A path goes into service scripts and configuration files of several syntaxes.
  if (!/^[A-Za-z0-9_./-]+$/.test(stateDir))
    throw new SettingsError(
      `the state directory's path may have letters, digits and _ . / - only, not "${stateDir}"`,
    );
  const listen = options.listen ?? null;
  if (listen !== null && (!isIPv4(listen) || /^(127|0)\./.test(listen)))
    throw new SettingsError(
      `BULKHEAD_LISTEN must be the IPv4 address by which other hosts reach this one, not "${listen}"`,
    );
  const { apiReplicas = 1, edges = 1 } = options;
  for (const [name, count] of Object.entries({
    BULKHEAD_API_REPLICAS: apiReplicas,
    BULKHEAD_EDGES: edges,
  }))
    if (!(Number.isInteger(count) && count >= 1 && count <= mostReplicas))
      throw new SettingsError(`${name} must be a number from 1 to ${mostReplicas}, not ${count}`);
  return {
    root: options.root,
    stateDir,
    host: '127.0.0.1',
    listen,
    ports: portBase === undefined ? defaultPorts : portsFrom(portBase),
    portBase: portBase ?? null,
    apiReplicas,
    edges,
    domain: options.domain ?? 'localhost',
    databaseUrl: options.databaseUrl ?? null,
    signUp: options.signUp ?? 'open',
    trustedProxies: options.trustedProxies ?? null,
    maxTenantsPerUser: options.maxTenantsPerUser ?? null,
    rebalanceMoves: options.rebalanceMoves ?? null,
    edge: options.edge ?? {},
    node: {
      name: 'node-1',
      network: '10.201.0.0/16',
      cgroup: 'bulkhead',
      nftTable: 'bulkhead',
      vethPrefix: 'bh',
      idBase: 1_048_576,
      diskPoolMiB: null,
      allowMissingWalls: '',
      ...options.node,
    },
  };
}

/** The options that `npm run up` and `npm run down` read from the environment; see deploy/README.md. */
export function optionsFromEnvironment(
  root: string,
  env: Readonly<Record<string, string | undefined>>,
): PlatformOptions {
  const value = (name: string) =>
    env[name] === undefined || env[name] === '' ? undefined : env[name];
  const number = (name: string) => {
    const text = value(name);
    if (text !== undefined && !/^\d+$/.test(text))
      throw new SettingsError(`${name} must be a number, not "${text}"`);
    return text === undefined ? undefined : Number(text);
  };
  const signUp = value('SIGN_UP');
  if (signUp !== undefined && signUp !== 'open' && signUp !== 'closed')
    throw new SettingsError(`SIGN_UP must be open or closed, not "${signUp}"`);
  const idBase = number('AGENT_ID_BASE');
  const diskPoolMiB = number('AGENT_DISK_POOL_MIB');
  const node = {
    name: value('BULKHEAD_NODE_NAME'),
    network: value('AGENT_NETWORK'),
    cgroup: value('AGENT_CGROUP'),
    nftTable: value('AGENT_NFT_TABLE'),
    vethPrefix: value('AGENT_VETH_PREFIX'),
    allowMissingWalls: value('AGENT_ALLOW_MISSING_WALLS'),
  };
  return {
    root,
    stateDir: value('BULKHEAD_STATE'),
    portBase: number('BULKHEAD_PORT_BASE'),
    apiReplicas: number('BULKHEAD_API_REPLICAS'),
    edges: number('BULKHEAD_EDGES'),
    listen: value('BULKHEAD_LISTEN'),
    domain: value('PLATFORM_DOMAIN'),
    databaseUrl: value('DATABASE_URL'),
    signUp,
    trustedProxies: value('TRUSTED_PROXIES'),
    maxTenantsPerUser: number('MAX_TENANTS_PER_USER'),
    rebalanceMoves: number('REBALANCE_MOVES'),
    edge: Object.fromEntries(
      edgeOptions.flatMap((name) => {
        const set = value(name);
        return set === undefined ? [] : [[name, set]];
      }),
    ),
    node: {
      ...Object.fromEntries(Object.entries(node).filter(([, set]) => set !== undefined)),
      ...(idBase === undefined ? {} : { idBase }),
      ...(diskPoolMiB === undefined ? {} : { diskPoolMiB }),
    },
  };
}

/** Where things are inside the state directory. */
export const layout = (stateDir: string) => ({
  /** What this platform was started with, so that `down` needs no options. Read by root only. */
  platformFile: join(stateDir, 'platform.json'),
  /** E-mail addresses and passwords that set-up made. Read by root only. */
  credentialsFile: join(stateDir, 'credentials.json'),
  /** The clone appears here, for processes that run as users who may not enter the clone's own path. */
  clone: join(stateDir, 'clone'),
  bin: join(stateDir, 'bin'),
  run: join(stateDir, 'run'),
  log: join(stateDir, 'log'),
  setupLog: join(stateDir, 'log/setup'),
  service: join(stateDir, 'service'),
  /** Seeds of the NATS operator and accounts, and the superuser's database password: root only. */
  rootKeys: join(stateDir, 'keys/root'),
  apiKeys: join(stateDir, 'keys/api'),
  /** The certificate that replicas of the API answer agents with. */
  apiTls: join(stateDir, 'keys/api/tls'),
  edgeKeys: join(stateDir, 'keys/edge'),
  postgres: join(stateDir, 'postgres'),
  gate: join(stateDir, 'gate'),
  balancer: join(stateDir, 'balancer'),
  nats: join(stateDir, 'nats'),
  registry: join(stateDir, 'registry'),
  edge: join(stateDir, 'edge'),
  /** The local node's own directory: who it is, its keys, its containers. */
  node: join(stateDir, 'node'),
  /** The certificate that this node's agent dials the API with. */
  nodeTls: join(stateDir, 'node/tls'),
});
export type Layout = ReturnType<typeof layout>;
