import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import {
  answerBucket,
  answerBuckets,
  answerUnitMicros,
  type RouteBackend,
} from '@bulkhead/protocol';
import {
  busyPage,
  gatewayPages,
  headersPage,
  mostHeaderBytes,
  mostHeaders,
  hostPages,
  htmlOf,
  jsonOf,
  type ErrorPage,
} from '../pages.ts';
import { edgeFiles, mostFiles, type EdgeSettings } from '../settings.ts';
import { writeAtomically } from '../store.ts';
import { backendName, type RouteTable } from '../table.ts';

/**
 * HAProxy's files: always complete, so that a HAProxy that starts at any moment serves the last
 * table. What changes while it runs goes through its runtime API; only another structure (this
 * template, the settings, the number of spare backends) takes a reload.
 */
export interface HaproxyFiles {
  readonly config: string;
  readonly map: string;
}

export type ConfigSettings = Pick<
  EdgeSettings,
  'dir' | 'bind' | 'tls' | 'maxBody' | 'haproxyUser' | 'accessLog'
>;

/** `connections`: how many HAProxy can have, as far as is known; what it says later it is told itself. */
export function renderFiles(
  table: RouteTable,
  settings: ConfigSettings,
  connections: number,
): HaproxyFiles {
  const fixed = renderFixed(settings);
  const structure = structureOf(table, settings);
  const servers: string[] = Array.from({ length: table.capacity }, () => '');
  let map = '';
  for (const host of table.hosts()) {
    const { destination, slot, backends } = table.find(host);
    if (destination !== null) map += `${host} ${destination}\n`;
    if (slot !== null) servers[slot] = serverLines(backends);
  }
  let config = `global
  set-var-fmt proc.structure "${structure}"
${Object.entries(capacityOf(connections))
  .map(([name, value]) => `  set-var ${name} int(${value})\n`)
  .join('')}${fixed}
`;
  servers.forEach((lines, slot) => (config += `backend ${backendName(slot)} from app\n${lines}`));
  return { config, map };
}

/** What the rules of fairness go by. */
export const capacityOf = (connections: number) => ({
  'proc.most': connections,
  'proc.half': Math.floor(connections / 2),
});

/** Equal for two tables that differ in routes alone; readable from a running HAProxy. */
export function structureOf(table: RouteTable, settings: ConfigSettings): string {
  const hash = createHash('sha256').update(renderFixed(settings)).digest('hex').slice(0, 16);
  return `${hash}-${table.capacity}`;
}

/** Of ten thousand routes one has changed since the last time. */
const knownLines = new WeakMap<readonly RouteBackend[], string>();

function serverLines(backends: readonly RouteBackend[]): string {
  let lines = knownLines.get(backends);
  if (lines === undefined) {
    lines = backends
      .map(
        (backend, index) =>
          `  server ${serverKind(backend)}${index + 1} ${serverAddress(backend)} weight ${backend.weight ?? 1} ${serverOptions(backend)}\n`,
      )
      .join('');
    knownLines.set(backends, lines);
  }
  return lines;
}

/** Writes what does not change with the routes. */
export function writeFixedFiles(dir: string): void {
  const files = edgeFiles(dir);
  for (const each of [dir, files.pages]) mkdirSync(each, { recursive: true, mode: 0o700 });
  mkdirSync(files.jail, { recursive: true });
  chmodSync(files.jail, 0o755);
  for (const page of [...Object.values(hostPages), busyPage, headersPage]) {
    writeAtomically(pageFile(dir, page, 'html'), htmlOf(page), { durable: false });
    writeAtomically(pageFile(dir, page, 'json'), jsonOf(page), { durable: false });
  }
  for (const page of Object.values(gatewayPages)) {
    writeAtomically(pageFile(dir, page, 'html'), htmlOf(page), { durable: false });
  }
  writeAtomically(files.buckets, bucketMap(), { durable: false });
}

/** Microseconds as an IPv4 address, by which HAProxy finds ranges of powers of two; below zero a clock was set back. */
function bucketMap(): string {
  let map = '128.0.0.0/1 0\n';
  for (let index = 0; index < answerBuckets; index += 1) {
    const { start, width } = answerBucket(index);
    const first = start * answerUnitMicros;
    const address = [24, 16, 8, 0].map((shift) => (first >>> shift) & 255).join('.');
    map += `${address}/${32 - Math.log2(width * answerUnitMicros)} ${index}\n`;
  }
  return map;
}

export function writeHaproxyFiles(dir: string, files: HaproxyFiles): void {
  const paths = edgeFiles(dir);
  writeAtomically(paths.map, files.map, { durable: false });
  writeAtomically(paths.config, files.config, { durable: false });
}

/** As HAProxy writes and reads it. */
export const serverAddress = ({ host, port }: { host: string; port: number }): string =>
  isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;

/** How a server is asked, which HAProxy fixes when it makes one: the first letter of its name. */
type ServerKind = 's' | 'h';
export const serverKind = ({ http2 = false }: Pick<RouteBackend, 'http2'>): ServerKind =>
  http2 ? 'h' : 's';

/** What is one server for HAProxy: an address, and how it is asked. */
export const serverKey = (backend: Pick<RouteBackend, 'host' | 'port' | 'http2'>): string =>
  `${serverKind(backend)} ${serverAddress(backend)}`;

/**
 * The agent knows an instance's health; these checks are for what it cannot tell us in time, a dead
 * node above all. They are rare while all is well (a check wakes an idle app), and the first failed
 * connection makes them quick: two failures, half a second apart, take a server out.
 */
export const serverOptions = ({ http2 = false }: Pick<RouteBackend, 'http2'>): string =>
  `${http2 ? 'proto h2 ' : ''}check inter 30s fastinter 500ms downinter 500ms rise 1 fall 2 observe layer4 error-limit 1 on-error sudden-death`;

/**
 * Of the table of answers, whose keys are a backend's number in HAProxy times this, and the bucket. A
 * backend that is busier than `busyRate` requests a second has one of `sampleOf` counted, by chance:
 * a number behind `sampled`, for that many requests.
 */
export const answerKeys = { perBackend: 256, sampled: 128, sampleOf: 16, busyRate: 100 } as const;

/** In the jail, so that a worker in its chroot reaches them. */
const handovers = { plain: 'handover.sock', tls: 'handover-tls.sock' } as const;

/** `host:port` with a port that there can be. */
const hostHeader =
  '^(\\[[0-9A-Fa-f:.]*\\]|[A-Za-z0-9._-]*)(:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5]?[0-9]{1,4})?)?$';
/** A path, `*`, or http(s)://host and a path: without user names, and without a fragment. */
const target = '^((https?://[^@/?#]+)?/[^#]*|https?://[^@/?#]+([?][^#]*)?|[*])$';
/** Control characters that have no business in a header's value; servers disagree on what they mean. */
const control = '[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]';

const pageFile = (dir: string, page: ErrorPage, kind: 'html' | 'json') =>
  join(edgeFiles(dir).pages, `${page.code}.${kind}`);

function renderFixed(settings: ConfigSettings): string {
  const { dir, bind, tls, maxBody, haproxyUser, accessLog } = settings;
  const files = edgeFiles(dir);
  const bucketOf = `map_ip_int(${files.buckets},${answerBuckets - 1})`;
  const handoverBind = (kind: keyof typeof handovers) =>
    `bind unix@${join(files.jail, handovers[kind])} accept-proxy mode 600${haproxyUser === null ? '' : ` user ${haproxyUser}`} name ${kind}`;
  const handoverServer = (kind: keyof typeof handovers) =>
    `server successor unix@${haproxyUser === null ? join(files.jail, handovers[kind]) : `/${handovers[kind]}`} send-proxy-v2`;
  const identity = haproxyUser === null ? [] : [`  user ${haproxyUser}`, `  chroot ${files.jail}`];
  return `  log stdout format raw local0 info
${identity.map((line) => `${line}\n`).join('')}\
  # maxconn follows from the file limit of the process, up to this; no rule can ask for it. So proc.most
  # and its half are what HAProxy said last time, until the controller has asked this one.
  fd-hard-limit ${mostFiles}
  # As many as fit the buffer: past its own limit HAProxy could only say that a request is invalid.
  tune.http.maxhdr 2000
  # What a reload leaves behind (tunnels, slow downloads) ends after this.
  hard-stop-after 30m
  mworker-max-reloads 20

defaults edge
  mode http
  log global
  option dontlognull
${accessLog === 'errors' ? '  option dontlog-normal\n' : ''}\
  # Idle client connections outlive a reload until their next answer: closing them would lose requests.
  option idle-close-on-response
  # Who leaves does not hold the app's answer, nor a place at the edge, until it comes.
  option abortonclose
  # X_Forwarded_For is X-Forwarded-For to many a framework.
  option http-restrict-req-hdr-names delete
  option redispatch 1
  retries 3
  # Other methods than those of disable-l7-retry below: only when no connection came about.
  retry-on conn-failure empty-response
  http-reuse safe
  balance roundrobin
  timeout connect 2s
  timeout http-request 10s
  timeout http-keep-alive 60s
  timeout client 120s
  timeout client-fin 30s
  timeout server 120s
  # A request that waits for an answer from a host that was cut off ends after a quarter of a minute; an
  # app that thinks about its answer is not asked, its kernel is.
  option srvtcpka
  srvtcpka-idle 6s
  srvtcpka-intvl 3s
  srvtcpka-cnt 3
  timeout server-fin 30s
  timeout tunnel 1h
  timeout queue 5s
${Object.values(gatewayPages)
  .map((page) => `  http-error status ${page.status} ${pageReply(dir, page, 'html')}\n`)
  .join('')}
frontend edge from edge
  bind ${bind}
${tls === null ? '' : `  bind ${tls.bind} ssl crt-list ${files.certificateList} alpn h2,http/1.1 ssl-min-ver TLSv1.2 name tls\n`}\
  ${handoverBind('plain')}
  ${handoverBind('tls')}
  # Once the edge is more than half full, nobody takes more of it than is left for all others: here a
  # client's address, below an app. What one takes alone is half, and there is always a rest.
  stick-table type ipv6 size 100k expire 10s store conn_cur
  tcp-request connection track-sc0 src,ipmask(32,64)
  tcp-request connection set-var(sess.free) fe_conn,neg,add(proc.most) if { fe_conn,sub(proc.half) gt 0 }
  tcp-request connection reject if { fe_conn,sub(proc.half) gt 0 } { sc0_conn_cur,sub(sess.free) gt 0 }
  log-format "%tr %ci %[var(txn.host)] %HM %HPO %HV %ST %B %Ta ms to %si:%sp id %ID %tsc"
  acl websocket req.hdr(upgrade) -i websocket
  http-request set-var(txn.host) req.hdr(host),host_only,lower,rtrim(.)
  http-request set-var(txn.dest) var(txn.host),map_str(${files.map},none)
  # After a reload: requests on connections that the old worker kept go to the new one, whose table is right.
  http-request set-var(txn.dest) str(handover-plain) if { stopping }
  http-request set-var(txn.dest) str(handover-tls) if { stopping } { so_name tls }
  http-request return status ${headersPage.status} ${pageReply(dir, headersPage, 'html')} if { req.fhdr_cnt gt ${mostHeaders} } or { req.hdrs,length gt ${mostHeaderBytes} }
  # One name and perhaps a port; HAProxy would take the last of a list and let control characters pass.
  http-request deny deny_status 400 unless { req.fhdr(host) -m reg '${hostHeader}' }
  http-request deny deny_status 405 if { method CONNECT TRACE }
  http-request deny deny_status 400 unless { url -m reg '${target}' }
  http-request deny deny_status 400 if { req.hdrs -m reg '${control}' }
${maxBody === Infinity ? '' : `  http-request deny deny_status 413 if { req.hdr(content-length),sub(${maxBody}) gt 0 }\n`}\
  # What says who the client is comes from here alone. Added, not set: nothing of it is left by then.
  # X-Forwarded-For and X-Request-Id are options, which write them faster than rules do.
  option forwardfor
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
  http-request del-header Forwarded
  http-request del-header X-Real-IP
  http-request del-header X-Forwarded- -m beg
  http-request add-header X-Forwarded-Proto http unless { so_name tls }
  http-request add-header X-Forwarded-Proto https if { so_name tls }
  http-request add-header X-Forwarded-Host %[req.hdr(host)]
  http-request add-header X-Forwarded-Port %[dst_port]
  http-request del-header X-Request-Id
  http-response set-header X-Request-Id %[unique-id]
  # Connection names headers for the next hop to drop (ours among them), Upgrade may ask for h2c.
  http-request del-header Connection
  http-request del-header Upgrade if !websocket
  http-request add-header Connection upgrade if websocket
  http-request del-header Proxy
  http-request del-header Proxy-Connection
  http-request disable-l7-retry if !{ method GET HEAD OPTIONS }
  use_backend %[var(txn.dest)]

${Object.keys(handovers)
  .map(
    (kind) => `backend handover-${kind} from edge
  http-reuse never
  ${handoverServer(kind as keyof typeof handovers)}
`,
  )
  .join('\n')}
# Destinations that serve nobody. As backends, so that requests which are served look at none of it.
${Object.entries(hostPages)
  .map(([destination, page]) => {
    const reply = (kind: 'html' | 'json') =>
      `  http-request return status ${page.status} ${pageReply(dir, page, kind)}`;
    return `backend ${destination} from edge
  acl json req.hdr(accept) -m sub -i application/json
  acl html req.hdr(accept) -m sub -i text/html
${reply('json')} if json !html
${reply('html')}
`;
  })
  .join('')}
# Times until apps' answers began: how many fell into each bucket of each backend, by its number. A
# rate besides, so that those can be asked for that had any lately.
backend answers from edge
  stick-table type integer size 100k expire 1d store http_req_cnt,http_req_rate(30s)

# Every app's backend.
defaults app from edge
  http-request set-var(txn.began) date(0,us) if { be_sess_rate lt ${answerKeys.busyRate} }
  http-request set-var(txn.sample) date(0,us) if { be_sess_rate ge ${answerKeys.busyRate} } { rand(${answerKeys.sampleOf}) eq 0 }
  http-response set-var(txn.bucket) date(0,us),sub(txn.began),${bucketOf} if { var(txn.began) -m found }
  http-response set-var(txn.bucket) date(0,us),sub(txn.sample),${bucketOf},add(${answerKeys.sampled}) if { var(txn.sample) -m found }
  http-response track-sc1 be_id,mul(${answerKeys.perBackend}),add(txn.bucket) table answers if { var(txn.bucket) -m found }
  http-request return status ${busyPage.status} ${pageReply(dir, busyPage, 'html')} if { be_conn,sub(proc.half) gt 0 }
  http-request set-var(txn.free) fe_conn(edge),neg,add(proc.most) if { fe_conn(edge),sub(proc.half) gt 0 }
  http-request return status ${busyPage.status} ${pageReply(dir, busyPage, 'html')} if { var(txn.free) -m found } { be_conn,sub(txn.free) gt 0 }
`;
}

function pageReply(dir: string, page: ErrorPage, kind: 'html' | 'json'): string {
  const type = kind === 'html' ? '"text/html; charset=utf-8"' : 'application/json';
  const retry = page.retryAfter === null ? '' : ` hdr Retry-After ${page.retryAfter}`;
  return `content-type ${type} file ${pageFile(dir, page, kind)} hdr Cache-Control no-store hdr X-Bulkhead-Error ${page.code}${retry}`;
}
