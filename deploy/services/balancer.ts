/**
 * The balancer: a HAProxy at the API's own address that spreads its clients over the replicas. There
 * is one only where there is more than one replica. A replica that does not answer gets nothing, and
 * what could not be sent to one goes to another; what was sent is never sent twice, for it may be a
 * mutation. It knows no secret: agents attend through it by a TLS that it does not end.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { ensureFile, ensureServiceDirectory, type Owner } from '../files.ts';
import { apiReplicas } from '../replicas.ts';
import type { Layout, PlatformSettings } from '../settings.ts';
import type { Service } from '../supervise.ts';
import { checkHttp } from './http.ts';

const configFile = (paths: Layout) => join(paths.balancer, 'haproxy.cfg');

/** Null where there is one replica only. Answers a fingerprint of what HAProxy reads at its start. */
export async function ensureBalancerFiles(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
): Promise<string | null> {
  if (settings.apiReplicas === 1) return null;
  await ensureServiceDirectory(paths.balancer, owner);
  const config = balancerConfig(settings);
  await ensureFile(configFile(paths), config, 0o600, owner);
  return createHash('sha256').update(config).digest('hex').slice(0, 16);
}

/** As the API says it itself. */
const refusal = (message: string) =>
  `'{"errors":[{"message":"${message}","extensions":{"code":"UNAVAILABLE"}}]}'`;

export function balancerConfig(settings: PlatformSettings): string {
  const { host, listen, ports, trustedProxies } = settings;
  const replicas = apiReplicas(settings);
  const known = (trustedProxies ?? '')
    .split(/[\s,]+/)
    .join(' ')
    .trim();
  const http = replicas.map(({ name, port }) => `  server ${name} ${host}:${port}`);
  // A ticket is in the memory of the replica that gave it.
  const owned = replicas.map(
    ({ name, label }) =>
      `  use-server ${name} if { path /streams } { url_param(replica) -m str ${label} }`,
  );
  return `# Written by deploy/; the next \`npm run up\` writes it again.
global
  # Two descriptors each, of the 20,000 that some machines allow.
  maxconn 8192
defaults
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout check 2s
  # Who is gone is noticed by pings of the API's own.
  timeout tunnel 1h
  retries 3
  option redispatch 1
  retry-on conn-failure
  balance leastconn
  option httpchk GET /healthz
  default-server check inter 1s fall 2 rise 1 on-marked-down shutdown-sessions

frontend api
  mode http
  bind ${host}:${ports.api}
  # The API takes our word for whom a request is from; a client's own counts for nothing.
  http-request del-header ^(x-forwarded|forwarded|x-real) -m reg${known === '' ? '' : ` unless { src ${known} }`}
  option forwardfor
  default_backend api
backend api
  mode http
  http-error status 502 content-type application/json string ${refusal('The replica of the API that had this request ended before it answered; see whether it was done before you repeat it')}
  http-error status 503 content-type application/json string ${refusal('No replica of the API answers; try again in a few seconds')}
  http-error status 504 content-type application/json string ${refusal('The API did not answer in time; see whether it was done before you repeat it')}
${[...owned, ...http].join('\n')}
${listen === null ? '' : attendance(listen, ports.streams, replicas, host)}`;
}

const attendance = (
  listen: string,
  port: number,
  replicas: ReturnType<typeof apiReplicas>,
  host: string,
) => `
listen attendance
  mode tcp
  bind ${listen}:${port}
${replicas.map((each) => `  server ${each.name} ${listen}:${each.streams} addr ${host} port ${each.port}`).join('\n')}
`;

export function balancerService(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  fingerprint: string,
): Service {
  return {
    name: 'balancer',
    owner,
    command: ['haproxy', '-db', '-f', configFile(paths)],
    env: {
      BULKHEAD_STATE: settings.stateDir,
      BULKHEAD_SERVICE: 'balancer',
      BULKHEAD_FINGERPRINT: fingerprint,
    },
    seesClone: false,
    check: () => checkHttp(`http://${settings.host}:${settings.ports.api}/readyz`),
  };
}
