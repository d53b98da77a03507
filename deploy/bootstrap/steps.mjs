/**
 * Progress that a person can follow: one line per step with its time, all output of the step in a
 * log file of its own, and a failure that names the step, the log and what to do next.
 *
 * Plain JavaScript without dependencies, because the first steps run before anything is installed.
 */
import { spawn } from 'node:child_process';
import { appendFileSync, chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A step that did not work. `advice` is written for the person at the terminal. */
export class StepFailure extends Error {
  /** @param {string} message @param {string} [advice] */
  constructor(message, advice) {
    super(message);
    this.name = 'StepFailure';
    this.advice = advice;
  }
}

/** Lower-case words joined by dashes, fit for a file name. @param {string} title */
const slug = (title) =>
  title
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
    .slice(0, 60);

/** The last lines of a text file, none when it cannot be read. @param {string} file @param {number} count */
export function lastLines(file, count) {
  try {
    return readFileSync(file, 'utf8')
      .trimEnd()
      .split('\n')
      .slice(-count)
      .filter((line) => line !== '');
  } catch {
    return [];
  }
}

/**
 * @param {{ logDir: string, write?: (text: string) => void, now?: () => number }} options
 *   `logDir` is made when missing and readable by its owner only: build output may name secrets' paths.
 */
export function createSteps({
  logDir,
  write = (text) => void process.stdout.write(text),
  now = Date.now,
}) {
  mkdirSync(logDir, { recursive: true, mode: 0o700 });
  let lineIsOpen = false;

  /** Text of its own between steps. @param {string} text */
  const say = (text) => {
    write(`${lineIsOpen ? '\n' : ''}${text}\n`);
    lineIsOpen = false;
  };

  /**
   * Runs `work` as a step. What it returns as a string is shown behind the time. A failure is
   * printed in full and thrown on as `StepFailure`.
   *
   * @template T
   * @param {string} title
   * @param {(step: Step) => Promise<T> | T} work
   * @param {string} [advice] what to do when it fails, unless the failure says it better
   * @returns {Promise<T>}
   */
  const step = async (title, work, advice) => {
    const logFile = join(logDir, `${slug(title)}.log`);
    writeFileSync(logFile, '', { mode: 0o600 });
    chmodSync(logFile, 0o600);
    const log = (/** @type {string} */ text) =>
      appendFileSync(logFile, text.endsWith('\n') ? text : `${text}\n`);
    const started = now();
    const seconds = () => `${((now() - started) / 1000).toFixed(1)} s`;
    write(`  ${title} ... `);
    lineIsOpen = true;
    try {
      const result = await work({
        log,
        logFile,
        run: (command, args, options) => runLogged(log, command, args, options),
      });
      write(
        `${lineIsOpen ? '' : `  ${title}: `}${typeof result === 'string' ? `${result}, ` : ''}${seconds()}\n`,
      );
      lineIsOpen = false;
      return result;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (!(error instanceof StepFailure))
        log(error instanceof Error ? (error.stack ?? message) : message);
      const ownAdvice = error instanceof StepFailure ? error.advice : undefined;
      say(`failed after ${seconds()}`);
      say('');
      say(`FAILED: ${title}`);
      say(`  ${message.split('\n').join('\n  ')}`);
      const tail = lastLines(logFile, 15);
      if (tail.length > 0) say(`\n  The last lines of ${logFile}:\n    ${tail.join('\n    ')}`);
      else say(`\n  Log: ${logFile}`);
      say(
        `\n  What to do: ${ownAdvice ?? advice ?? 'mend what the log names, then run the same command again.'}`,
      );
      throw new ReportedFailure(message);
    }
  };
  return { step, say };
}

/** A failure that has been printed already: end with exit code 1 and say no more. */
export class ReportedFailure extends Error {}

/**
 * Runs a program with an argument array and a deadline; its output goes to the step's log.
 * Resolves with standard output; a non-zero exit or the deadline throws `StepFailure`.
 *
 * @param {(text: string) => void} log
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: Record<string, string | undefined>, input?: string, deadlineMs?: number, quiet?: boolean }} [options]
 *   `quiet` keeps standard output out of the log (secrets).
 * @returns {Promise<string>}
 */
export function runLogged(log, command, args, options = {}) {
  const { cwd, env, input, deadlineMs = 600_000, quiet = false } = options;
  log(`$ ${[command, ...args].join(' ')}`);
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args], {
      cwd,
      env: env ?? process.env,
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new StepFailure(`${command} did not end within ${deadlineMs / 1000} s`));
    }, deadlineMs);
    child.stdout?.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
      stdout += text;
      if (!quiet) log(text);
    });
    child.stderr?.setEncoding('utf8').on('data', (/** @type {string} */ text) => log(text));
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(new StepFailure(`${command} could not be run: ${error.message}`));
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve(stdout);
      else
        reject(
          new StepFailure(
            `${command} ${args[0] ?? ''} ended with ${signal ?? `exit code ${code}`}`,
          ),
        );
    });
    if (input !== undefined) {
      // A program that ends without reading its input is judged by its exit code, not by EPIPE.
      child.stdin?.on('error', () => undefined);
      child.stdin?.end(input);
    }
  });
}

/** @typedef {{ log: (text: string) => void, logFile: string, run: (command: string, args: readonly string[], options?: Parameters<typeof runLogged>[3]) => Promise<string> }} Step */
