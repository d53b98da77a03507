import { setTimeout as delay } from 'node:timers/promises';
import type { RunningSpec } from '@bulkhead/protocol';
import type { ContainerRuntime, ContainerStatus } from '@bulkhead/runtime';
import type { Logger } from 'pino';
import { Checks } from './checks.ts';
import { goodHealth, probeOf, unknownHealth, type Health, type ProbeResult } from './health.ts';
import { runKey, type Instance } from './instance.ts';
import type { LogShipper } from './log-shipper.ts';
import type { AgentMetrics } from './metrics.ts';
import { Prober, type LookKind } from './prober.ts';

/** Before the end of a container is waited for again, after the waiting itself failed, ms. */
const troubleDelay = 2000;

export interface CaretakerOptions {
  runtime: ContainerRuntime;
  logs: LogShipper;
  metrics: AgentMetrics;
  log: Logger;
  /** The container ended, or its health changed. */
  onChange: (instance: Instance) => void;
}

/** Watches a container that runs: its end, its health, its output. Decides nothing. */
export class Caretaker {
  readonly #o: CaretakerOptions;
  readonly #checks: Checks;

  constructor(options: CaretakerOptions) {
    this.#o = options;
    this.#checks = new Checks(options.runtime, options.log);
  }

  /** Again does nothing, unless it is another run or another specification. */
  lookAfter(instance: Instance, desired: RunningSpec, actual: ContainerStatus): void {
    this.#o.logs.follow(instance.id);
    if (instance.exitWatch === null) this.#watchExit(instance);
    // Held still it could answer nothing.
    if (actual.state === 'paused') return;
    const key = runKey(desired, actual.startedAt, actual.pid);
    if (instance.prober?.key === key) return;
    instance.prober?.prober.stop();
    const run = {
      host: actual.address,
      startedAt: actual.startedAt?.getTime() ?? Date.now(),
      // Ready before the agent was restarted is ready now, until a check says otherwise.
      health: instance.memory.readySince === null ? unknownHealth : goodHealth,
      command: (command: readonly string[], timeoutMs: number) =>
        this.#checks.run({ instance: instance.id, tenant: desired.tenant.id, command, timeoutMs }),
    };
    const onLook = (kind: LookKind, result: ProbeResult | null) => {
      const outcome = result === null ? 'not-run' : result.ok ? 'passed' : 'failed';
      this.#o.metrics.checks.inc({ kind, outcome });
    };
    const prober = new Prober(probeOf(desired), { ...run, onLook }, (health) => {
      if (health.phase === 'unready' || health.phase === 'failed') {
        this.#o.logs.say(instance.id, health.message ?? 'its health check fails');
      }
      this.#o.onChange(instance);
    });
    instance.prober = { key, prober };
    prober.start();
  }

  /** Before it is held still; its end is watched all the same. */
  stopProbing(instance: Instance): void {
    instance.prober?.prober.stop();
    instance.prober = null;
  }

  #watchExit(instance: Instance): void {
    const abort = new AbortController();
    instance.exitWatch = abort;
    const ended = () => {
      if (abort.signal.aborted) return;
      if (instance.exitWatch === abort) instance.exitWatch = null;
      this.#o.onChange(instance);
    };
    const failed = async (error: unknown) => {
      if (abort.signal.aborted) return;
      this.#o.log.warn({ instance: instance.id, err: error }, 'waiting for an exit failed');
      await delay(troubleDelay, undefined, { ref: false });
      ended();
    };
    void this.#o.runtime.waitExit(instance.id, abort.signal).then(ended, failed);
  }
}

/** Of the present run; that of a run which nobody watches yet is what is remembered of it. */
export function healthOf(instance: Instance): Health {
  return (
    instance.prober?.prober.health ??
    (instance.memory.readySince === null ? unknownHealth : goodHealth)
  );
}
