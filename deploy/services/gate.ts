/**
 * The gate: where other hosts of the fleet come in. A HAProxy with mutual TLS in front of NATS, the
 * registry and the API's token endpoint, all of which listen on loopback only: nobody without a
 * node's certificate reaches their parsers (malformed JWTs have crashed nats-server before
 * authentication, GHSA-g33f). It lets in the nodes on a list that the API keeps, and nobody while the
 * list is empty. One door asks for no certificate, for a host that has none yet: it leads to joining
 * and nowhere else.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { joinPath } from '@bulkhead/protocol';
import { ensureFile, ensureServiceDirectory, readTextIfThere, type Owner } from '../files.ts';
import { ensureFleetCertificate } from '../fleet-tls.ts';
import type { Layout, PlatformSettings } from '../settings.ts';
import type { Service } from '../supervise.ts';

const file = (paths: Layout, name: string) => join(paths.gate, name);

export const gateSocket = (paths: Layout) => file(paths, 'admin.sock');

/** Null on a platform that listens on loopback only. Answers a fingerprint of what HAProxy reads at its start. */
export async function ensureGateFiles(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
): Promise<string | null> {
  const { listen } = settings;
  if (listen === null) return null;
  await ensureServiceDirectory(paths.gate, owner);
  const tls = join(paths.gate, 'tls');
  const certificate = await ensureFleetCertificate(
    paths,
    { kind: 'gate', address: listen },
    tls,
    owner,
  );
  const pem = async (name: string) => (await readTextIfThere(join(tls, `${name}.pem`))) ?? '';
  // With the authority's: hosts that join know it by its fingerprint and see it for the first time.
  const server = (await pem('cert')) + (await pem('ca')) + (await pem('key'));
  await ensureFile(file(paths, 'server.pem'), server, 0o600, owner);
  const clients = (await readTextIfThere(join(paths.apiTls, 'ca.pem'))) ?? '';
  await ensureFile(file(paths, 'clients.pem'), clients, 0o600, owner);
  await ensureFile(file(paths, 'nodes.acl'), '', 0o600, owner);
  const config = gateConfig(settings, paths, listen);
  await ensureFile(file(paths, 'haproxy.cfg'), config, 0o600, owner);
  return createHash('sha256')
    .update(config)
    .update(certificate)
    .update(clients)
    .digest('hex')
    .slice(0, 16);
}

export function gateConfig(
  { host, ports }: PlatformSettings,
  paths: Layout,
  listen: string,
): string {
  const bind = (port: number) => `bind ${listen}:${port} ssl crt ${file(paths, 'server.pem')}`;
  const verified = `ca-file ${file(paths, 'clients.pem')} verify required`;
  const known = `{ ssl_c_s_dn(CN) -m str -f ${file(paths, 'nodes.acl')} }`;
  return `# Written by deploy/; the next \`npm run up\` writes it again.
global
  stats socket ${gateSocket(paths)} mode 600 level admin
  ssl-default-bind-options ssl-min-ver TLSv1.2
  # Seconds; a node that vanished is not waited for.
  maxconn 8192
defaults
  timeout connect 5s
  timeout client-fin 10s
  timeout client 60s
  timeout server 60s
  maxconn 8000

frontend nats
  mode tcp
  ${bind(ports.nats)} ${verified}
  # Clients of NATS say something every 10 s.
  tcp-request content reject unless ${known}
  default_backend nats
backend nats
  mode tcp
  server nats ${host}:${ports.nats}

frontend registry
  mode http
  ${bind(ports.registry)} ${verified}
  http-request deny unless ${known}
  http-request deny unless { method GET HEAD }
  default_backend registry
backend registry
  mode http
  server registry ${host}:${ports.registry}

frontend api
  mode http
  ${bind(ports.api)} ${verified}
  http-request deny unless ${known}
  http-request deny unless { method GET } { path /registry/token }
  default_backend api
frontend join
  mode http
  ${bind(ports.join)}
  timeout http-request 10s
  http-request deny unless { method POST } { path ${joinPath} }
  http-request deny deny_status 413 if { req.hdr(content-length) -m int gt 65536 }
  default_backend api
backend api
  mode http
  http-request set-header X-Forwarded-For %[src]
  server api ${host}:${ports.api}
`;
}

export function gateService(
  settings: PlatformSettings,
  paths: Layout,
  owner: Owner,
  fingerprint: string,
): Service {
  return {
    name: 'gate',
    owner,
    command: ['haproxy', '-db', '-f', file(paths, 'haproxy.cfg')],
    env: {
      BULKHEAD_STATE: settings.stateDir,
      BULKHEAD_SERVICE: 'gate',
      BULKHEAD_CERTIFICATE: fingerprint,
    },
    seesClone: false,
    check: async () => {
      // It answers nobody without TLS; that somebody listens is told by the refusal.
      const url = `http://${settings.listen ?? settings.host}:${settings.ports.join}/`;
      const response = await fetch(url, { signal: AbortSignal.timeout(3_000) }).catch(
        (error: unknown) =>
          (error instanceof Error ? error.cause : null) as { code?: string } | null,
      );
      if (response && 'code' in response && response.code === 'ECONNREFUSED')
        throw new Error('nobody listens');
    },
  };
}
