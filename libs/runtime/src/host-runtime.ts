import { readFileSync, watch } from 'node:fs';
import type { FSWatcher } from 'node:fs';
import { hostname, release } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Socket } from 'node:net';
import type { FileChange, Resources, TenantLimits } from '@bulkhead/protocol';
import {
  clearRun,
  deleteContainer,
  dismantle,
  readExit,
  removeTenantCgroup,
  stopSignalNumber,
} from './dismantle.ts';
import { findProgram, isOutOfDisk, lookForProgram, run } from './exec.ts';
import { planAddresses } from './addresses.ts';
import { detectCgroups } from './cgroups.ts';
import { changesOf } from './changes.ts';
import { runCheck } from './check.ts';
import { connectInside } from './connect.ts';
import { forgetConnections } from './connections.ts';
import { startExec } from './container-exec.ts';
import { limitTenant, relimitContainer } from './container-limits.ts';
import { openLayers } from './disk.ts';
import type { WritableLayers } from './disk.ts';
import { Firewall } from './firewall.ts';
import { ensureRoutes } from './fleet-routes.ts';
import { conmonCgroup, containerCgroup } from './host.ts';
import type { Host } from './host.ts';
import { Images } from './images.ts';
import { Locks } from './locks.ts';
import { LogRotations } from './log-rotations.ts';
import { keepRotated, readLog, watchLog } from './logs.ts';
import { makeContainer } from './make.ts';
import { bootId, isAlive, signal } from './processes.ts';
import type { ProcessIdentity } from './processes.ts';
import { cleanUp, clearHost, prepareHost } from './reconcile.ts';
import { removeRunDir, runDir } from './run-dir.ts';
import { RuntimeError } from './runtime.ts';
import { holdStateDir, releaseStateDir } from './state-owner.ts';
import type {
  CheckResult,
  ContainerExit,
  ContainerRuntime,
  ContainerSpec,
  ContainerStatus,
  ContainerUse,
  CopyIn,
  CopyOut,
  Exec,
  ExecOptions,
  FleetPlaces,
  HostFacts,
  HostLoad,
  HostUsage,
  PullProgress,
  RuntimeOptions,
} from './runtime.ts';
import { ContainerStore } from './state.ts';
import type { ContainerRecord } from './state.ts';
import { step } from './steps.ts';
import { copyIn, copyOut, isDirectory } from './tools.ts';
import { pressure, ThrottlingSums, useOf } from './usage.ts';
import { SlotPool } from './userns.ts';

/** How often processes are looked at whose conmon may have been killed, and the firewall. */
const lookEveryMs = 1000;
const looksAtOnce = 200;
const safeName = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;

/** A runtime for this host. Does nothing until `reconcile`; throws at once when the options cannot work. */
export const createRuntime = (options: RuntimeOptions): ContainerRuntime =>
  new HostRuntime(options);

/**
 * Containers of this host by conmon and crun. Verbs of one container run one after another; what is
 * true is looked up in /proc, and the records say what to look for.
 */
class HostRuntime implements ContainerRuntime {
  readonly #options: RuntimeOptions;
  readonly #host: Host;
  readonly #problem: NonNullable<RuntimeOptions['onProblem']>;
  readonly #locks = new Locks();
  readonly #records = new Map<string, ContainerRecord>();
  readonly #throttling = new ThrottlingSums();
  /** Called with the exit of a container when it is settled. */
  readonly #waiters = new Map<string, Set<(exit: ContainerExit) => void>>();
  #reconciled = false;
  #lookedAt = 0;
  #timer: NodeJS.Timeout | null = null;
  #exitWatcher: FSWatcher | null = null;

  constructor(options: RuntimeOptions) {
    const { stateDir } = options;
    if (!/^\/[A-Za-z0-9._/-]+$/.test(stateDir))
      throw new Error(
        `State directory "${stateDir}": give an absolute path of letters, digits, and . _ / - only.`,
      );
    if (!safeName.test(options.cgroup))
      throw new Error(`Cgroup "${options.cgroup}": use letters, digits, _ and -.`);
    this.#options = options;
    this.#problem = options.onProblem ?? (() => undefined);
    const layersDir = `${stateDir}/layers`;
    const run = runDir(stateDir);
    let layers: WritableLayers | null = null;
    const addresses = planAddresses(options.network, options.idBase, options.vethPrefix);
    this.#host = {
      addresses,
      cgroup: options.cgroup,
      cgroups: detectCgroups(),
      firewall: new Firewall({
        table: options.nftTable,
        network: options.network,
        vethPrefix: options.vethPrefix,
        onHealed: () => options.onEvent?.({ type: 'firewall-healed' }),
      }),
      images: new Images({
        ...options,
        dir: `${stateDir}/images`,
        ...(options.imageWaterMarks && { waterMarks: options.imageWaterMarks }),
        inUse: () => [...this.#records.values()].map((record) => record.digest),
      }),
      rotations: new LogRotations(),
      store: new ContainerStore(`${stateDir}/containers`, `${run}/containers`, layersDir),
      openLayers: async () => {
        const { diskPoolMiB: poolMiB } = options;
        layers = await openLayers({ stateDir, dir: layersDir, poolMiB, onProblem: this.#problem });
      },
      layers: () => {
        if (!layers) throw new Error('Call reconcile() before anything else.');
        return layers;
      },
      slots: new SlotPool({
        last: addresses.last,
        idBase: addresses.idBase,
        first: Math.floor(Math.random() * addresses.last),
        forget: (slots) => forgetConnections(new Set(Array.from(slots, addresses.address))),
      }),
      bootId: bootId(),
      crun: findProgram('crun'),
      conmon: findProgram('conmon'),
      createDeadlineMs: options.createDeadlineMs ?? 30_000,
      busybox: lookForProgram('busybox'),
      dirs: {
        crun: `${run}/crun`,
        exits: `${run}/exits`,
        sockets: `${run}/sockets`,
        scratch: `${stateDir}/scratch`,
      },
    };
  }

  async reconcile(): Promise<void> {
    // Later calls find starts under way, which are no crashed ones: only the walls are looked at.
    if (this.#reconciled) return this.#host.firewall.ensure();
    step('hold-state');
    await holdStateDir(this.#options.stateDir);
    await prepareHost(this.#host, this.#options.stateDir);
    for (const record of await cleanUp(this.#host, this.#problem, (kind) =>
      this.#options.onEvent?.({ type: 'leak-removed', kind }),
    ))
      this.#records.set(record.id, record);
    await Promise.all([...this.#records.keys()].map((id) => this.#settleIfEnded(id)));
    for (const record of this.#records.values()) {
      this.#adoptConmon(record);
      if (record.phase !== 'stopped') this.#adoptLog(this.#host.store.paths(record.id).logs);
    }
    step('forget-connections');
    this.#host.slots.forgetOthers();
    step('reconciled');
    // Only now is it known what is in use.
    this.#host.images.watch();
    this.#host.slots.fill();
    // What held back before is the count of the runtime before.
    this.#throttling.begin(this.#host, this.#runningRecords());
    this.#watch();
    this.#reconciled = true;
  }

  #watch(): void {
    this.#exitWatcher ??= watch(this.#host.dirs.exits, { persistent: false }, (_event, id) => {
      if (id !== null && this.#records.has(id)) this.#settleInBackground(id);
    });
    this.#timer ??= setInterval(() => {
      // conmon's own end and its exit files tell at once; this finds the ends that a killed conmon cannot tell.
      for (const id of this.#nextToLookAt()) if (this.#hasEnded(id)) this.#settleInBackground(id);
      this.#keepLogs();
      // While this fails the door is closed (firewall.ts), and nothing starts.
      this.#host.firewall
        .ensure()
        .catch((error: unknown) => this.#problem('keeping the firewall', error));
    }, lookEveryMs).unref();
  }

  readonly #rotated = (dir: string): number => this.#host.rotations.take(dir);

  #adoptLog(dir: string): void {
    try {
      this.#host.rotations.watch(dir);
      keepRotated(dir, this.#rotated);
    } catch (error) {
      this.#problem('adopting the log of a container', error);
    }
  }

  /** Before they are rotated again: nobody may be reading them. */
  #keepLogs(): void {
    for (const dir of this.#host.rotations.dirs()) {
      try {
        keepRotated(dir, this.#rotated);
      } catch (error) {
        this.#problem('keeping the log of a container', error);
      }
    }
  }

  /** A bounded part of the containers in turn, so that a thousand cost no more a second than a hundred. */
  #nextToLookAt(): string[] {
    const ids = [...this.#records.keys()];
    if (this.#lookedAt >= ids.length) this.#lookedAt = 0;
    const turn = ids.slice(this.#lookedAt, this.#lookedAt + looksAtOnce);
    this.#lookedAt += looksAtOnce;
    return turn;
  }

  async setFleet(places: FleetPlaces): Promise<void> {
    // Who may come in first; the ways to others are no wall.
    await this.#host.firewall.setEdges(places.edges);
    await ensureRoutes(this.#options.idBase, places);
  }

  ensureImage(
    image: { repository: string; digest: string },
    onProgress?: (progress: PullProgress | null) => void,
  ): Promise<void> {
    return this.#host.images.ensure(image.repository, image.digest, onProgress);
  }

  listImages(): Promise<string[]> {
    return Promise.resolve(this.#host.images.list());
  }

  start(spec: ContainerSpec): Promise<ContainerStatus> {
    if (!safeName.test(spec.id) || !safeName.test(spec.tenantId))
      return Promise.reject(
        new Error(`Container "${spec.id}" of "${spec.tenantId}": use letters, digits, _ and -.`),
      );
    this.#host.cgroups.warm();
    return this.#locks.run(spec.id, async () => {
      try {
        await this.#settle(spec.id);
        const before = await this.#finished(spec.id);
        if (before?.phase === 'running') return this.#status(before);
        return this.#status(
          before ? await this.#restart(spec, before) : await this.#startNew(spec),
        );
      } catch (error) {
        if (error instanceof RuntimeError) throw error;
        throw new RuntimeError('start-failed', 'The container could not be started.', {
          cause: error,
        });
      }
    });
  }

  /** What is there of a container, once a removal that failed half-way is brought to its end. */
  async #finished(id: string): Promise<ContainerRecord | null> {
    const record = this.#records.get(id) ?? null;
    if (record === null || ['running', 'stopped'].includes(record.phase)) return record;
    await this.#discard(record);
    return null;
  }

  async #startNew(spec: ContainerSpec): Promise<ContainerRecord> {
    step('take-slot');
    const slot = await this.#host.slots.take();
    if (!slot)
      throw new RuntimeError(
        'out-of-addresses',
        'The node has no address left for another container.',
      );
    try {
      return await this.#make(spec, slot);
    } catch (error) {
      const made = this.#host.store.find(spec.id);
      if (made) {
        this.#records.set(spec.id, made);
        await this.#discard(made);
      } else {
        // The disk was too full for even its record.
        await deleteContainer(this.#host, spec.id);
        this.#host.slots.release(slot.slot);
      }
      throw error;
    }
  }

  /** In place: the same address, ids and log, a new writable layer. When it fails the container is as it was. */
  async #restart(spec: ContainerSpec, before: ContainerRecord): Promise<ContainerRecord> {
    const usernsFd = await this.#host.slots.namespaceOf(before.slot);
    try {
      return await this.#make(spec, { slot: before.slot, usernsFd });
    } catch (error) {
      const made = this.#host.store.find(spec.id);
      if (made) await dismantle(this.#host, made);
      await clearRun(this.#host, spec.id);
      this.#keep(before);
      this.#removeTenantIfEmpty(before.tenantId);
      throw error;
    }
  }

  async #make(
    spec: ContainerSpec,
    slot: { slot: number; usernsFd: number },
  ): Promise<ContainerRecord> {
    const { record, conmon } = await makeContainer(
      this.#host,
      spec,
      slot,
      (written) => this.#records.set(spec.id, written),
      this.#records,
    );
    step('move-conmon');
    this.#adoptConmon(record);
    void conmon.ended.then(() => this.#settleInBackground(spec.id));
    return record;
  }

  /** Moves conmon out of the agent's cgroup. When it fails conmon has ended, or `reconcile` does it. */
  #adoptConmon(record: ContainerRecord): void {
    if (!record.conmon || !isAlive(record.conmon)) return;
    this.#host.cgroups.enter(conmonCgroup(this.#host), record.conmon.pid).catch(() => undefined);
  }

  update(id: string, resources: Resources, tenantLimits: TenantLimits): Promise<void> {
    return this.#locks.run(id, async () => {
      await this.#settle(id);
      const record = this.#records.get(id);
      if (record?.phase !== 'running') return;
      // Known before it stands: a tenant's limits are reckoned with it, and a crash repeats the call.
      step('record-limits');
      this.#keep({ ...record, resources });
      step('limit-tenant');
      limitTenant(this.#host, record.tenantId, tenantLimits, this.#records.values());
      try {
        relimitContainer(this.#host, record, resources);
      } catch (error) {
        // It ended under our hands: nothing to limit.
        if (this.#hasEnded(id)) return;
        this.#keep(record);
        throw error;
      }
    });
  }

  async find(id: string): Promise<ContainerStatus | null> {
    await this.#settleIfEnded(id);
    const record = this.#records.get(id);
    return record ? this.#status(record) : null;
  }

  async list(): Promise<ContainerStatus[]> {
    await Promise.all([...this.#records.keys()].map((id) => this.#settleIfEnded(id)));
    return [...this.#records.values()].map((record) => this.#status(record));
  }

  async waitExit(id: string, abort: AbortSignal): Promise<ContainerExit> {
    abort.throwIfAborted();
    await this.#settleIfEnded(id);
    abort.throwIfAborted();
    const record = this.#records.get(id);
    if (!record) throw new Error(`There is no container ${id}.`);
    if (record.exit && record.phase !== 'running') return asExit(record.exit);
    return new Promise((resolve, reject) => {
      const waiters = this.#waiters.get(id) ?? new Set();
      this.#waiters.set(id, waiters);
      const ended = (exit: ContainerExit): void => {
        abort.removeEventListener('abort', aborted);
        resolve(exit);
      };
      const aborted = (): void => {
        waiters.delete(ended);
        reject(abort.reason as Error);
      };
      waiters.add(ended);
      abort.addEventListener('abort', aborted, { once: true });
    });
  }

  async stop(id: string, graceSeconds: number): Promise<void> {
    const record = this.#records.get(id);
    if (record?.process && record.phase === 'running' && graceSeconds > 0) {
      step('signal');
      signal(record.process, stopSignalNumber(record.stopSignal));
      // Held still it could not act on the signal, nor end.
      await this.#setPaused(id, false);
      const deadline = performance.now() + graceSeconds * 1000;
      const grace = AbortSignal.timeout(graceSeconds * 1000);
      // Running again under another process: somebody started it anew, and stopping now means that one.
      await this.waitExit(id, grace).catch((error: unknown) => {
        if (!grace.aborted && performance.now() < deadline && this.#records.has(id)) throw error;
      });
    }
    await this.#locks.run(id, async () => {
      const present = this.#records.get(id);
      if (!present) return;
      await this.#settle(id, true);
      this.#removeTenantIfEmpty(present.tenantId);
    });
  }

  pause(id: string): Promise<void> {
    return this.#setPaused(id, true);
  }

  resume(id: string): Promise<void> {
    return this.#setPaused(id, false);
  }

  #setPaused(id: string, paused: boolean): Promise<void> {
    return this.#locks.run(id, async () => {
      await this.#settle(id);
      const record = this.#records.get(id);
      if (record?.phase !== 'running' || (!paused && !record.paused)) return;
      step('record-paused');
      if (record.paused !== paused) this.#keep({ ...record, paused });
      step('freeze');
      await this.#host.cgroups.freeze(containerCgroup(this.#host, record), paused);
    });
  }

  check(id: string, command: readonly string[], timeoutMs: number): Promise<CheckResult> {
    return this.#locks.run(`check ${id}`, async () => {
      const record = this.#records.get(id);
      if (record?.phase !== 'running')
        return { outcome: 'not-run', exitCode: null, output: 'the container does not run' };
      // crun would wait in there until it is resumed.
      if (record.paused)
        return { outcome: 'not-run', exitCode: null, output: 'the container is paused' };
      return runCheck(this.#host, record, command, timeoutMs);
    });
  }

  /** A container that can be talked with now. */
  #running(id: string): ContainerRecord & { process: ProcessIdentity } {
    const record = this.#records.get(id);
    if (record?.phase !== 'running' || !record.process)
      throw new RuntimeError('not-running', 'The instance does not run.');
    // Whatever is started in there would wait until it is resumed.
    if (record.paused) throw new RuntimeError('not-running', 'The instance is paused.');
    return { ...record, process: record.process };
  }

  async exec(id: string, options: ExecOptions): Promise<Exec> {
    return startExec(this.#host, this.#running(id), options);
  }

  async copyOut(id: string, path: string): Promise<CopyOut> {
    return copyOut(this.#host, this.#running(id), path);
  }

  async copyIn(id: string, path: string): Promise<CopyIn> {
    return copyIn(this.#host, this.#running(id), path);
  }

  async isDirectory(id: string, path: string): Promise<boolean> {
    return isDirectory(this.#host, this.#running(id), path);
  }

  async *changes(id: string): AsyncIterable<FileChange> {
    const record = this.#records.get(id);
    if (record?.phase !== 'running')
      throw new RuntimeError('not-running', 'The instance does not run.');
    const { layer } = this.#host.store.paths(id);
    yield* changesOf(`${layer}/upper`, this.#host.images.layersInUse(record.digest));
  }

  limits(id: string): Resources | null {
    const record = this.#records.get(id);
    return record?.phase === 'running' ? record.resources : null;
  }

  use(id: string): ContainerUse | null {
    const record = this.#records.get(id);
    return record?.phase === 'running' ? useOf(this.#host, record) : null;
  }

  async connect(id: string, port: number): Promise<Socket> {
    const { process, slot } = this.#running(id);
    return connectInside(process.pid, this.#host.addresses.address(slot), port);
  }

  remove(id: string): Promise<void> {
    return this.#locks.run(id, async () => {
      const record = this.#records.get(id);
      if (!record) return;
      await this.#settle(id, true);
      await this.#discard(this.#records.get(id) ?? record);
    });
  }

  readLogs(
    id: string,
    cursor: string | null,
    limit: number,
  ): ReturnType<ContainerRuntime['readLogs']> {
    return this.#locks.run(`log ${id}`, async () => {
      const record = this.#records.get(id);
      if (!record) throw new Error(`There is no container ${id}.`);
      const ended = record.phase === 'stopped';
      return readLog(this.#host.store.paths(id).logs, cursor, limit, ended, this.#rotated);
    });
  }

  watchLogs(id: string, onChange: () => void): () => void {
    return watchLog(this.#host.store.paths(id).logs, onChange);
  }

  diskUsage(id: string): Promise<{ bytes: number; limit: number } | null> {
    const known = this.#records.has(id);
    return Promise.resolve(known ? this.#host.layers().usage(id) : null);
  }

  diskPool(): { bytes: number; usedBytes: number } | null {
    return this.#host.layers().pool();
  }

  async facts(): Promise<HostFacts> {
    const version = async (program: string): Promise<string> =>
      /version:? (\S+)/.exec((await run(program, ['--version'])).stdout)?.[1] ?? 'unknown';
    const pool = this.diskPool();
    const os =
      /^PRETTY_NAME="?(.*?)"?$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux';
    return {
      hostname: hostname(),
      kernel: release(),
      os,
      cgroup: this.#host.cgroups.layout,
      crun: await version('crun'),
      conmon: await version('conmon'),
      diskLimit: this.#host.layers().kind,
      diskPoolMiB: pool === null ? null : Math.floor(pool.bytes / (1024 * 1024)),
    };
  }

  #runningRecords(): ContainerRecord[] {
    return [...this.#records.values()].filter(({ phase }) => phase === 'running');
  }

  load(): HostLoad {
    return {
      use: this.#host.cgroups.use(this.#host.cgroup),
      throttling: this.#throttling.look(this.#host, this.#runningRecords()),
      pressure: pressure(),
    };
  }

  async usage(): Promise<HostUsage> {
    return {
      images: await this.#host.images.usage(),
      slots: {
        used: this.#records.size,
        resting: this.#host.slots.resting(),
        total: this.#host.addresses.last,
      },
    };
  }

  async destroy(): Promise<void> {
    // Finds what earlier processes left, too.
    await this.reconcile();
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
    const removals = await Promise.allSettled(
      [...this.#records.keys()].map((id) => this.remove(id)),
    );
    this.#exitWatcher?.close();
    this.#exitWatcher = null;
    this.#host.rotations.close();
    await this.#host.images.close();
    await clearHost(this.#host);
    removeRunDir(this.#options.stateDir);
    this.#reconciled = false;
    releaseStateDir(this.#options.stateDir);
    const failed = removals
      .filter((removal) => removal.status === 'rejected')
      .map((removal) => removal.reason as unknown);
    if (failed.length > 0)
      throw new AggregateError(failed, `${failed.length} containers could not be removed.`);
  }

  #status(record: ContainerRecord): ContainerStatus {
    const states = {
      making: 'created',
      starting: 'created',
      running: 'running',
      stopped: 'stopped',
      removing: 'stopped',
    } as const;
    const state = record.phase === 'running' && record.paused ? 'paused' : states[record.phase];
    return {
      id: record.id,
      tenantId: record.tenantId,
      state,
      pid: record.phase === 'running' ? (record.process?.pid ?? null) : null,
      address: this.#host.addresses.address(record.slot),
      startedAt: record.startedAt === null ? null : new Date(record.startedAt),
      exit: record.exit === null ? null : asExit(record.exit),
    };
  }

  #hasEnded(id: string): boolean {
    const record = this.#records.get(id);
    return record?.phase === 'running' && !(record.process && isAlive(record.process));
  }

  async #settleIfEnded(id: string): Promise<void> {
    if (this.#hasEnded(id)) await this.#locks.run(id, () => this.#settle(id));
  }

  /** For timers and watchers: what fails now is tried again at the next look. */
  #settleInBackground(id: string): void {
    this.#settleIfEnded(id).catch((error: unknown) =>
      this.#problem(`clearing up after ${id}`, error),
    );
  }

  /** Records the end of a container that ended (or is to end: `kill`) and frees its live parts. Under the container's lock. */
  async #settle(id: string, kill = false): Promise<void> {
    const record = this.#records.get(id);
    if (!record || record.phase !== 'running' || !(kill || this.#hasEnded(id))) return;
    if (kill) await this.#host.cgroups.kill(containerCgroup(this.#host, record));
    while (record.process && isAlive(record.process)) await delay(2);
    const exit = record.exit ?? (await readExit(this.#host, record));
    // Only its remains tell how it ended, and they go now: whoever is killed in here knows it again.
    step('record-exit');
    this.#keep({ ...record, exit });
    await dismantle(this.#host, record);
    await clearRun(this.#host, id);
    step('record-stopped');
    this.#keep({ ...record, phase: 'stopped', paused: false, process: null, conmon: null, exit });
    this.#removeTenantIfEmpty(record.tenantId);
    for (const ended of this.#waiters.get(id) ?? []) ended(asExit(exit));
    this.#waiters.delete(id);
  }

  /** Removes what `stopped` leaves, or what a failed start made. */
  async #discard(record: ContainerRecord): Promise<void> {
    const { id, tenantId } = record;
    if (record.phase !== 'stopped') await dismantle(this.#host, record);
    step('record-removing');
    this.#keep({ ...record, phase: 'removing' });
    await deleteContainer(this.#host, id);
    this.#removeTenantIfEmpty(tenantId);
    step('release-slot');
    this.#host.slots.release(record.slot);
    // Last: as long as anything above fails, a removal asked for again comes here again.
    this.#records.delete(id);
  }

  /**
   * For ends and removals, which a full disk must not stop: the file then says what was before, and
   * from there the next agent's `reconcile` comes to the same, but for how the process ended.
   */
  #keep(record: ContainerRecord): void {
    this.#records.set(record.id, record);
    try {
      this.#host.store.write(record);
    } catch (error) {
      if (!isOutOfDisk(error)) throw error;
      this.#problem(`writing down the state of ${record.id}`, error);
    }
  }

  #removeTenantIfEmpty(tenantId: string): void {
    removeTenantCgroup(this.#host, tenantId, this.#records.values());
  }
}

const asExit = (exit: NonNullable<ContainerRecord['exit']>): ContainerExit => ({
  ...exit,
  at: new Date(exit.at),
});
