import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';

/**
 * The one seam through which this library runs programs: an argument array, a deadline, no shell.
 * Those that a start waits for go by `spawnDetached` (spawn.ts), which is quicker.
 */
export interface RunOptions {
  deadlineMs?: number;
  input?: string;
  env?: Readonly<Record<string, string>>;
  cwd?: string;
  /** Kills the program. */
  signal?: AbortSignal;
}

export interface RunResult {
  stdout: string;
  stderr: string;
}

/** A program that ended with another code than 0, was killed by its deadline, or is not installed. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly program: string;
  readonly exitCode: number | null;
  readonly stderr: string;
  readonly timedOut: boolean;
  constructor(
    program: string,
    what: string,
    exitCode: number | null,
    stderr: string,
    timedOut = false,
  ) {
    super(`${program} ${what}${stderr ? `: ${stderr.trim().slice(-2000)}` : ''}`);
    this.program = program;
    this.exitCode = exitCode;
    this.stderr = stderr;
    this.timedOut = timedOut;
  }
}

/** Whether something failed for want of disk, here or in a program that we ran. */
export function isOutOfDisk(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, errno } = error as NodeJS.ErrnoException;
  const [ENOSPC, EDQUOT] = [-28, -122]; // Node has no name for the second
  if (code === 'ENOSPC' || code === 'EDQUOT' || errno === ENOSPC || errno === EDQUOT) return true;
  return (
    /No space left on device|Disk quota exceeded/.test(error.message) || isOutOfDisk(error.cause)
  );
}

const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Absolute path of a program; throws when it is not installed. */
export function findProgram(name: string): string {
  const found = path.split(':').find((dir) => existsSync(`${dir}/${name}`));
  if (found === undefined)
    throw new CommandError(name, 'is not installed (not found on PATH)', null, '');
  return `${found}/${name}`;
}

/** As `findProgram`; null when it is not installed. */
export function lookForProgram(name: string): string | null {
  try {
    return findProgram(name);
  } catch {
    return null;
  }
}

const maxOutput = 16 * 1024 * 1024;

/** What programs may see of our environment: none of the agent's settings or secrets. */
export const cleanEnv = (extra: Readonly<Record<string, string>> = {}): Record<string, string> => ({
  PATH: path,
  LC_ALL: 'C',
  ...extra,
});

/** Starts `program` now (synchronously, so that it inherits the caller's namespaces) and waits for its end. */
export function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const child = spawn(program, args, {
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    env: cleanEnv(options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const deadlineMs = options.deadlineMs ?? 30_000;
  return new Promise((resolve, reject) => {
    let stdout = '';
    let stderr = '';
    let timedOut = false;
    const deadline = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, deadlineMs);
    const kill = (): void => void child.kill('SIGKILL');
    if (options.signal?.aborted) kill();
    options.signal?.addEventListener('abort', kill, { once: true });
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (stdout.length < maxOutput) stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < maxOutput) stderr += text;
    });
    // A program may end without reading all of its input; its exit code says what to make of that.
    child.stdin?.on('error', () => undefined).end(options.input);
    child.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(deadline);
      const what =
        error.code === 'ENOENT'
          ? 'is not installed (not found on PATH)'
          : `could not be run: ${error.message}`;
      reject(new CommandError(program, what, null, ''));
    });
    child.on('close', (code, signal) => {
      clearTimeout(deadline);
      options.signal?.removeEventListener('abort', kill);
      if (code === 0) return resolve({ stdout, stderr });
      const what = timedOut
        ? `did not end within ${deadlineMs} ms`
        : `${args.slice(0, 2).join(' ')} ended with ${code ?? signal}`;
      reject(new CommandError(program, what, code, stderr, timedOut));
    });
  });
}
