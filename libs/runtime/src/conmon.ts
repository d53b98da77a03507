import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { cleanEnv } from './exec.ts';

/**
 * conmon supervises one container: it keeps its output, writes its exit code to a file, and needs
 * nobody. It is started in a session of its own, so that what kills the agent does not reach it.
 */
export interface ConmonOptions {
  id: string;
  bundle: string;
  logFile: string;
  logSizeMax: number;
  exitDir: string;
  socketDir: string;
  crunRoot: string;
  /** Absolute path: conmon does not search for it. */
  crun: string;
}

/** Starts conmon from the calling thread, whose mount namespace it inherits, to make the container. */
export function spawnConmon(options: ConmonOptions): Conmon {
  const args = [
    ['--api-version', '1'],
    // One fork less, and its end is seen here at once; without us it goes on under process 1.
    ['--sync'],
    ['--cid', options.id],
    ['--cuuid', options.id],
    ['--name', options.id],
    ['--runtime', options.crun],
    ['--runtime-arg', `--root=${options.crunRoot}`],
    ['--runtime-arg', '--cgroup-manager=cgroupfs'],
    ['--bundle', options.bundle],
    ['--container-pidfile', `${options.bundle}/pidfile`],
    ['--exit-dir', options.exitDir],
    ['--socket-dir-path', options.socketDir],
    ['--log-path', `k8s-file:${options.logFile}`],
    ['--log-size-max', String(options.logSizeMax)],
    ['--log-level', 'error'],
    ['--no-sync-log'],
  ].flat();
  const child = spawn('conmon', args, {
    detached: true,
    cwd: options.bundle,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    env: cleanEnv({ _OCI_SYNCPIPE: '3' }),
  });
  return new Conmon(child);
}

/** crun refused to make the container; the message is crun's own, with host paths. */
export class CreateError extends Error {
  override readonly name = 'CreateError';
}

export class Conmon {
  readonly #child: ChildProcess;
  readonly #created: Promise<number>;
  readonly ended: Promise<void>;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#created = new Promise((resolve, reject) => {
      let text = '';
      const pipe = child.stdio[3] as Socket;
      pipe.setEncoding('utf8').on('data', (part: string) => {
        text += part;
        if (!text.includes('\n')) return;
        const answer = parseAnswer(text);
        if (answer.pid > 0) resolve(answer.pid);
        else reject(new CreateError(answer.message));
        pipe.destroy();
      });
      pipe.on('error', reject);
      pipe.on('close', () =>
        reject(new CreateError(text || 'conmon ended before it made the container')),
      );
      child.on('error', (error: NodeJS.ErrnoException) =>
        reject(
          error.code === 'ENOENT'
            ? new Error('conmon is not installed (not found on PATH)')
            : error,
        ),
      );
    });
    this.#created.catch(() => undefined);
    this.ended = new Promise((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', () => resolve());
    });
    child.unref();
  }

  /** Undefined when it could not be started; `created` says why. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The container's first process, made and waiting for `crun start`. */
  async created(deadlineMs: number): Promise<number> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`conmon made no container within ${deadlineMs} ms`)),
        deadlineMs,
      );
    });
    try {
      return await Promise.race([this.#created, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

function parseAnswer(text: string): { pid: number; message: string } {
  try {
    const answer = JSON.parse(text) as { data?: number; pid?: number; message?: string };
    return { pid: answer.data ?? answer.pid ?? -1, message: answer.message ?? '' };
  } catch {
    return { pid: -1, message: text };
  }
}
