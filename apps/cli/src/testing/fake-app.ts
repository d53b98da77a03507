import type {
  AppHealth,
  DeploymentFailure,
  DeploymentKind,
  DeploymentPause,
  DeploymentStatus,
  HealthCheck,
  Instance,
  InstanceState,
  LogLine,
  Strategy,
  StrategyInput,
  TrafficMinute,
} from '../graphql/types.ts';
import { connection, newId, type FakePlatform, type FakeTenant } from './fake-platform.ts';

export interface FakeProcess {
  name: string;
  count?: number | null;
  port?: number | null;
  command?: string[] | null;
  cpuMillis?: number | null;
  memoryMiB?: number | null;
  healthCheck?: Partial<HealthCheck> | null;
}

interface FakeRelease {
  id: string;
  version: number;
  image: string;
  digest: string;
  description: string;
  createdAt: string;
  createdBy: string;
  current: boolean;
  configNames: string[];
  processes: object[];
}

const rolling: Strategy = {
  kind: 'ROLLING',
  maxSurge: '25%',
  maxUnavailable: '0',
  progressSeconds: 300,
  steps: [],
  manual: null,
  keepOldSeconds: null,
};

/** Between two steps of a deployment. */
const stepMs = 15;

const bare = (value: FakeProcess) => ({
  name: value.name,
  count: value.count ?? 1,
  ready: 0,
  command: value.command ?? null,
  port: value.port ?? null,
  cpuMillis: value.cpuMillis ?? 100,
  memoryMiB: value.memoryMiB ?? 128,
  diskMiB: 512,
  cpuCapMillis: 1000,
  pids: 256,
  ioBytesPerSecond: 52_428_800,
  ioOperationsPerSecond: 2000,
  networkBytesPerSecond: 25_000_000,
  logBytesPerSecond: 65_536,
  readOnlyRoot: false,
  mostPerNode: 0,
  protocol: 'HTTP1' as const,
  priority: 'NORMAL' as const,
  pool: 'default',
  nodeLabels: [],
  healthCheck: value.healthCheck
    ? {
        path: null,
        command: null,
        intervalSeconds: 2,
        timeoutSeconds: 2,
        failureThreshold: 3,
        successThreshold: 1,
        startupGraceSeconds: 30,
        kind: 'TCP' as const,
        ...value.healthCheck,
      }
    : null,
});

export class FakeApp {
  readonly id = newId('p');
  readonly createdAt = new Date().toISOString();
  readonly vars = new Map<string, string>();
  readonly releaseList: FakeRelease[] = [];
  readonly deploymentList: FakeDeployment[] = [];
  readonly lines: LogLine[] = [];
  readonly minutes: TrafficMinute[] = [];
  strategy: Strategy | null = null;
  instanceList: Instance[] = [];
  processList: ReturnType<typeof bare>[] = [];
  state: 'ACTIVE' | 'STOPPED' | 'DELETING' = 'ACTIVE';
  readonly platform: FakePlatform;
  readonly tenant: FakeTenant;
  readonly name: string;

  constructor(platform: FakePlatform, tenant: FakeTenant, name: string) {
    this.platform = platform;
    this.tenant = tenant;
    this.name = name;
  }

  get url(): string {
    return `http://${this.name}.${this.tenant.slug}.localhost:8080`;
  }
  health = (): AppHealth =>
    this.state !== 'ACTIVE' ? this.state : this.releaseList.length === 0 ? 'NEW' : 'RUNNING';
  processes = () =>
    this.processList.map((process) => ({
      ...process,
      ready: this.instanceList.filter(
        (one) => one.process === process.name && one.state === 'READY',
      ).length,
    }));
  config = () => [...this.vars].map(([name, value]) => ({ name, value }));
  currentRelease = () => this.releaseList.find((release) => release.current) ?? null;
  latestDeployment = () => this.deploymentList[0] ?? null;
  traffic = (args: { minutes: number; step: number }) => this.minutes.slice(-args.minutes);
  releases = (args: { first?: number; after?: string }) => connection(this.releaseList, args);
  deployments = (args: { first?: number; after?: string }) => connection(this.deploymentList, args);
  instances = (args: { first?: number; after?: string }) => connection(this.instanceList, args);

  setProcesses(processes: readonly FakeProcess[]): void {
    this.processList = processes.map(bare);
  }

  /** Instances that ran once. */
  knowInstances(...ids: string[]): void {
    const at = new Date().toISOString();
    const gone = {
      state: 'GONE',
      desired: 'GONE',
      createdAt: at,
      readyAt: at,
      goneAt: at,
    } as const;
    const rest = {
      paused: false,
      process: 'web',
      oneOff: false,
      release: 1,
      message: null,
      restarts: 0,
      node: null,
    };
    this.instanceList.push(...ids.map((id) => ({ ...gone, ...rest, id, lastExit: null })));
  }

  write(
    text: string,
    stream = 'stdout',
    at = new Date().toISOString(),
    instance = 'i000000000001',
  ): void {
    const cursor = String(this.lines.length + 1).padStart(9, '0');
    const line = { cursor, at, instance, process: 'web', stream, text };
    this.lines.push(line);
    this.platform.changed.emit(`logs:${this.id}`, line);
  }
}

const failures: readonly (readonly [string, Omit<DeploymentFailure, 'process'>])[] = [
  [
    'missing',
    {
      code: 'IMAGE_NOT_FOUND',
      message: 'the registry has no such image',
      instance: null,
      exitCode: null,
      lastLines: [],
    },
  ],
  [
    'crash',
    {
      code: 'CRASHED',
      message: 'web ended 3 times in a row',
      instance: 'i000000000009',
      exitCode: 3,
      lastLines: ['starting', '\u001b[2J\u001b]0;owned\u0007boom: no DATABASE_URL'],
    },
  ],
  [
    'sick',
    {
      code: 'HEALTH_CHECK_FAILED',
      message: 'GET /healthz answered 500',
      instance: 'i000000000009',
      exitCode: null,
      lastLines: [],
    },
  ],
  [
    'huge',
    {
      code: 'NO_ROOM',
      message: 'needs 9000 MiB, 100 MiB free on the best node',
      instance: null,
      exitCode: null,
      lastLines: [],
    },
  ],
  [
    'hungry',
    {
      code: 'OUT_OF_MEMORY',
      message: 'killed at 128 MiB',
      instance: 'i000000000009',
      exitCode: 137,
      lastLines: [],
    },
  ],
  [
    'late',
    {
      code: 'DEADLINE_EXCEEDED',
      message: 'not ready within 300 s',
      instance: null,
      exitCode: null,
      lastLines: [],
    },
  ],
];

/**
 * A deployment that walks by itself from its first to its last state. The image's name says how it
 * ends: a key of `failures`, `stuck` (never), anything else well.
 */
export class FakeDeployment {
  readonly id = newId('d');
  readonly createdAt = new Date().toISOString();
  readonly deadlineAt = new Date(Date.now() + 300_000).toISOString();
  readonly events: { id: string; at: string; message: string }[] = [];
  readonly app: FakeApp;
  readonly kind: DeploymentKind;
  readonly createdBy: string;
  readonly from: FakeRelease | null;
  readonly to: FakeRelease | null;
  status: DeploymentStatus = 'RUNNING';
  finishedAt: string | null = null;
  failure: DeploymentFailure | null = null;
  step = 0;
  steps = 0;
  pause: DeploymentPause | null = null;
  readonly strategy: Strategy;

  constructor(
    app: FakeApp,
    kind: DeploymentKind,
    by: string,
    wanted: {
      image: string | null;
      processes: FakeProcess[] | null;
      description: string | null;
      strategy: StrategyInput | null;
    },
  ) {
    this.strategy = { ...rolling, ...wanted.strategy };
    this.steps = this.strategy.steps.length;
    this.app = app;
    this.kind = kind;
    this.createdBy = by;
    this.from = app.currentRelease();
    const image = wanted.image ?? this.from?.image ?? '';
    if (wanted.processes) app.setProcesses(wanted.processes);
    else if (app.processList.length === 0) app.setProcesses([{ name: 'web', port: 8080 }]);
    this.to =
      kind === 'SCALE' ||
      kind === 'RESIZE' ||
      kind === 'STOP' ||
      kind === 'START' ||
      kind === 'RESTART'
        ? this.from
        : this.#release(
            image,
            wanted.description ?? (kind === 'CONFIG' ? 'Change configuration' : `Deploy ${image}`),
          );
    void this.#walk(image);
  }

  instances = () => this.app.instanceList;

  #release(image: string, description: string): FakeRelease {
    const release = {
      id: newId('r'),
      version: this.app.releaseList.length + 1,
      image,
      digest: `sha256:${'ab'.repeat(32)}`,
      description,
      createdAt: this.createdAt,
      createdBy: this.createdBy,
      current: false,
      configNames: [...this.app.vars.keys()],
      processes: this.app.processList,
    };
    this.app.releaseList.unshift(release);
    return release;
  }

  /** Ends a deployment that was stuck. */
  end(status: DeploymentStatus): void {
    this.status = status;
    this.finishedAt = new Date().toISOString();
    this.say(status.toLowerCase());
  }

  say(message: string): void {
    this.events.push({ id: newId('e'), at: new Date().toISOString(), message });
    this.app.platform.changed.emit(this.id);
  }

  async #step(message: string): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, stepMs));
    this.say(message);
  }

  async #walk(image: string): Promise<void> {
    await this.#step('planned');
    if (image.includes('stuck') && this.kind === 'DEPLOY') return;
    if (this.kind === 'STOP') {
      this.app.instanceList = [];
      this.app.state = 'STOPPED';
      this.end('SUCCEEDED');
      return;
    }
    if (this.kind === 'SCALE' && this.app.state === 'STOPPED') {
      this.end('SUCCEEDED');
      return;
    }
    this.app.state = 'ACTIVE';
    const before = this.app.instanceList;
    const added = this.app.processList.flatMap((process) =>
      Array.from({ length: process.count }, () => this.#instance(process.name)),
    );
    this.app.instanceList = [...before, ...added];
    for (const state of ['PULLING', 'STARTING'] satisfies InstanceState[]) {
      for (const instance of added) instance.state = state;
      await this.#step(state.toLowerCase());
    }
    const failure = failures.find(([name]) => image.includes(name) && this.kind === 'DEPLOY')?.[1];
    if (failure) {
      this.app.instanceList = before;
      this.failure = { ...failure, process: 'web' };
      this.end('FAILED');
      return;
    }
    for (const instance of added) instance.state = 'READY';
    for (const { pauseSeconds } of this.strategy.steps) {
      if (pauseSeconds === null && !(await this.#gate())) {
        this.app.instanceList = before;
        return;
      }
      this.step += 1;
    }
    this.app.instanceList = added;
    for (const release of this.app.releaseList) release.current = release === this.to;
    await this.#step('ready');
    this.end('SUCCEEDED');
  }

  /** Waits for `promote`; false when it was ended instead. */
  async #gate(): Promise<boolean> {
    const step = this.step + 1;
    this.pause = { step, since: new Date().toISOString(), until: null };
    this.say(`step ${String(step)} of ${String(this.steps)}: it waits to be promoted`);
    while (this.pause?.step === step && this.status === 'RUNNING')
      await new Promise((resolve) => setTimeout(resolve, stepMs));
    return this.status === 'RUNNING';
  }

  promote(): void {
    this.pause = null;
  }

  abort(by: string): void {
    this.pause = null;
    const none = { process: null, instance: null, exitCode: null, lastLines: [] };
    this.failure = { code: 'ABORTED', message: `aborted by ${by}`, ...none };
    this.end('FAILED');
  }

  #instance(process: string): Instance {
    return {
      id: newId('i'),
      process,
      oneOff: false,
      release: this.to?.version ?? 0,
      state: 'PENDING',
      desired: 'RUNNING',
      paused: false,
      message: null,
      restarts: 0,
      node: null,
      createdAt: new Date().toISOString(),
      readyAt: null,
      goneAt: null,
      lastExit: null,
    };
  }
}
