import { isIP } from 'node:net';
import { join } from 'node:path';
import { z } from 'zod';

const port = z.coerce.number().int().min(1).max(65_535);

/** `host:port`, `[v6]:port` or `*:port`: it goes into HAProxy's configuration as it is. */
const bindAddress = z.string().refine((text) => {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([0-9.]+|\*)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  return (
    match !== null &&
    host !== undefined &&
    (host === '*' || isIP(host) !== 0) &&
    Number(match[3]) < 65_536
  );
}, 'must be an address and a port, for example 127.0.0.1:8080, [::1]:8080 or *:80');

/** What HAProxy's configuration needs no quotes for. */
const absolutePath = z
  .string()
  .regex(/^\/[A-Za-z0-9._/-]+$/, 'must be an absolute path of letters, digits and . _ / -');

const settingsSchema = z
  .object({
    NATS_URL: z.string().default('nats://127.0.0.1:4222'),
    NATS_CREDS_FILE: z.string().optional(),
    /** Names this edge on NATS; its credentials are made for this name. */
    EDGE_ID: z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, 'letters, digits, - and _ only'),
    /** State of this edge and HAProxy's files. Short, because a unix socket's path ends at 107 bytes. */
    EDGE_DIR: absolutePath.max(80, 'at most 80 characters: a unix socket is made in it'),
    EDGE_BIND: bindAddress.default('127.0.0.1:8080'),
    EDGE_METRICS_PORT: port.default(4101),
    /**
     * User that HAProxy's worker drops to, in an empty chroot; empty: as started. Unset: `haproxy` when
     * this process is root. HAProxy must be started by the same user as this process.
     */
    EDGE_HAPROXY_USER: z
      .string()
      .regex(/^[a-z_][a-z0-9_-]*$|^$/, 'must be a user name, or empty')
      .optional(),
    /** How long a connection to a backend that left may last before it is cut. */
    EDGE_DRAIN_SECONDS: z.coerce.number().int().min(0).max(3600).default(30),
    /** Where HTTPS and HTTP/2 are spoken besides; needs EDGE_TLS_CERTIFICATES. */
    EDGE_TLS_BIND: bindAddress.optional(),
    /** A PEM file with certificate, chain and key, or a directory of such; the name that a client asks for chooses. */
    EDGE_TLS_CERTIFICATES: absolutePath.optional(),
    /** Of a request's body, MiB; 0: no limit. */
    EDGE_MAX_BODY_MB: z.coerce.number().int().min(0).max(1_048_576).default(1024),
    /** Which requests HAProxy logs: those that failed, or all of them, which costs a tenth of what it can carry. */
    EDGE_ACCESS_LOG: z.enum(['errors', 'all']).default('errors'),
    LOG_LEVEL: z
      .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
      .default('info'),
  })
  .refine(
    ({ EDGE_TLS_BIND, EDGE_TLS_CERTIFICATES }) =>
      (EDGE_TLS_BIND === undefined) === (EDGE_TLS_CERTIFICATES === undefined),
    { path: ['EDGE_TLS_BIND'], message: 'needs EDGE_TLS_CERTIFICATES, and the other way round' },
  );

export interface EdgeSettings {
  natsUrl: string;
  natsCredsFile: string | null;
  id: string;
  dir: string;
  bind: string;
  metricsPort: number;
  haproxyUser: string | null;
  drainMs: number;
  tls: { bind: string; certificates: string } | null;
  /** Bytes; Infinity: no limit. */
  maxBody: number;
  accessLog: 'errors' | 'all';
  logLevel: string;
}

/** Throws an Error that names every variable that is wrong. */
export function readSettings(
  env: Readonly<Record<string, string | undefined>>,
  isRoot: boolean,
): EdgeSettings {
  const result = settingsSchema.safeParse(env);
  if (!result.success) {
    const problems = result.error.issues
      .map((i) => `  ${i.path.join('.')}: ${i.message}`)
      .join('\n');
    throw new Error(`The edge cannot start, its environment is wrong:\n${problems}`);
  }
  const { data } = result;
  const user = data.EDGE_HAPROXY_USER ?? (isRoot ? 'haproxy' : '');
  return {
    natsUrl: data.NATS_URL,
    natsCredsFile: data.NATS_CREDS_FILE ?? null,
    id: data.EDGE_ID,
    dir: data.EDGE_DIR,
    bind: data.EDGE_BIND,
    metricsPort: data.EDGE_METRICS_PORT,
    haproxyUser: user === '' ? null : user,
    drainMs: data.EDGE_DRAIN_SECONDS * 1000,
    tls:
      data.EDGE_TLS_BIND === undefined || data.EDGE_TLS_CERTIFICATES === undefined
        ? null
        : { bind: data.EDGE_TLS_BIND, certificates: data.EDGE_TLS_CERTIFICATES },
    maxBody: data.EDGE_MAX_BODY_MB === 0 ? Infinity : data.EDGE_MAX_BODY_MB * 1024 * 1024,
    accessLog: data.EDGE_ACCESS_LOG,
    logLevel: data.LOG_LEVEL,
  };
}

/** Which HAProxy opens at most; each connection needs two. */
export const mostFiles = 65_536;

/** Every file in EDGE_DIR. */
export const edgeFiles = (dir: string) => ({
  config: join(dir, 'haproxy.cfg'),
  map: join(dir, 'hosts.map'),
  masterSocket: join(dir, 'master.sock'),
  jail: join(dir, 'jail'),
  pages: join(dir, 'pages'),
  /** Copies of the operator's certificates, and the list of them. */
  certificates: join(dir, 'certificates'),
  certificateList: join(dir, 'certificates.list'),
  /** Times until an answer, and which bucket of the histogram each belongs to. */
  buckets: join(dir, 'answers.map'),
  /** The last known routes; what HAProxy's files are rendered from. */
  routes: join(dir, 'routes.json'),
  /** How many connections HAProxy could take when it last said so. */
  connections: join(dir, 'connections'),
});

/**
 * The command line that runs HAProxy, for the supervisor: in the foreground, a master that the
 * controller talks to and that outlives it. The configuration must be there before (`main.js init`).
 */
export function haproxyCommand(dir: string): string[] {
  const files = edgeFiles(dir);
  return ['haproxy', '-W', '-db', '-f', files.config, '-S', `${files.masterSocket},mode,600`];
}
