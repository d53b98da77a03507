import { errorCodes, type ErrorCode } from '@bulkhead/protocol';

/**
 * The command line's exit codes; `exitCodeHelp` is what people read. Scripts rely on them: never
 * renumber. One place maps the API's error codes and our own to them.
 */
export const exitCodes = {
  OK: 0,
  FAILED: 1,
  USAGE: 2,
  UNAUTHENTICATED: 3,
  FORBIDDEN: 4,
  NOT_FOUND: 5,
  CONFLICT: 6,
  QUOTA_EXCEEDED: 7,
  INVALID: 8,
  UNAVAILABLE: 9,
  INTERRUPTED: 130,
} as const satisfies Record<ErrorCode, number> & Record<string, number>;

export type ExitName = Exclude<keyof typeof exitCodes, 'OK'>;

export const exitCodeHelp = `Exit codes:
  0    done; or begun, and waiting for "bulkhead promote"
  1    the operation failed (a deployment that did not become ready, for example)
  2    the command line was wrong
  3    not signed in, or the session has ended
  4    not allowed for your role
  5    not found
  6    conflict: the name is taken, or something newer got in the way
  7    quota exceeded
  8    the server refused the input
  9    the server cannot be reached, answers oddly, or took too long
  130  interrupted
  exec, run and tasks attach end with the command's own exit code; an error of
  ours is told on stderr.`;

/** A failure that the person at the terminal can act on: what is wrong, and what to do next. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exit: ExitName;
  /** For scripts: an API error code, a deployment failure code, or the name of the exit code. */
  readonly code: string;
  /** One sentence, usually a command to try. */
  readonly hint: string | null;

  constructor(exit: ExitName, message: string, options: { hint?: string; code?: string } = {}) {
    super(message);
    this.exit = exit;
    this.code = options.code ?? exit;
    this.hint = options.hint ?? null;
  }

  get exitCode(): number {
    return exitCodes[this.exit];
  }
}

export const usageError = (message: string, hint?: string) =>
  new CliError('USAGE', message, hint === undefined ? {} : { hint });

/** Ctrl-C or SIGTERM while a command was waiting. */
export class Interrupted extends CliError {
  constructor(message = 'interrupted', hint?: string) {
    super('INTERRUPTED', message, hint === undefined ? {} : { hint });
  }
}

/** Not an error: the program ends with the exit code of the command that it ran far away. */
export class CommandExit extends Error {
  override readonly name = 'CommandExit';
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`the command ended with ${String(exitCode)}`);
    this.exitCode = exitCode;
  }
}

/** Whether the API's `extensions.code` is one of the closed list. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return (errorCodes as readonly unknown[]).includes(code);
}
