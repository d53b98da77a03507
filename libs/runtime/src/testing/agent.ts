import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ContainerRuntime, ContainerStatus, RuntimeOptions } from '../runtime.ts';
import { RuntimeError } from '../runtime.ts';
import type { Step } from '../steps.ts';

/** From now on: the process kills itself at the step each time, or the step fails once. */
export interface Fault {
  step: Step;
  action: 'kill' | 'throw';
}

export interface Call {
  call: number;
  verb: string;
  args: readonly unknown[];
  fault: Fault | null;
}

interface Answer {
  call: number;
  result?: unknown;
  error?: { message: string; name: string; reason: RuntimeError['reason'] | null };
}

/** The agent was killed while it was doing what it was asked. */
export class AgentKilled extends Error {
  override readonly name = 'AgentKilled';
}

export interface Seen {
  layers: string[];
  quotaGroups: number;
  open: { mnt: number; net: number; user: number };
}

/**
 * A runtime in a process of its own (agent-child.ts), in a group of its own: what kills an agent
 * does not reach the containers, but the programs that it runs.
 */
export class Agent {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (e: Error) => void }
  >();
  readonly ended: Promise<void>;
  #calls = 0;
  #fault: Fault | null = null;

  constructor(options: RuntimeOptions) {
    const script = fileURLToPath(new URL('./agent-child.ts', import.meta.url));
    const args = ['--conditions=@bulkhead/source', script, JSON.stringify(options)];
    this.#child = spawn(process.execPath, args, {
      detached: true,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdin?.on('error', () => undefined);
    if (this.#child.stdout)
      createInterface({ input: this.#child.stdout }).on('line', (line) => this.#hear(line));
    this.ended = new Promise((resolve) =>
      this.#child.once('exit', () => {
        for (const { reject } of this.#waiting.values()) reject(new AgentKilled('killed'));
        this.#waiting.clear();
        resolve();
      }),
    );
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get isAlive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The next call arms it. */
  arm(fault: Fault): this {
    this.#fault = fault;
    return this;
  }

  /** Rejects with what the verb did, or AgentKilled. */
  call(verb: string, ...args: readonly unknown[]): Promise<unknown> {
    if (!this.isAlive) return Promise.reject(new AgentKilled('killed before'));
    const call: Call = { call: ++this.#calls, verb, args, fault: this.#fault };
    this.#fault = null;
    return new Promise((resolve, reject) => {
      this.#waiting.set(call.call, { resolve, reject });
      this.#child.stdin?.write(`${JSON.stringify(call)}\n`);
    });
  }

  #hear(line: string): void {
    const answer = JSON.parse(line) as Answer;
    const waiting = this.#waiting.get(answer.call);
    this.#waiting.delete(answer.call);
    if (!answer.error) return waiting?.resolve(answer.result);
    const { message, name, reason } = answer.error;
    waiting?.reject(
      reason === null ? new Error(`${name}: ${message}`) : new RuntimeError(reason, message),
    );
  }

  reconcile = (): Promise<unknown> => this.call('reconcile');
  list = (): Promise<ContainerStatus[]> => this.call('list') as Promise<ContainerStatus[]>;
  seen = (): Promise<Seen> => this.call('seen') as Promise<Seen>;
  start: ContainerRuntime['start'] = (spec) => this.call('start', spec) as Promise<ContainerStatus>;

  /** With all programs that it runs. */
  async kill(): Promise<void> {
    if (this.isAlive) process.kill(-this.pid, 'SIGKILL');
    await this.ended;
  }
}
