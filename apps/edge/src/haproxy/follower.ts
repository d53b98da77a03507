import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { edgeFiles } from '../settings.ts';
import { loadConnections, saveConnections } from '../store.ts';
import { backendName, isAppBackend, type HostTarget, type RouteTable } from '../table.ts';
import { readColumns, type BackendReading } from '../traffic.ts';
import { parseCounts, parseStat } from './actual.ts';
import {
  answerKeys,
  renderFiles,
  structureOf,
  writeHaproxyFiles,
  type ConfigSettings,
  type HaproxyFiles,
} from './config.ts';
import { HaproxyDown, HaproxyMaster } from './master.ts';
import { planStrays, planWorker } from './plan.ts';
import type { OldWorker } from './old-worker.ts';
import { leavingServers } from './worker.ts';
import { HaproxyWorkers, type CurrentWorker } from './workers.ts';

export interface FollowerOptions {
  table: RouteTable;
  settings: ConfigSettings & { drainMs: number };
  log: Logger;
  /** HAProxy serves the host by this revision and nothing is left on what the revision took away. */
  onSettled(host: string, revision: number | null): void;
  /** The table changed: before anything of it is settled it must be on disk. */
  save(): void;
}

/** So many changes at once are told to HAProxy before they are written; of more, a reload may save the telling. */
const fewHosts = 4;
/** Changes in one pass: meanwhile the table may grow so far that a reload does the rest at once. */
const mostHosts = 256;
/** Comparing everything with what HAProxy says, ms. */
const fullEveryMs = 10_000;
/** Looking whether it is still the same HAProxy, ms. */
const lookEveryMs = 1000;

/**
 * Makes HAProxy equal the route table: the worker over the runtime API, and the files that the next
 * one would start with; files first and a reload when the structure is another. One pass at a time; a change during a pass is for the
 * next. A pass that fails is repeated, and nothing is settled meanwhile.
 */
export class HaproxyFollower {
  readonly counts = { reloads: 0, failures: 0, healed: 0 };
  readonly #options: FollowerOptions;
  readonly #files: ReturnType<typeof edgeFiles>;
  readonly #master: HaproxyMaster;
  readonly #workers: HaproxyWorkers;
  readonly #dirty = new Set<string>();
  /** Hosts with something to wait for: since when, ms, and how often the old workers were found quiet. */
  readonly #draining = new Map<string, { since: number; quiet: number }>();
  readonly #stop = new AbortController();
  #wake: () => void = () => undefined;
  #full = true;
  #written: HaproxyFiles | null = null;
  #connections: number;
  #nextFull = 0;
  #running: Promise<void> = Promise.resolve();

  constructor(options: FollowerOptions) {
    this.#options = options;
    this.#files = edgeFiles(options.settings.dir);
    this.#connections = loadConnections(this.#files.connections);
    this.#master = new HaproxyMaster(this.#files.masterSocket);
    this.#workers = new HaproxyWorkers(this.#master);
  }

  /** Whether HAProxy answered last time. */
  get up(): boolean {
    return this.#workers.current !== null;
  }
  get pending(): number {
    return this.#dirty.size + this.#draining.size;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake();
    await this.#running;
  }

  /** The host's route changed, or somebody asks whether it is applied. */
  touch(host: string): void {
    this.#dirty.add(host);
    this.#wake();
  }

  /**
   * Counters of every worker's backends, and whose they are. Of times, only those that had any in the
   * last half minute, unless the process is not `known`.
   */
  async readTraffic(known: (pid: number) => boolean): Promise<BackendReading[]> {
    const hosts = new Map<string, string>();
    for (const { slot, host } of this.#targets(this.#options.table.hosts())) {
      if (slot !== null) hosts.set(backendName(slot), host);
    }
    const readings: BackendReading[] = [];
    for (const { pid } of await this.#master.workers()) {
      const lately = known(pid) ? ' data.http_req_rate gt 0' : '';
      const table = await this.#master.run({ pid }, `show table answers${lately}`);
      const answers = new Map<number, [bucket: number, count: number][]>();
      for (const [key, count] of parseCounts(table)) {
        const id = Math.floor(key / answerKeys.perBackend);
        const buckets = answers.get(id) ?? [];
        buckets.push([key % answerKeys.perBackend, count]);
        answers.set(id, buckets);
      }
      const text = await this.#master.run({ pid }, 'show stat -1 2 -1');
      for (const stat of parseStat(text, readColumns)) {
        const backend = stat.get('pxname') ?? '';
        if (!isAppBackend(backend)) continue;
        const buckets = answers.get(Number(stat.get('iid'))) ?? [];
        readings.push({ host: hosts.get(backend) ?? null, pid, backend, stat, buckets });
      }
    }
    return readings;
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    let failures = 0;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#pass();
        if (failures >= 3) log.info('HAProxy equals the route table again');
        failures = 0;
        await this.#rest();
      } catch (error) {
        failures += 1;
        this.counts.failures += 1;
        this.#full = true;
        const down = error instanceof HaproxyDown;
        if (down) this.#workers.forget();
        if (failures === 3) {
          if (down)
            log.error({ err: error }, 'HAProxy is not running: is its service up? Waiting for it');
          else log.error({ err: error }, 'cannot make HAProxy equal the route table, trying again');
        } else {
          log.debug({ err: error }, 'a pass over HAProxy failed');
        }
        // HAProxy restarts within a second; other reasons may need a person.
        const wait = Math.min(down ? 200 : 5000, 50 * 2 ** Math.min(failures, 10));
        await delay(wait, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      }
    }
  }

  /** Until there is something to do. */
  async #rest(): Promise<void> {
    if (this.#dirty.size > 0 || this.#full || this.#stop.signal.aborted) return;
    const drainAge =
      performance.now() - Math.max(0, ...[...this.#draining.values()].map(({ since }) => since));
    const wait = this.#draining.size > 0 ? Math.min(200, 20 + drainAge / 10) : lookEveryMs;
    const timer = new AbortController();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      delay(wait, undefined, { signal: timer.signal }).then(resolve, () => undefined);
    });
    this.#wake = () => undefined;
    timer.abort();
  }

  async #pass(): Promise<void> {
    const { table } = this.#options;
    const now = performance.now();
    const heal = now >= this.#nextFull;
    const full = this.#full || heal;
    const taken = new Set<string>();
    for (const host of this.#dirty) {
      if (!full && taken.size === mostHosts) break;
      taken.add(host);
      this.#dirty.delete(host);
    }
    try {
      // In the order of arrival; everything when something may have been missed.
      const hosts = full ? new Set([...table.hosts(), ...taken]) : new Set(taken);
      const targets = this.#targets(hosts);
      // A HAProxy that runs is told first, which takes milliseconds: files of ten thousand routes take
      // longer. They are there before anybody hears that the change is applied.
      const structure = structureOf(table, this.#options.settings);
      const filesLast =
        !full && taken.size <= fewHosts && this.#workers.current?.structure === structure;
      if (!filesLast) this.#writeFiles(taken.size > 0, full);
      const current = await this.#look(structure);
      if (this.#full && !full) {
        for (const host of taken) this.#dirty.add(host);
        return;
      }
      if (targets.length > 0 || full) await this.#converge(current, targets, taken, full);
      if (filesLast) this.#writeFiles(taken.size > 0, false);
      if (full) {
        this.#full = false;
        this.#nextFull = performance.now() + fullEveryMs;
      }
      const drained = await this.#reap(current);
      for (const { host, revision } of targets) {
        if (!this.#draining.has(host)) this.#settle(host, revision, taken.has(host));
      }
      for (const { host, revision } of drained) this.#settle(host, revision, true);
    } catch (error) {
      for (const host of taken) this.#dirty.add(host);
      throw error;
    }
  }

  #targets(hosts: Iterable<string>): HostTarget[] {
    return [...hosts].map((host) => this.#options.table.find(host));
  }

  /** Everything is written again with each full comparison: files too may have been changed by others. */
  #writeFiles(changed: boolean, full: boolean): void {
    if (!changed && !full && this.#written) return;
    const { table, settings, save } = this.#options;
    const files = renderFiles(table, settings, this.#connections);
    const differs = files.config !== this.#written?.config || files.map !== this.#written.map;
    if (differs) save();
    if (differs || full) writeHaproxyFiles(settings.dir, files);
    this.#written = files;
  }

  /** Finds the workers; reloads when the current one has another structure. */
  async #look(structure: string): Promise<CurrentWorker> {
    const before = this.#workers.current;
    let current = await this.#workers.find();
    if (current.structure !== structure) {
      // That of the table as it is written: it may have grown while the worker was asked.
      const to = structureOf(this.#options.table, this.#options.settings);
      this.#options.log.info(
        { from: current.structure, to },
        'reloading HAProxy: its structure changed',
      );
      this.#writeFiles(true, false);
      this.counts.reloads += 1;
      await this.#workers.reload(to, this.#files.config);
      current = await this.#workers.find();
    }
    if (current !== before) this.#full = true;
    if (current.connections !== null && current.connections !== this.#connections) {
      this.#connections = current.connections;
      saveConnections(this.#files.connections, current.connections);
      // For the next HAProxy, which may start without us.
      this.#writeFiles(true, false);
    }
    return current;
  }

  async #converge(
    { worker }: CurrentWorker,
    targets: readonly HostTarget[],
    asked: ReadonlySet<string>,
    full: boolean,
  ): Promise<void> {
    const actual = await worker.read(this.#files.map, full ? null : targets);
    const strays = full ? planStrays(actual, targets, this.#files.map) : [];
    const steps = [...strays, ...planWorker(actual, targets, this.#files.map)];
    if (full && asked.size === 0 && steps.length > 0) {
      this.counts.healed += steps.length;
      this.#options.log.info({ steps: steps.length }, 'HAProxy was not as it should be');
    }
    await worker.apply(steps);
    for (const target of targets) {
      if (target.slot === null || this.#draining.has(target.host)) continue;
      const servers = actual.servers.get(backendName(target.slot)) ?? [];
      const leaving = leavingServers(servers, target).length > 0;
      // An old worker may have requests on what left, however long ago: it is looked at before any promise.
      const mayBeOld =
        this.#workers.old.size > 0 && (asked.has(target.host) || target.backends.length === 0);
      if (leaving || mayBeOld)
        this.#draining.set(target.host, { since: performance.now(), quiet: 0 });
    }
  }

  /** Looks after every draining host; gives back those that are done. */
  async #reap({ worker }: CurrentWorker): Promise<HostTarget[]> {
    if (this.#draining.size === 0) return [];
    const { drainMs } = this.#options.settings;
    const old = await this.#lookAtOld();
    const drained: HostTarget[] = [];
    for (const target of this.#targets([...this.#draining.keys()])) {
      const now = performance.now();
      const drain = this.#draining.get(target.host) ?? { since: now, quiet: 0 };
      const empty = await worker.reap(target, now, drainMs);
      // Two looks: a request that chose a server a moment before the reload counts by the second.
      drain.quiet = old.some((each) => each.isBusy(target)) ? 0 : drain.quiet + 1;
      const oldDone = old.length === 0 || drain.quiet >= 2 || now - drain.since >= drainMs;
      // A change that came during this pass is applied by the next, and drained then.
      if (!empty || !oldDone || this.#dirty.has(target.host)) continue;
      this.#draining.delete(target.host);
      drained.push(target);
    }
    return drained;
  }

  async #lookAtOld(): Promise<OldWorker[]> {
    const alive: OldWorker[] = [];
    for (const [pid, worker] of this.#workers.old) {
      try {
        await worker.look();
        alive.push(worker);
      } catch (error) {
        await this.#workers.find();
        if (this.#workers.old.has(pid)) throw error;
      }
    }
    return alive;
  }

  #settle(host: string, revision: number | null, asked: boolean): void {
    const { table, onSettled } = this.#options;
    // Its slot may be given back only if nothing changed since the pass began. Not worth saving: a
    // controller that starts with the older table finds the slot empty and gives it back itself.
    if (!this.#dirty.has(host)) table.release(host);
    if (asked) onSettled(host, revision);
  }
}
