import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** Runs a program with a deadline; what it wrote to stdout. Its stderr becomes the error's message. */
export async function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string } = {},
): Promise<string> {
  try {
    const { stdout } = await execute(program, args, {
      ...options,
      timeout: 300_000,
      maxBuffer: 16 * 1024 * 1024,
    });
    return stdout;
  } catch (error) {
    throw describe(program, error as NodeJS.ErrnoException & { stderr?: string });
  }
}

/** As `run`, for output that is too large to hold. `consume` gets it as it comes. */
export async function runStreaming(
  program: string,
  args: readonly string[],
  consume: (output: Readable) => Promise<void>,
): Promise<void> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const exit = once(child, 'exit') as Promise<[number | null]>;
  await Promise.all([consume(child.stdout), exit]);
  const [code] = await exit;
  if (code !== 0) throw new Error(`${program} failed: ${stderr.trim()}`);
}

function describe(program: string, error: NodeJS.ErrnoException & { stderr?: string }): Error {
  if (error.code === 'ENOENT')
    return new Error(`${program} is not installed: apt-get install ${program}`);
  return new Error(`${program} failed: ${error.stderr?.trim() || error.message}`);
}
