/**
 * Makes what runs equal what should run. Every cause (a new specification, an exit, a health
 * verdict, a timer, a restarted agent) is a nudge; the work is always the same: reread desired and
 * actual, plan one step, do it, report, until nothing is left to do.
 */
import {
  assertNever,
  conflict,
  notFound,
  type InstanceExit,
  type InstanceSpec,
  type RunningSpec,
  type TenantLimits,
} from '@bulkhead/protocol';
import { RuntimeError, type ContainerRuntime, type ContainerStatus } from '@bulkhead/runtime';
import type { Logger } from 'pino';
import { Caretaker, healthOf } from './caretaker.ts';
import { containerSpec, fingerprintOf, limitsOf } from './container-spec.ts';
import type { DesiredStore } from './desired-store.ts';
import {
  describeExit,
  describeHealthStop,
  describePull,
  describeAttached,
  describeStartFailure,
  describeUnattended,
  describeVanished,
} from './exits.ts';
import type { JsonFolder } from './files.ts';
import type { NodeIdentity } from './identity.ts';
import { newInstance, release, type Instance } from './instance.ts';
import type { LogShipper } from './log-shipper.ts';
import * as memory from './memory.ts';
import type { InstanceMemory, RestartPolicy, StopReason } from './memory.ts';
import type { AgentMetrics } from './metrics.ts';
import type { RestartPacer } from './pacer.ts';
import {
  describe,
  isThere,
  planStep,
  waitsForSomebody,
  type Activity,
  type InstanceView,
} from './plan.ts';
import type { Reporter } from './reporter.ts';
import { KeyedQueue, Precedence, Semaphore } from './work-queue.ts';

/** Starts and removals at once: each keeps a core busy for some milliseconds. */
const workAtOnce = 8;
/** More steps than any way to rest has; more means that two rules disagree. */
const mostSteps = 20;
/** After an unexpected failure of a step, ms. */
const troubleDelay = 2000;
/** Time for the last log lines of an instance that goes, ms. */
const lastLogsMs = 5_000;

export interface ReconcilerOptions {
  identity: NodeIdentity;
  runtime: ContainerRuntime;
  desired: DesiredStore;
  memories: JsonFolder<InstanceMemory>;
  reporter: Reporter;
  logs: LogShipper;
  metrics: AgentMetrics;
  policy: RestartPolicy;
  pacer: RestartPacer;
  log: Logger;
}

export class Reconciler {
  readonly #o: ReconcilerOptions;
  readonly #instances = new Map<string, Instance>();
  readonly #queue: KeyedQueue;
  readonly #caretaker: Caretaker;
  readonly #work = new Semaphore(workAtOnce);
  /** What is to go and was not told to end yet; nothing starts before it. */
  readonly #departures = new Precedence();
  #stopped = false;

  constructor(options: ReconcilerOptions) {
    this.#o = options;
    this.#queue = new KeyedQueue((id) => this.#converge(id));
    const { runtime, logs, metrics, log } = options;
    const onChange = (instance: Instance) => this.nudge(instance.id);
    this.#caretaker = new Caretaker({ runtime, logs, metrics, log, onChange });
  }

  /** Takes over what the agent before this one remembered; the runtime must be ready. */
  async load(): Promise<void> {
    const memories = await this.#o.memories.load(
      (value) => memory.instanceMemory.parse(value),
      (id, error) =>
        this.#o.log.warn({ instance: id, err: error }, 'the memory of an instance is unreadable'),
    );
    for (const [id, found] of memories) {
      // The agent that carried its streams is gone, and they with it.
      const cutOff = found.attachedAt !== null && !found.finished;
      const known = cutOff ? memory.onFinished(found, describeAttached(null, new Date())) : found;
      this.#instances.set(id, newInstance(id, known));
    }
  }

  /** Something about this instance may have changed. */
  nudge(id: string): void {
    const { made = null, stopping } = this.#instances.get(id)?.memory ?? {};
    // What waits for its start has nothing made, and must not wait for itself.
    const isToldToEnd = made === null || stopping === 'gone';
    if (!isToldToEnd && !this.#stopped && this.#o.desired.get(id)?.desired === 'gone')
      this.#departures.enter(id);
    this.#queue.nudge(id);
  }

  /** Stops looking after the containers, and leaves them running. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const instance of this.#instances.values()) release(instance);
    this.#departures.end();
    await this.#queue.stop();
    for (const instance of this.#instances.values()) release(instance);
    await this.#o.memories.flush();
  }

  /**
   * Somebody wants to be at the standard streams of a task. Answers the command that waited for it,
   * null for a task that waits for nobody. Throws NOT_FOUND, or CONFLICT when it is too late.
   */
  async beginAttach(id: string): Promise<{ command: readonly string[]; terminal: boolean } | null> {
    const desired = this.#o.desired.get(id);
    const instance = this.#instances.get(id);
    if (!instance || desired?.desired !== 'running' || desired.task === null)
      throw notFound(`task ${id}`);
    if (!waitsForSomebody(desired)) return null;
    if (instance.memory.attachedAt !== null || instance.memory.finished)
      throw conflict(`somebody is attached to task ${id}, or was`);
    await this.#remember(instance, memory.onAttached(instance.memory, Date.now()));
    return { command: desired.command ?? [], terminal: desired.task.terminal };
  }

  /** Its command has ended; null: nobody knows how. */
  async endAttach(id: string, exitCode: number | null): Promise<void> {
    const instance = this.#instances.get(id);
    if (!instance) return;
    const exit = describeAttached(exitCode, new Date());
    this.#o.logs.say(id, exit.message);
    await this.#remember(instance, memory.onFinished(instance.memory, exit));
    this.nudge(id);
  }

  /** Drops all that is known of an instance which is gone for good. */
  async forget(id: string): Promise<void> {
    const instance = this.#instances.get(id);
    if (instance !== undefined) release(instance);
    this.#instances.delete(id);
    this.#o.reporter.forget(id);
    await this.#o.memories.put(id, null);
    await this.#o.desired.forget(id);
  }

  async #converge(id: string): Promise<void> {
    let instance = this.#instances.get(id);
    if (instance === undefined) {
      if (this.#o.desired.get(id) === undefined) return;
      instance = newInstance(id, undefined);
      this.#instances.set(id, instance);
    }
    try {
      for (let steps = 0; steps < mostSteps && !this.#stopped; steps += 1) {
        if (!(await this.#step(instance))) return;
      }
      if (!this.#stopped) throw new Error('no rest was reached');
    } catch (error) {
      this.#o.log.error(
        { instance: id, err: error },
        'an instance could not be brought to its state',
      );
      instance.activity = null;
      this.#departures.leave(id);
      this.#wakeAt(instance, Date.now() + troubleDelay);
    }
  }

  /** One round; false when the instance has come to rest. */
  async #step(instance: Instance): Promise<boolean> {
    const desired = this.#o.desired.get(instance.id);
    if (desired === undefined) return false;
    const view = await this.#view(instance, desired);
    const now = Date.now();
    const step = planStep(view, now);
    switch (step.do) {
      case 'settled':
        if (desired.desired === 'running' && isThere(view.actual) && !this.#stopped) {
          this.#caretaker.lookAfter(instance, desired, view.actual);
        }
        this.#report(instance, desired, view.actual);
        if (step.until !== undefined) this.#wakeAt(instance, step.until);
        return false;
      case 'give-up':
        await this.#remember(
          instance,
          memory.onFinished(instance.memory, describeUnattended(new Date(now))),
        );
        return true;
      case 'wait':
        this.#wakeAt(instance, step.until);
        this.#report(instance, desired, view.actual);
        return false;
      case 'take-generation':
        await this.#remember(instance, memory.onNewGeneration(instance.memory, desired.generation));
        return true;
      case 'adopt': {
        const made = { fingerprint: view.fingerprint ?? 'unknown', limits: null };
        const starting = memory.onStarting(instance.memory, made, now);
        await this.#remember(instance, memory.onStarted(starting));
        return true;
      }
      case 'update':
        if (desired.desired === 'running') await this.#update(instance, desired);
        return true;
      case 'pause':
        this.#caretaker.stopProbing(instance);
        this.#o.logs.say(instance.id, 'paused');
        await this.#o.runtime.pause(instance.id);
        return true;
      case 'resume':
        await this.#remember(instance, memory.onResuming(instance.memory));
        await this.#o.runtime.resume(instance.id);
        this.#o.logs.say(instance.id, 'resumed');
        return true;
      case 'note-ready':
        await this.#remember(instance, memory.onReady(instance.memory, now));
        return true;
      case 'note-end':
        if (desired.desired === 'running') await this.#noteEnd(instance, desired, view.actual);
        return true;
      case 'start':
        if (desired.desired === 'running') await this.#start(instance, desired);
        return true;
      case 'stop':
        await this.#stop(instance, desired, view.actual, step.why, step.graceSeconds);
        return true;
      case 'remove':
        await this.#remove(instance, desired);
        return true;
      default:
        return assertNever(step);
    }
  }

  async #view(instance: Instance, desired: InstanceSpec): Promise<InstanceView> {
    if (desired.desired === 'running') this.#trackLogs(desired);
    const actual = await this.#o.runtime.find(instance.id);
    const fingerprint =
      desired.desired === 'running' && actual?.state === 'running'
        ? await this.#fingerprint(instance, desired)
        : null;
    const health = healthOf(instance);
    const limits = desired.desired === 'running' ? limitsOf(desired) : null;
    return { desired, actual, memory: instance.memory, health, fingerprint, limits };
  }

  async #fingerprint(instance: Instance, desired: RunningSpec): Promise<string | null> {
    const known = instance.fingerprint;
    if (known?.generation === desired.generation) return known.value;
    const value = await containerSpec(desired, this.#o.identity).then(
      (spec) => fingerprintOf(spec, this.#o.identity),
      () => null,
    );
    instance.fingerprint = { generation: desired.generation, value };
    return value;
  }

  async #start(instance: Instance, desired: RunningSpec): Promise<void> {
    const { runtime, identity, metrics, logs, policy } = this.#o;
    try {
      const spec = await containerSpec(desired, identity, this.#tenantLimits(desired));
      await this.#ensureImage(instance, desired);
      await this.#departures.passed();
      // A pull takes its time, and something else may be wanted by now.
      if (this.#o.desired.get(instance.id) !== desired || this.#stopped) return;
      await this.#work.run(async () => {
        this.#during(instance, desired, 'starting');
        const began = new Date();
        const made = { fingerprint: fingerprintOf(spec, identity), limits: limitsOf(desired) };
        // Before the container is there: an agent that dies in between must know its start for its own.
        await this.#remember(instance, memory.onStarting(instance.memory, made, began.getTime()));
        logs.say(desired.instance, `starting ${desired.process} of v${desired.release}`, began);
        await runtime.start(spec);
        await this.#remember(instance, memory.onStarted(instance.memory));
      });
      metrics.starts.inc({ outcome: 'started' });
    } catch (error) {
      const now = new Date();
      metrics.starts.inc({ outcome: 'failed' });
      const failure = describeStartFailure(error, now);
      metrics.startFailures.inc({ reason: failure.exit.reason });
      this.#o.log.warn({ instance: instance.id, err: error }, 'an instance could not be started');
      logs.say(desired.instance, `could not be started: ${failure.exit.message}`);
      const chance = Math.random();
      const after = memory.onStartFailed(instance.memory, failure, now.getTime(), policy, chance);
      await this.#remember(instance, after);
    } finally {
      instance.activity = null;
    }
  }

  async #update(instance: Instance, desired: RunningSpec): Promise<void> {
    const { runtime, logs } = this.#o;
    try {
      await runtime.update(instance.id, desired.resources, this.#tenantLimits(desired));
      if (instance.memory.limits !== null) logs.say(instance.id, 'its limits were changed');
      await this.#remember(instance, memory.onLimited(instance.memory, limitsOf(desired)));
    } catch (error) {
      if (!(error instanceof RuntimeError) || error.reason !== 'limit-refused') throw error;
      // A task runs once; it goes on as it is.
      if (desired.task !== null)
        return this.#remember(instance, memory.onLimited(instance.memory, limitsOf(desired)));
      // Only a start anew brings it under its limits.
      logs.say(instance.id, `${error.message} It is started anew.`);
      await this.#remember(instance, memory.onStopping(instance.memory, 'replaced'));
    }
  }

  #tenantLimits({ tenant }: RunningSpec): TenantLimits {
    return this.#o.desired.tenantLimits(tenant.id) ?? tenant.limits;
  }

  async #ensureImage(instance: Instance, desired: RunningSpec): Promise<void> {
    const { digest, repository } = desired.image;
    try {
      await this.#o.runtime.ensureImage({ repository, digest }, (progress) => {
        instance.progress = progress && describePull(progress);
        this.#during(instance, desired, 'pulling');
      });
    } finally {
      instance.progress = null;
    }
  }

  async #noteEnd(
    instance: Instance,
    desired: RunningSpec,
    actual: ContainerStatus | null,
  ): Promise<void> {
    const before = instance.memory;
    const ended = actual?.exit ?? null;
    // An end with the host is no fault of the app's.
    const own = ended?.rebooted ? null : ended;
    const health = healthOf(instance);
    const now = new Date();
    release(instance);
    this.#o.logs.unfollow(instance.id);
    if (desired.task !== null && !before.finished) {
      const lines = await this.#lastLines(instance);
      const exit = own === null ? describeVanished(ended, now) : describeExit(own, desired, lines);
      this.#o.logs.say(instance.id, exit.message);
      await this.#remember(instance, memory.onCleared(memory.onFinished(before, exit)));
    } else if (before.stopping === 'finished') {
      await this.#remember(instance, memory.onCleared(before));
    } else if (before.stopping === 'replaced' || before.stopping === 'gone') {
      await this.#remember(instance, memory.onReplaced(before));
    } else if (before.stopping === 'health') {
      const lines = await this.#lastLines(instance);
      const end = describeHealthStop(ended, health.message, lines, now);
      await this.#noteCrash(instance, end, now);
    } else if (own !== null) {
      const lines = await this.#lastLines(instance);
      await this.#noteCrash(instance, describeExit(own, desired, lines), now);
    } else {
      const after = memory.onVanished(before, describeVanished(ended, now));
      await this.#remember(instance, this.#paced(after, now.getTime()));
    }
  }

  async #noteCrash(instance: Instance, end: InstanceExit, now: Date): Promise<void> {
    this.#o.metrics.noteEnd(end.reason);
    const chance = Math.random();
    const after = memory.onCrash(instance.memory, end, now.getTime(), this.#o.policy, chance);
    const paced = this.#paced(after, now.getTime());
    if (paced.looping && !instance.memory.looping) this.#o.metrics.crashLoops.inc();
    const seconds = Math.ceil(((paced.retryAt ?? 0) - now.getTime()) / 1000);
    const loop = paced.looping ? ` (${paced.crashes} times in a row)` : '';
    this.#o.logs.say(instance.id, `${end.message}${loop}; starts again in ${seconds} s`);
    await this.#remember(instance, paced);
  }

  async #lastLines(instance: Instance): Promise<string[]> {
    try {
      return await this.#o.logs.lastLines(instance.id, new Date(instance.memory.madeAt));
    } catch (error) {
      this.#o.log.warn({ instance: instance.id, err: error }, 'the last lines could not be read');
      return [];
    }
  }

  #paced(after: InstanceMemory, now: number): InstanceMemory {
    const delay = Math.max(0, (after.retryAt ?? now) - now);
    // Slots are counted by a clock that nobody sets.
    const steady = performance.now();
    return { ...after, retryAt: Math.round(now + this.#o.pacer.reserve(steady + delay) - steady) };
  }

  async #stop(
    instance: Instance,
    desired: InstanceSpec,
    actual: ContainerStatus | null,
    why: StopReason,
    graceSeconds: number,
  ): Promise<void> {
    if (instance.memory.stopping !== why) {
      await this.#remember(instance, memory.onStopping(instance.memory, why));
    }
    if (why !== 'health') this.#o.logs.say(instance.id, 'stopping');
    instance.activity = 'restarting';
    try {
      this.#report(instance, desired, actual);
      // Not among the bounded work: it is mostly waiting for the process to end.
      const stopped = this.#o.runtime.stop(instance.id, graceSeconds);
      this.#departures.leave(instance.id);
      await stopped;
    } finally {
      instance.activity = null;
    }
  }

  async #remove(instance: Instance, desired: InstanceSpec): Promise<void> {
    const { logs, runtime } = this.#o;
    release(instance);
    this.#departures.leave(instance.id);
    this.#report(instance, desired, null);
    await logs.finish(instance.id, lastLogsMs);
    await this.#work.run(() => runtime.remove(instance.id));
    await this.#remember(instance, memory.onRemoved(instance.memory));
  }

  /** Says what is being done now. */
  #during(instance: Instance, desired: InstanceSpec, activity: Activity): void {
    instance.activity = activity;
    this.#report(instance, desired, null);
  }

  #report(instance: Instance, desired: InstanceSpec, actual: ContainerStatus | null): void {
    const view = {
      desired,
      actual,
      memory: instance.memory,
      health: healthOf(instance),
      fingerprint: null,
      limits: null,
    };
    this.#o.reporter.report(describe(view, instance.activity, instance.progress));
  }

  /** What cannot be written is still known: a full disk must not keep anything from being stopped. */
  async #remember(instance: Instance, after: InstanceMemory): Promise<void> {
    instance.memory = after;
    await this.#o.memories.put(instance.id, after).catch((error: unknown) => {
      this.#o.log.error(
        { instance: instance.id, err: error },
        'cannot write to the state directory',
      );
    });
  }

  #wakeAt(instance: Instance, at: number): void {
    if (instance.wake !== null) clearTimeout(instance.wake);
    if (this.#stopped) return;
    instance.wake = setTimeout(
      () => {
        instance.wake = null;
        this.nudge(instance.id);
      },
      Math.max(0, at - Date.now()),
    );
  }

  #trackLogs(desired: RunningSpec): void {
    const { tenant, app, process } = desired;
    const owner = { tenantId: tenant.id, appId: app.id, process };
    this.#o.logs.track(desired.instance, owner, desired.resources.logBytesPerSecond);
  }
}
