import type { FileChange, Instance, InstanceUsage, TaskRun } from '../graphql/types.ts';
import type { FakeApp } from './fake-app.ts';
import { newId, refuse } from './fake-platform.ts';
import { FakeStreams } from './fake-streams.ts';

export interface Where {
  readonly tenant: string;
  readonly app: string;
  readonly instance?: string | null;
  readonly process?: string | null;
}
export interface RunInput extends Where {
  readonly command: string[];
  readonly stdin?: boolean;
  readonly terminal?: object | null;
  readonly detach?: boolean;
}

/** The operations of streams, for an app that the platform has found for the caller. */
export class FakeRemote {
  readonly streams = new FakeStreams();
  /** What exec, runTask and the others were asked for, newest last. */
  readonly asked: object[] = [];
  changes: FileChange[] = [];
  truncated = false;
  readings: Partial<InstanceUsage>[] = [];

  #instance(app: FakeApp, { instance, process }: Where): string {
    const running = app.instanceList.filter(({ state }) => state === 'READY');
    if (instance != null && !app.instanceList.some(({ id }) => id === instance))
      throw refuse('NOT_FOUND', `instance ${instance} not found`);
    const found = running.find(
      (one) => (instance ?? one.id) === one.id && (process ?? one.process) === one.process,
    );
    if (!found) throw refuse('CONFLICT', `no instance of ${app.name} is ready`);
    return found.id;
  }

  exec(app: FakeApp, input: RunInput) {
    this.asked.push(input);
    return this.streams.ticket(this.#instance(app, input), {
      kind: 'run',
      command: input.command,
      stdin: input.stdin === true,
      terminal: input.terminal != null,
    });
  }

  runTask(app: FakeApp, input: RunInput): TaskRun {
    this.asked.push(input);
    const release = app.currentRelease();
    if (!release) throw refuse('CONFLICT', `${app.name} has no release yet`);
    const id = newId('i');
    app.knowInstances(id);
    const instance = app.instanceList.find((one) => one.id === id) as Instance;
    Object.assign(instance, {
      state: 'PULLING',
      oneOff: true,
      process: 'run',
      desired: 'RUNNING',
      goneAt: null,
    });
    if (input.detach === true) return { instance, stream: null };
    const { command, stdin = false, terminal } = input;
    const stream = { kind: 'run', command, stdin, terminal: terminal != null } as const;
    return { instance, stream: this.streams.ticket(id, stream) };
  }

  attachTask(app: FakeApp, input: Where) {
    this.asked.push(input);
    const found = app.instanceList.find(({ id, oneOff }) => oneOff && id === input.instance);
    if (!found) throw refuse('NOT_FOUND', `task ${String(input.instance)} not found`);
    const command = ['sh', '-c', 'echo from its start on; exit 4'];
    return this.streams.ticket(found.id, { kind: 'run', command, stdin: false, terminal: false });
  }

  stopTask(app: FakeApp, { instance }: Where) {
    const found = app.instanceList.find(({ id, oneOff }) => oneOff && id === instance);
    if (!found) throw refuse('NOT_FOUND', `task ${String(instance)} not found`);
    return Object.assign(found, { desired: 'GONE' });
  }

  copy(app: FakeApp, kind: 'copy-in' | 'copy-out', input: Where & { path: string }) {
    this.asked.push(input);
    return this.streams.ticket(this.#instance(app, input), { kind, path: input.path });
  }

  forwardPort(app: FakeApp, input: Where & { port: number }) {
    this.asked.push(input);
    const stream = { kind: 'forward', port: input.port } as const;
    return this.streams.ticket(this.#instance(app, input), stream, false);
  }

  instanceChanges(app: FakeApp, input: Where) {
    this.#instance(app, input);
    return { changes: this.changes, truncated: this.truncated };
  }

  usage(app: FakeApp): InstanceUsage[] {
    return app.instanceList
      .filter(({ state }) => state === 'READY')
      .map(({ id, process }, index) => ({
        instance: id,
        process,
        at: '2026-01-31T12:00:00.000Z',
        cpuMillis: 95,
        cpuCapMillis: 100,
        throttled: 0.25,
        memoryBytes: 64 * 1024 * 1024,
        memoryLimitBytes: 128 * 1024 * 1024,
        pids: 3,
        pidsLimit: 256,
        readBytesPerSecond: 0,
        writtenBytesPerSecond: 1536,
        receivedBytesPerSecond: null,
        sentBytesPerSecond: 2_000_000,
        diskBytes: null,
        diskLimitBytes: null,
        ...this.readings[index],
      }));
  }
}
