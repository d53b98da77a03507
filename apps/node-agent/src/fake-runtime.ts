import { setTimeout as delay } from 'node:timers/promises';
import type { Resources, TenantLimits } from '@bulkhead/protocol';
import type {
  CheckResult,
  ContainerExit,
  ContainerLogLine,
  ContainerRuntime,
  ContainerSpec,
  ContainerStatus,
  HostFacts,
  HostLoad,
  HostUsage,
  PullProgress,
  RuntimeError,
} from '@bulkhead/runtime';

interface FakeContainer {
  spec: ContainerSpec;
  status: ContainerStatus;
  onExit: Set<(exit: ContainerExit) => void>;
}

/**
 * A host in memory, for specs: it keeps the contract of ContainerRuntime and outlives the agents
 * that use it, as real containers do. `calls` counts what was asked of it.
 */
export class FakeRuntime implements ContainerRuntime {
  readonly containers = new Map<string, FakeContainer>();
  readonly logs = new Map<string, ContainerLogLine[]>();
  readonly calls = {
    start: 0,
    update: 0,
    stop: 0,
    remove: 0,
    ensureImage: 0,
    pause: 0,
    resume: 0,
    check: 0,
  };
  /** Starts and stops in the order of their asking. */
  readonly order: string[] = [];
  readonly images = new Set<string>();
  /** What each pull tells on its way. */
  pullSteps: PullProgress[] = [];
  /** Digest -> why it cannot be pulled. */
  readonly brokenImages = new Map<string, RuntimeError>();
  /** Instance -> why it cannot be started. */
  readonly brokenStarts = new Map<string, Error>();
  /** Instance -> why its limits cannot be changed. */
  readonly brokenUpdates = new Map<string, Error>();
  /** Written by the process before `start` returns; a negative exit code means that it lives. */
  behaviour: (spec: ContainerSpec) => { lines: string[]; exitCode: number } = () => ({
    lines: [],
    exitCode: -1,
  });
  /** So much of a log was lost before this line, counted from 0. */
  lostBefore: { line: number; bytes: number } | null = null;
  /** Instance that takes its time to be found. */
  slow: string | null = null;
  #pid = 1000;
  readonly #watchers = new Map<string, Set<() => void>>();

  async reconcile(): Promise<void> {}

  async setFleet(): Promise<void> {}

  async ensureImage(
    { digest }: { digest: string },
    onProgress?: (progress: PullProgress | null) => void,
  ): Promise<void> {
    this.calls.ensureImage += 1;
    if (!this.images.has(digest)) onProgress?.(null);
    for (const progress of this.pullSteps) onProgress?.(progress);
    const broken = this.brokenImages.get(digest);
    if (broken !== undefined) throw broken;
    this.images.add(digest);
  }

  async listImages(): Promise<string[]> {
    return [...this.images];
  }

  async start(spec: ContainerSpec): Promise<ContainerStatus> {
    const present = this.containers.get(spec.id);
    if (present && present.status.state !== 'stopped') return present.status;
    this.calls.start += 1;
    this.order.push(`start ${spec.id}`);
    const broken = this.brokenStarts.get(spec.id);
    if (broken !== undefined) throw broken;
    this.#pid += 1;
    const status: ContainerStatus = {
      id: spec.id,
      tenantId: spec.tenantId,
      state: 'running',
      pid: this.#pid,
      address: '127.0.0.1',
      startedAt: new Date(),
      exit: null,
    };
    this.containers.set(spec.id, { spec, status, onExit: new Set() });
    const { lines, exitCode } = this.behaviour(spec);
    for (const line of lines) this.write(spec.id, line);
    if (exitCode >= 0) this.exit(spec.id, { exitCode });
    return status;
  }

  async update(id: string, resources: Resources, tenantLimits: TenantLimits): Promise<void> {
    this.calls.update += 1;
    const broken = this.brokenUpdates.get(id);
    if (broken !== undefined) throw broken;
    const container = this.containers.get(id);
    if (container?.status.state !== 'running') return;
    container.spec = { ...container.spec, resources, tenantLimits };
  }

  async find(id: string): Promise<ContainerStatus | null> {
    if (id === this.slow) await delay(200);
    return this.containers.get(id)?.status ?? null;
  }

  async list(): Promise<ContainerStatus[]> {
    return [...this.containers.values()].map((container) => container.status);
  }

  waitExit(id: string, signal: AbortSignal): Promise<ContainerExit> {
    return new Promise((resolve, reject) => {
      const container = this.containers.get(id);
      if (container === undefined) return reject(new Error(`no container ${id}`));
      if (container.status.exit !== null) return resolve(container.status.exit);
      container.onExit.add(resolve);
      signal.addEventListener('abort', () => container.onExit.delete(resolve));
    });
  }

  async stop(id: string): Promise<void> {
    this.calls.stop += 1;
    this.order.push(`stop ${id}`);
    this.exit(id, { exitCode: 0 });
  }

  async pause(id: string): Promise<void> {
    this.calls.pause += 1;
    this.#hold(id, 'paused');
  }

  async resume(id: string): Promise<void> {
    this.calls.resume += 1;
    this.#hold(id, 'running');
  }

  #hold(id: string, state: 'running' | 'paused'): void {
    const container = this.containers.get(id);
    if (container === undefined || container.status.state === 'stopped') return;
    container.status = { ...container.status, state };
  }

  /** What a command in a container answers. */
  checkResult: (command: readonly string[]) => CheckResult | Promise<CheckResult> = () => ({
    outcome: 'ended',
    exitCode: 0,
    output: '',
  });

  async check(_id: string, command: readonly string[]): Promise<CheckResult> {
    this.calls.check += 1;
    return this.checkResult(command);
  }

  /** What is only tried with real containers. */
  #notHere(): never {
    throw new Error('this host is a fake');
  }
  exec = (): never => this.#notHere();
  copyIn = (): never => this.#notHere();
  copyOut = (): never => this.#notHere();
  isDirectory = (): never => this.#notHere();
  changes = (): never => this.#notHere();
  connect = (): never => this.#notHere();
  use = (): null => null;
  limits = (): null => null;

  async remove(id: string): Promise<void> {
    this.calls.remove += 1;
    this.exit(id, { signal: 'SIGKILL' });
    this.containers.delete(id);
    this.logs.delete(id);
  }

  async readLogs(
    id: string,
    cursor: string | null,
    limit: number,
  ): Promise<{ lines: ContainerLogLine[]; cursor: string; lostBytes: number }> {
    if (!this.containers.has(id)) throw new Error(`no container ${id}`);
    const from = Number(cursor ?? 0);
    const lines = (this.logs.get(id) ?? []).slice(from, from + limit);
    const lostBytes = from === this.lostBefore?.line ? this.lostBefore.bytes : 0;
    return { lines, cursor: String(from + lines.length), lostBytes };
  }

  watchLogs(id: string, onChange: () => void): () => void {
    const watchers = this.#watchers.get(id) ?? new Set();
    this.#watchers.set(id, watchers.add(onChange));
    return () => watchers.delete(onChange);
  }

  async diskUsage(): Promise<null> {
    return null;
  }

  diskPool(): null {
    return null;
  }

  async facts(): Promise<HostFacts> {
    return {
      hostname: 'fake',
      kernel: '6.18',
      os: 'Debian 12',
      cgroup: 'v2',
      crun: '1.8.1',
      conmon: '2.1.6',
      diskLimit: 'none',
      diskPoolMiB: null,
    };
  }

  async usage(): Promise<HostUsage> {
    return {
      images: { count: this.images.size, bytes: 0, disk: { size: 0, used: 0 } },
      slots: { used: this.containers.size, resting: 0, total: 100 },
    };
  }

  load(): HostLoad {
    const none = { periods: 0, throttledPeriods: 0, throttledNanos: 0 };
    return { use: null, throttling: { instance: none, tenant: none }, pressure: [] };
  }

  async destroy(): Promise<void> {
    for (const id of [...this.containers.keys()]) await this.remove(id);
  }

  /** The process writes a line. */
  write(id: string, text: string, at = new Date()): void {
    const lines = this.logs.get(id) ?? [];
    lines.push({ at, stream: 'stdout', text });
    this.logs.set(id, lines);
    for (const onChange of this.#watchers.get(id) ?? []) onChange();
  }

  /** The process ends. */
  exit(id: string, how: Partial<ContainerExit>): void {
    const container = this.containers.get(id);
    if (container === undefined || container.status.state === 'stopped') return;
    const none = { exitCode: null, signal: null, oomKilled: false, diskFull: false };
    const exit = { ...none, rebooted: false, at: new Date(), ...how };
    container.status = { ...container.status, state: 'stopped', pid: null, exit };
    for (const onExit of container.onExit) onExit(exit);
    container.onExit.clear();
  }
}
