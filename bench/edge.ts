import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { Agent, createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { edgeApplied, streams, subjects, type Route, type RouteBackend } from '@bulkhead/protocol';
import { Kvm } from '@nats-io/kv';
import { connect } from 'nats';
import { haproxyCommand } from '@bulkhead/edge';
import { natsServerBinary } from '../deploy/nats/binary.ts';
import { until } from '../e2e/support/until.ts';
import type { Bench } from './fixture.ts';
import { time, type Result } from './measure.ts';

const run = promisify(execFile);

const ports = { nats: 16_080, edge: 16_081, metrics: 16_082, bare: 16_083, app: 16_084 };
const routes = 10_000;
const rounds = 5;
const roundSeconds = 5;
const connections = 64;
const changes = 50;
const reloads = 5;

const hostOf = (index: number): string => `app-${index}.t${index % 100}.localhost`;
const measured = hostOf(routes / 2);

/**
 * The edge with ten thousand routes against HAProxy with a configuration that knows one backend and
 * nothing else; then the time until a changed route serves, against a reload of a static
 * configuration with as many backends. All on this machine, the load and the app too.
 */
export async function edgeBench(bench: Bench): Promise<Result[]> {
  const dir = join(bench.dir, 'edge');
  await mkdir(dir);
  const ends: (() => Promise<unknown>)[] = [];
  try {
    const app = await answering(dir, ends);
    const edge = await startEdge(dir, app, ends);
    await startBare(dir, app, ends);
    const load = async (port: number) => {
      const args = ['-t1', `-c${connections}`, `-d${roundSeconds}s`, '-H', `Host: ${measured}`];
      const { stdout } = await run('wrk', [...args, `http://127.0.0.1:${port}/`]);
      const wrong = /Non-2xx or 3xx responses: \d+|Socket errors: .*/.exec(stdout);
      if (wrong) throw new Error(wrong[0]);
      return Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]);
    };
    const ours: number[] = [];
    const theirs: number[] = [];
    for (const port of [ports.edge, ports.bare]) await load(port);
    for (let round = 0; round < rounds; round++) {
      ours.push(await load(ports.edge));
      theirs.push(await load(ports.bare));
    }
    const changed = await edge.changes();
    const reloaded = await reloadTimes(dir, ends);
    return [
      {
        bench: 'edge',
        work: `requests a second through the edge with ${routes} routes, ${connections} connections kept alive`,
        rival: 'bare HAProxy with one static backend',
        unit: 'requests/s',
        ours,
        theirs,
      },
      {
        bench: 'edge',
        work: `a route changes, until requests go to its new backend; ${routes} routes`,
        rival: 'HAProxy, static configuration of as many backends, reloaded',
        unit: 'ms',
        ours: changed,
        theirs: reloaded,
      },
      {
        bench: 'edge',
        work: `all of ${routes} routes from nothing, until each is said to be applied`,
        rival: 'HAProxy started with a static configuration of as many backends',
        unit: 'ms',
        ours: [edge.filledMs],
        theirs: [await startTime(dir)],
      },
    ];
  } finally {
    for (const end of ends.reverse()) await end();
  }
}

/** An app that costs as little as can be: HAProxy that answers by itself. */
async function answering(dir: string, ends: (() => Promise<unknown>)[]): Promise<RouteBackend> {
  const config = join(dir, 'app.cfg');
  await writeFile(
    config,
    `${defaults}frontend app
  bind 127.0.0.1:${ports.app}
  http-request return status 200 content-type text/plain string "hello, this is an app that answers\\n"
`,
  );
  ends.push(haproxy(['-db', '-f', config]));
  return { instance: 'iaaaaaaaaaaaa', host: '127.0.0.1', port: ports.app };
}

const defaults = `defaults
  mode http
  timeout connect 2s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 60s
`;

function haproxy(args: readonly string[]): () => Promise<unknown> {
  return ending(spawn('haproxy', [...args], { stdio: 'ignore' }));
}

function ending(child: ChildProcess): () => Promise<unknown> {
  return async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
}

/** The real controller and its HAProxy, following a real NATS. */
async function startEdge(dir: string, app: RouteBackend, ends: (() => Promise<unknown>)[]) {
  const store = join(dir, 'nats');
  const listen = ['-a', '127.0.0.1', '-p', String(ports.nats)];
  const server = natsServerBinary(join(import.meta.dirname, '..'));
  ends.push(ending(spawn(server, ['-js', '-sd', store, ...listen], { stdio: 'ignore' })));
  const url = `nats://127.0.0.1:${ports.nats}`;
  const nats = await until('nats-server answers', () =>
    connect({ servers: url, reconnect: false }),
  );
  ends.push(() => nats.close());
  const bucket = await new Kvm(nats).create(streams.routesBucket, { history: 1 });
  const edgeDir = join(dir, 'e');
  const program = [
    ...['--conditions=@bulkhead/source', '--disable-warning=ExperimentalWarning'],
    join(import.meta.dirname, '../apps/edge/src/main.ts'),
  ];
  const env = {
    ...{ NATS_URL: url, EDGE_ID: 'edge-1', EDGE_DIR: edgeDir, EDGE_HAPROXY_USER: '' },
    ...{ EDGE_BIND: `127.0.0.1:${ports.edge}`, EDGE_METRICS_PORT: String(ports.metrics) },
    ...{ PATH: process.env['PATH'], NODE_ENV: 'production', LOG_LEVEL: 'silent' },
  };
  await run(process.execPath, [...program, 'init'], { env });
  const [, ...args] = haproxyCommand(edgeDir);
  ends.push(haproxy(args));
  ends.push(ending(spawn(process.execPath, program, { env, stdio: 'ignore' })));
  const healthy = `http://127.0.0.1:${ports.metrics}/healthz`;
  await until('the edge is up', async () => (await fetch(healthy)).ok);

  let revision = 0;
  const applied = new Map<string, number>();
  nats.subscribe(subjects.allEdgeApplied, {
    callback: (_, message) => {
      const { host, revision: at } = edgeApplied.parse(message.json());
      applied.set(host, at);
    },
  });
  const put = (host: string, backend: RouteBackend) => {
    const backends = [backend];
    revision += 1;
    const known = { v: 1 as const, tenant: 'demo', app: 'a', state: 'serving' as const };
    const route: Route = { ...known, host, backends, revision };
    return bucket.put(host, JSON.stringify(route));
  };
  const filledMs = await time(async () => {
    for (let from = 0; from < routes; from += 500)
      await Promise.all(Array.from({ length: 500 }, (_, at) => put(hostOf(from + at), app)));
    await until('every route is applied', () => applied.size === routes, 300_000);
  });

  /** Milliseconds from the word to NATS until a request is answered by the other backend. */
  const changeTimes = async (): Promise<number[]> => {
    const [a, b] = [await namedServer('a', ends), await namedServer('b', ends)];
    const times: number[] = [];
    await put(measured, a.backend);
    await until('a answers', async () => (await whoAnswers(ports.edge, measured)) === 'a');
    for (let change = 0; change < changes; change++) {
      const to = change % 2 === 0 ? b : a;
      times.push(
        await time(async () => {
          await put(measured, to.backend);
          while ((await whoAnswers(ports.edge, measured)) !== to.name) await delay(1);
        }),
      );
      await delay(200);
    }
    return times;
  };
  return { filledMs, changes: changeTimes };
}

async function startBare(
  dir: string,
  app: RouteBackend,
  ends: (() => Promise<unknown>)[],
): Promise<void> {
  const config = join(dir, 'bare.cfg');
  await writeFile(
    config,
    `${defaults}frontend bare
  bind 127.0.0.1:${ports.bare}
  default_backend app
backend app
  server s1 ${app.host}:${app.port}
`,
  );
  ends.push(haproxy(['-db', '-f', config]));
  await until(
    'bare HAProxy answers',
    async () => (await fetch(`http://127.0.0.1:${ports.bare}/`)).ok,
  );
}

const staticPort = ports.bare + 100;

async function writeStatic(dir: string, backend: RouteBackend): Promise<string> {
  const config = join(dir, 'static.cfg');
  const map = join(dir, 'static.map');
  const indices = Array.from({ length: routes }, (_, index) => index);
  await writeFile(map, indices.map((index) => `${hostOf(index)} b${index}\n`).join(''));
  await writeFile(
    config,
    `global
  fd-hard-limit 65536
${defaults}frontend static
  bind 127.0.0.1:${staticPort}
  use_backend %[req.hdr(host),lower,map_str(${map})]
${indices.map((index) => `backend b${index}\n  server s1 ${backend.host}:${backend.port}\n`).join('')}`,
  );
  return config;
}

/** The usual way: write the configuration, reload, wait until requests go to the new backend. */
async function reloadTimes(dir: string, ends: (() => Promise<unknown>)[]): Promise<number[]> {
  const [a, b] = [await namedServer('a', ends), await namedServer('b', ends)];
  const config = await writeStatic(dir, a.backend);
  const master = spawn('haproxy', ['-W', '-db', '-f', config], { stdio: 'ignore' });
  ends.push(async () => {
    if (master.exitCode !== null) return;
    master.kill('SIGTERM');
    await once(master, 'exit');
  });
  await until('a answers', async () => (await whoAnswers(staticPort, measured)) === 'a');
  const times: number[] = [];
  // A master that is not ready yet does not hear the first word.
  await delay(1_000);
  for (let reload = 0; reload < reloads; reload++) {
    const to = reload % 2 === 0 ? b : a;
    times.push(
      await time(async () => {
        await writeStatic(dir, to.backend);
        master.kill('SIGUSR2');
        while ((await whoAnswers(staticPort, measured)) !== to.name) await delay(1);
      }),
    );
    await delay(500);
  }
  master.kill('SIGTERM');
  await once(master, 'exit');
  return times;
}

async function startTime(dir: string): Promise<number> {
  const config = join(dir, 'static.cfg');
  let end: () => Promise<unknown> = () => Promise.resolve();
  const taken = await time(async () => {
    end = haproxy(['-db', '-f', config]);
    while ((await whoAnswers(staticPort, measured)) === null) await delay(1);
  });
  await end();
  return taken;
}

async function namedServer(name: string, ends: (() => Promise<unknown>)[]) {
  const server: Server = createServer((_request, response) => response.end(name));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  ends.push(async () => {
    server.close();
    server.closeAllConnections();
    await Promise.resolve();
  });
  const { port } = server.address() as AddressInfo;
  return { name, backend: { instance: `i${name.repeat(12)}`, host: '127.0.0.1', port } };
}

/** On a connection of its own; null when nobody answers. */
function whoAnswers(port: number, host: string): Promise<string | null> {
  return new Promise((resolve) => {
    const agent = new Agent({ keepAlive: false });
    const call = request({ host: '127.0.0.1', port, agent, headers: { host } }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => resolve(body)).on('error', () => resolve(null));
    });
    call.on('error', () => resolve(null)).end();
  });
}
