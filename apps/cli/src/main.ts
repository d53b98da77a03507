import { CommanderError } from 'commander';
import { CliError, CommandExit, exitCodes, Interrupted } from './errors.ts';
import { Output, toJson } from './output/output.ts';
import { plainText } from './output/text.ts';
import { createProgram } from './program.ts';
import type { Io } from './session.ts';

/** Runs one command line and gives its exit code. Prints every error exactly once. */
async function run(argv: readonly string[], io: Io): Promise<number> {
  try {
    const program = createProgram(io);
    if (argv.length === 0) {
      program.outputHelp();
      return exitCodes.OK;
    }
    await program.parseAsync(argv, { from: 'user' });
    return exitCodes.OK;
  } catch (error) {
    if (error instanceof CommandExit) return error.exitCode;
    if (error instanceof CommanderError) {
      // Help and version "fail" with 0; help shown because a command is missing fails with 1.
      if (error.exitCode === 0) return exitCodes.OK;
      if (error.code === 'commander.help') return exitCodes.USAGE;
    }
    const problem =
      io.signal.aborted && !(error instanceof CliError) ? new Interrupted() : toCliError(error);
    report(problem, io, argv.includes('--json'));
    return problem.exitCode;
  }
}

function toCliError(error: unknown): CliError {
  if (error instanceof CliError) return error;
  if (error instanceof CommanderError) {
    const [message = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
    const hint = rest.join(' ').trim();
    return new CliError('USAGE', message, { hint: hint === '' ? 'See `bulkhead help`.' : hint });
  }
  const message = error instanceof Error ? error.message : String(error);
  return new CliError('FAILED', `unexpected: ${message}`, {
    hint: 'This is a fault of bulkhead itself: please report it with the command that you ran.',
  });
}

function report(problem: CliError, io: Io, json: boolean): void {
  const { stderr } = io.streams;
  if (json) {
    const { code, message, hint } = problem;
    stderr.write(`${toJson({ error: { code, message, ...(hint === null ? {} : { hint }) } })}\n`);
    return;
  }
  const { noteStyle } = new Output(io.streams, io.env, false);
  const interrupted = problem instanceof Interrupted;
  const label = interrupted ? noteStyle.warn('stopped:') : noteStyle.bad('error:');
  stderr.write(`${label} ${plainText(problem.message)}\n`);
  if (problem.hint !== null)
    stderr.write(`${problem.hint.split('\n').map(plainText).join('\n')}\n`);
}

const interrupt = new AbortController();
const onSignal = (name: NodeJS.Signals) => {
  // The second Ctrl-C does not ask.
  if (interrupt.signal.aborted) process.exit(exitCodes.INTERRUPTED);
  interrupt.abort(name);
};
process.on('SIGINT', onSignal);
process.on('SIGTERM', onSignal);

// `bulkhead logs | head -1`: whoever read has gone, so there is nobody to tell and nothing is wrong.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? exitCodes.OK : exitCodes.FAILED);
  });
}

const code = await run(process.argv.slice(2), {
  streams: { stdout: process.stdout, stderr: process.stderr, stdin: process.stdin },
  env: process.env,
  cwd: process.cwd(),
  signal: interrupt.signal,
});
// Not process.exitCode: an idle connection must not keep a finished command alive. Output first.
process.stdout.write('', () => process.stderr.write('', () => process.exit(code)));
