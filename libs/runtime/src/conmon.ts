import { cleanEnv } from './exec.ts';
import { readOnlyCrun } from './host-thread.ts';
import { openPipe, readPipe, spawnDetached } from './spawn.ts';
import { closeFd } from './syscalls.ts';

/**
 * conmon supervises one container: it keeps its output, writes its exit code to a file, and needs
 * nobody. It is started in a session of its own, so that what kills the agent does not reach it.
 */
export interface ConmonOptions {
  /** Absolute path of the program. */
  conmon: string;
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
  const pipe = openPipe();
  try {
    const { pid, ended } = spawnDetached(options.conmon, args, {
      cwd: options.bundle,
      third: pipe.write,
      env: cleanEnv({ ...readOnlyCrun, _OCI_SYNCPIPE: '3' }),
    });
    return new Conmon(pid, ended, pipe.read);
  } catch (error) {
    closeFd(pipe.read);
    throw error;
  } finally {
    closeFd(pipe.write);
  }
}

/** crun refused to make the container; the message is crun's own, with host paths. */
export class CreateError extends Error {
  override readonly name = 'CreateError';
}

export class Conmon {
  readonly pid: number;
  /** Settles when conmon itself has ended. */
  readonly ended: Promise<void>;
  readonly #created: Promise<number>;

  constructor(pid: number, ended: Promise<void>, syncPipe: number) {
    this.pid = pid;
    this.ended = ended;
    this.#created = new Promise((resolve, reject) => {
      let text = '';
      const pipe = readPipe(syncPipe);
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
    });
    this.#created.catch(() => undefined);
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
