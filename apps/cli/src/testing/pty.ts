import { spawn } from 'node:child_process';
import type { Person } from './harness.ts';

// A terminal without a size is none of anybody's; a Ctrl-C is for the program, not for the shell.
const setUp = 'stty cols 100 rows 30; trap : INT; ';

/** A person at a real terminal, which script(1) makes: what it shows, and keys to press. */
export class AtTerminal {
  shown = '';
  /** Ends when the shell in the terminal has ended. */
  readonly ended: Promise<void>;
  readonly #child;

  /** `commands` is for sh; `$BULKHEAD` in it runs the program under test. */
  constructor(person: Person, commands: string, env: NodeJS.ProcessEnv = {}) {
    this.#child = spawn(
      'script',
      ['--quiet', '--return', '--command', `${setUp}${commands}`, '/dev/null'],
      {
        env: person.environment({
          SHELL: '/bin/sh',
          TERM: 'xterm',
          BULKHEAD: `${process.execPath} ${person.workbench.bundle}`,
          ...env,
        }),
        cwd: person.home,
        stdio: 'pipe',
      },
    );
    this.#child.stdout.on('data', (bytes: Buffer) => (this.shown += bytes.toString()));
    this.#child.stdin.on('error', () => undefined);
    this.ended = new Promise((resolve) => this.#child.on('close', () => resolve()));
  }

  press(keys: string): void {
    this.#child.stdin.write(keys);
  }

  /** Waits until that is shown. */
  async see(what: RegExp): Promise<RegExpExecArray> {
    const deadline = Date.now() + 20_000;
    for (;;) {
      const match = what.exec(this.shown);
      if (match) return match;
      if (Date.now() > deadline) {
        this.#child.kill('SIGKILL');
        throw new Error(`${String(what)} is not shown, but: ${JSON.stringify(this.shown)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
