import { get } from 'node:http';
import { connect } from 'node:net';
import { assertNever, type HealthCheck } from '@bulkhead/protocol';
import { judge, nextProbeIn, type Health, type Probe, type ProbeResult } from './health.ts';

/** The time that a bare "does it listen" may take, ms. */
const listenTimeoutMs = 2000;

/** Runs a command in the container of the run; null: it could not be tried, which says nothing of it. */
export type CommandProbe = (
  command: readonly string[],
  timeoutMs: number,
) => Promise<ProbeResult | null>;

/** How an instance was looked at: its check, or whether anything listens. */
export type LookKind = HealthCheck['kind'] | 'listens';

export interface Run {
  host: string;
  /** ms since 1970. */
  startedAt: number;
  /** Where it stands, for a run that an earlier agent watched. */
  health: Health;
  command: CommandProbe;
  onLook: (kind: LookKind, result: ProbeResult | null) => void;
}

/** Watches the health of one run of one instance until it is stopped. */
export class Prober {
  readonly #probe: Probe;
  readonly #host: string;
  readonly #command: CommandProbe;
  readonly #onLook: Run['onLook'];
  /** By a steady clock: setting the other one neither shortens nor lengthens the grace. */
  readonly #startedAt: number;
  readonly #onChange: (health: Health) => void;
  #health: Health;
  #probesMade = 0;
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(probe: Probe, run: Run, onChange: (health: Health) => void) {
    this.#probe = probe;
    this.#host = run.host;
    this.#command = run.command;
    this.#onLook = run.onLook;
    this.#startedAt = performance.now() - Math.max(0, Date.now() - run.startedAt);
    this.#health = run.health;
    this.#onChange = onChange;
  }

  get health(): Health {
    return this.#health;
  }

  start(): void {
    if (this.#probe.kind === 'runs') {
      if (this.#health.phase === 'ready') return;
      const left = this.#startedAt + this.#probe.forMs - performance.now();
      this.#timer = setTimeout(() => this.#take({ ok: true }), Math.max(0, left));
    } else if (this.#probe.kind === 'check' || this.#health.phase !== 'ready') {
      void this.#run();
    }
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    const result = await this.#ask();
    if (this.#stopped) return;
    this.#probesMade += 1;
    if (this.#probe.kind !== 'runs')
      this.#onLook(this.#probe.kind === 'check' ? this.#probe.check.kind : 'listens', result);
    if (result !== null) this.#take(result);
    // `failed` ends the run; the next one gets a prober of its own.
    if (this.#stopped || this.#health.phase === 'failed') return;
    const delay = nextProbeIn(this.#probe, this.#health, this.#probesMade);
    if (delay !== null) this.#timer = setTimeout(() => void this.#run(), delay);
  }

  async #ask(): Promise<ProbeResult | null> {
    const probe = this.#probe;
    switch (probe.kind) {
      case 'runs':
        return { ok: true };
      case 'listens':
        return probeTcp(this.#host, probe.port, listenTimeoutMs);
      case 'check': {
        const timeoutMs = probe.check.timeoutSeconds * 1000;
        if (probe.port === null) return this.#command(probe.check.command, timeoutMs);
        return probe.check.kind === 'tcp'
          ? probeTcp(this.#host, probe.port, timeoutMs)
          : probeHttp(this.#host, probe.port, probe.check.path, timeoutMs);
      }
      default:
        return assertNever(probe);
    }
  }

  #take(result: ProbeResult): void {
    const before = this.#health;
    this.#health = judge(this.#probe, before, result, performance.now() - this.#startedAt);
    if (before.phase !== this.#health.phase || before.message !== this.#health.message) {
      this.#onChange(this.#health);
    }
  }
}

function describeFailure(error: Error, port: number, timeoutMs: number): string {
  const code = (error as NodeJS.ErrnoException).code;
  switch (code) {
    case 'ECONNREFUSED':
      return `nothing listens on port ${port}: the process must listen on 0.0.0.0 and the port in PORT`;
    case 'ETIMEDOUT':
      return `no answer on port ${port} within ${timeoutMs / 1000} s`;
    case 'ECONNRESET':
      return `the connection to port ${port} was closed without an answer`;
    default:
      return `cannot be reached on port ${port}${code === undefined ? '' : ` (${code})`}`;
  }
}

function timedOut(): Error {
  return Object.assign(new Error('timed out'), { code: 'ETIMEDOUT' });
}

/** Whether a TCP connection opens. */
export function probeTcp(host: string, port: number, timeoutMs: number): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const timer = setTimeout(() => socket.destroy(timedOut()), timeoutMs);
    const end = (result: ProbeResult) => {
      clearTimeout(timer);
      resolve(result);
      socket.destroy();
    };
    socket.once('connect', () => end({ ok: true }));
    socket.on('error', (error) => end({ ok: false, why: describeFailure(error, port, timeoutMs) }));
  });
}

/** Whether GET answers with 2xx or 3xx. The body is not read: it comes from a tenant. */
export function probeHttp(
  host: string,
  port: number,
  path: string,
  timeoutMs: number,
): Promise<ProbeResult> {
  return new Promise((resolve) => {
    // Percent-encodes what a tenant may have written as it is; node:http throws on a bare space.
    const url = new URL(`http://${host}:${port}${path}`);
    const request = get({
      host,
      port,
      path: url.pathname + url.search,
      agent: false,
      maxHeaderSize: 16_384,
      headers: { 'user-agent': 'bulkhead-health', connection: 'close' },
    });
    // One deadline over connecting, sending and waiting: a trickle of headers must not extend it.
    const timer = setTimeout(() => request.destroy(timedOut()), timeoutMs);
    const end = (result: ProbeResult) => {
      clearTimeout(timer);
      resolve(result);
      request.destroy();
    };
    request.once('response', (response) => {
      const status = response.statusCode ?? 0;
      response.on('error', () => undefined);
      end(
        status >= 200 && status < 400
          ? { ok: true }
          : { ok: false, why: `GET ${path} answered ${status}` },
      );
    });
    request.on('error', (error) => {
      const code = (error as NodeJS.ErrnoException).code;
      const what =
        code === 'ETIMEDOUT'
          ? `GET ${path} had no answer within ${timeoutMs / 1000} s`
          : code?.startsWith('HPE_')
            ? `GET ${path} was not answered in HTTP`
            : describeFailure(error, port, timeoutMs);
      end({ ok: false, why: what });
    });
  });
}
