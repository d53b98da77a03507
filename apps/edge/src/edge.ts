import { existsSync } from 'node:fs';
import type { EdgeApplied, EdgeHeartbeat, EdgeTraffic, Route } from '@bulkhead/protocol';
import { mostTrafficHosts, subjects } from '@bulkhead/protocol';
import type { Logger } from 'pino';
import { Bus } from './bus.ts';
import { bodyGraceSeconds, BodyWatch } from './haproxy/bodies.ts';
import { CertificateWatch, ensureCertificates } from './haproxy/certificates.ts';
import { renderFiles, writeFixedFiles, writeHaproxyFiles } from './haproxy/config.ts';
import { HaproxyFollower } from './haproxy/follower.ts';
import { HaproxyDown, HaproxyMaster } from './haproxy/master.ts';
import { Metrics } from './metrics.ts';
import { RoutesWatch } from './routes-watch.ts';
import { edgeFiles, type EdgeSettings } from './settings.ts';
import { loadConnections, loadTable, saveTable } from './store.ts';
import { RouteTable } from './table.ts';
import { TrafficMeter } from './traffic.ts';

const heartbeatMs = 1000;
const trafficMs = 10_000;
/** How long after a change the table is made to survive a power cut too, ms. */
const saveDurablyAfterMs = 500;

/**
 * Writes a valid configuration from the routes that were known last, for a HAProxy that is about to
 * start. A configuration whose routes are not known is left as it is: it serves more than none.
 */
export function initEdge(settings: EdgeSettings): void {
  const files = edgeFiles(settings.dir);
  writeFixedFiles(settings.dir);
  const { table: stored, problem } = loadTable(files.routes);
  if (problem !== null) console.error(`${problem}; the edge gets its routes from NATS`);
  if (settings.tls)
    for (const each of ensureCertificates(settings.tls.certificates, settings.dir))
      console.error(`A certificate is not used: ${each}`);
  if (stored === null && existsSync(files.config)) return;
  const table = new RouteTable(stored ?? undefined);
  writeHaproxyFiles(settings.dir, renderFiles(table, settings, loadConnections(files.connections)));
  if (stored === null) saveTable(files.routes, table.toStored(), { durable: true });
}

/**
 * The edge's controller: routes come from NATS into the table, the follower makes HAProxy equal it,
 * and what is settled is told. Without NATS, or with an empty or older bucket, the table stays.
 */
export class Edge {
  readonly #settings: EdgeSettings;
  readonly #log: Logger;
  readonly #table: RouteTable;
  /** Without a table on disk HAProxy keeps what it has until a snapshot with routes is complete. */
  #follows: boolean;
  #hasSnapshot = false;
  readonly #received = { new: 0, same: 0, stale: 0, deleted: 0, malformed: 0 };
  readonly #bus: Bus;
  readonly #watch: RoutesWatch;
  readonly #follower: HaproxyFollower;
  readonly #bodies: BodyWatch;
  readonly #certificates: CertificateWatch | null;
  readonly #traffic = new TrafficMeter();
  /** One reading at a time: two at once would count the same requests twice. */
  #reading: Promise<void> = Promise.resolve();
  readonly #metrics: Metrics;
  #heartbeat: NodeJS.Timeout | null = null;
  #trafficTimer: NodeJS.Timeout | null = null;
  #saveTimer: NodeJS.Timeout | null = null;

  constructor(settings: EdgeSettings, log: Logger) {
    this.#settings = settings;
    this.#log = log;
    const { table, problem } = loadTable(edgeFiles(settings.dir).routes);
    if (problem !== null) log.error(`${problem}; the routes come from NATS`);
    this.#follows = table !== null;
    this.#table = new RouteTable(table ?? undefined);
    this.#watch = new RoutesWatch(
      settings.id,
      {
        onRoute: (route) => this.#onRoute(route),
        onDeleted: (host) => this.#onDeleted(host),
        onSnapshot: () => {
          this.#hasSnapshot = true;
          this.#startFollowing();
        },
        onMalformed: () => {
          this.#received.malformed += 1;
        },
      },
      log,
    );
    this.#bus = new Bus({
      url: settings.natsUrl,
      user: settings.id,
      credsFile: settings.natsCredsFile,
      log,
      onUp: (connection) => this.#watch.restart(connection),
      onDown: () => this.#watch.stop(),
    });
    this.#follower = new HaproxyFollower({
      table: this.#table,
      settings,
      log,
      onSettled: (host, revision) => this.#onSettled(host, revision),
      save: () => this.#save(),
    });
    const master = new HaproxyMaster(edgeFiles(settings.dir).masterSocket);
    this.#certificates =
      settings.tls && new CertificateWatch(master, settings.tls.certificates, settings.dir, log);
    this.#bodies = new BodyWatch(
      master,
      { maxBytes: settings.maxBody, graceSeconds: bodyGraceSeconds },
      log,
    );
    this.#metrics = new Metrics({
      table: this.#table,
      follower: this.#follower,
      bodies: this.#bodies,
      certificates: this.#certificates,
      traffic: this.#traffic,
      readTraffic: () => this.#readTraffic(),
      natsConnected: () => this.#bus.connected,
      received: this.#received,
    });
  }

  async start(): Promise<void> {
    const { dir, tls } = this.#settings;
    writeFixedFiles(dir);
    // HAProxy's configuration may be an older one; the next needs them.
    if (tls) ensureCertificates(tls.certificates, dir);
    await this.#metrics.listen(this.#settings.metricsPort);
    if (this.#follows) this.#follower.start();
    this.#bodies.start();
    this.#certificates?.start();
    this.#bus.start();
    await this.#readTraffic();
    this.#trafficTimer = setInterval(() => void this.#tellTraffic(), trafficMs);
    this.#heartbeat = setInterval(() => this.#beat(), heartbeatMs);
    this.#log.info({ edge: this.#settings.id, routes: this.#table.size }, 'the edge is up');
  }

  /** HAProxy goes on with what it has. */
  async stop(): Promise<void> {
    if (this.#heartbeat) clearInterval(this.#heartbeat);
    if (this.#trafficTimer) clearInterval(this.#trafficTimer);
    await this.#tellTraffic();
    this.#watch.stop();
    await this.#bus.stop();
    await Promise.all([this.#follower.stop(), this.#bodies.stop(), this.#certificates?.stop()]);
    this.#metrics.close();
    if (this.#saveTimer) this.#saveDurably();
  }

  #onRoute(route: Route): void {
    const result = this.#table.accept(route);
    this.#received[result] += 1;
    // Known already: somebody asks whether it is applied.
    this.#follower.touch(route.host);
    this.#startFollowing();
  }

  #onDeleted(host: string): void {
    if (!this.#table.remove(host)) return;
    this.#received.deleted += 1;
    this.#follower.touch(host);
  }

  #onSettled(host: string, revision: number | null): void {
    // Nobody waits for a deleted route: its instances were gone before.
    if (revision === null) return;
    const applied: EdgeApplied = { v: 1, host, revision };
    this.#bus.publish(subjects.edgeApplied(this.#settings.id), applied);
  }

  #startFollowing(): void {
    if (this.#follows || !this.#hasSnapshot || this.#table.size === 0) return;
    this.#follows = true;
    this.#follower.start();
  }

  #beat(): void {
    const heartbeat: EdgeHeartbeat = {
      v: 1,
      at: new Date().toISOString(),
      routes: this.#table.size,
    };
    this.#bus.publish(subjects.edgeHeartbeat(this.#settings.id), heartbeat);
  }

  #readTraffic(): Promise<void> {
    this.#reading = this.#reading.then(async () => {
      try {
        this.#traffic.add(await this.#follower.readTraffic((pid) => this.#traffic.knows(pid)));
        this.#traffic.keepOnly((host) => this.#table.has(host));
      } catch (error) {
        // One that is not there yet, when we begin, has counted nothing.
        if (error instanceof HaproxyDown) this.#traffic.begin();
        this.#log.debug({ err: error }, 'cannot read what was carried');
      }
    });
    return this.#reading;
  }

  /** What cannot be told now is told with what comes next. */
  async #tellTraffic(): Promise<void> {
    await this.#readTraffic();
    if (!this.#bus.connected) return;
    const hosts = this.#traffic.take();
    for (let from = 0; from < hosts.length; from += mostTrafficHosts) {
      const message: EdgeTraffic = { v: 1, hosts: hosts.slice(from, from + mostTrafficHosts) };
      this.#bus.publish(subjects.edgeTraffic(this.#settings.id), message);
    }
  }

  #save(): void {
    this.#write({ durable: false });
    this.#saveTimer ??= setTimeout(() => this.#saveDurably(), saveDurablyAfterMs);
  }

  #saveDurably(): void {
    if (this.#saveTimer) clearTimeout(this.#saveTimer);
    this.#saveTimer = null;
    this.#write({ durable: true });
  }

  #write(options: { durable: boolean }): void {
    try {
      saveTable(edgeFiles(this.#settings.dir).routes, this.#table.toStored(), options);
    } catch (error) {
      // A full disk must not stop routing; the next change tries again.
      this.#log.error({ err: error }, 'cannot save the routes');
    }
  }
}
