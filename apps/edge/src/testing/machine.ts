import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { haproxyCommand } from '../settings.ts';

/**
 * Not of those that the kernel gives to whoever asks for any: between our look and the start of the
 * program that is to have it, another test would get it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const server = createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

/** Tries until it gives something other than false, null or undefined and does not throw. */
export async function until<T>(
  what: string,
  attempt: () => Promise<T | false | null | undefined> | T | false | null | undefined,
  deadlineMs = 10_000,
): Promise<T> {
  const deadline = Date.now() + deadlineMs;
  let last: unknown = 'not yet';
  while (Date.now() < deadline) {
    try {
      const value = await attempt();
      if (value !== false && value !== null && value !== undefined) return value;
    } catch (error) {
      last = error;
    }
    await delay(5);
  }
  throw new Error(`not within ${deadlineMs} ms: ${what} (${String(last)})`);
}

export async function stopped(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** HAProxy under a supervisor that starts it again, as runit does. */
export class TestHaproxy {
  output = '';
  readonly #dir: string;
  #child: ChildProcess | null = null;
  #wanted = false;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** `files`: of which each connection needs two. */
  start(files?: number): void {
    this.#wanted = true;
    const limit = files === undefined ? [] : ['prlimit', `--nofile=${files}`];
    const [program, ...args] = [...limit, ...haproxyCommand(this.#dir)];
    if (program === undefined) throw new Error('no command');
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on(
        'data',
        (chunk: Buffer) => (this.output = (this.output + chunk.toString()).slice(-100_000)),
      );
    }
    child.on('exit', () => {
      if (this.#wanted) setTimeout(() => this.#wanted && this.start(files), 50);
    });
    this.#child = child;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Kills the master and waits until the supervisor has started the next one. */
  async kill(): Promise<void> {
    const killed = this.#child;
    killed?.kill('SIGKILL');
    await until('HAProxy is started again', () => this.#child !== killed);
  }

  async stop(): Promise<void> {
    this.#wanted = false;
    this.#child?.kill('SIGTERM');
    if (this.#child) await stopped(this.#child);
  }
}
