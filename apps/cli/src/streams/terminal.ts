import type { TerminalSize } from '@bulkhead/protocol';
import type { Io } from '../session.ts';

const hangupExit = 129;

/**
 * The person's terminal while it belongs to a command far away: every key goes there, Ctrl-C too.
 * However we end, it is as before: `restore` is called on the ordinary ways, and the process's own
 * end does it on the others.
 */
export class Terminal {
  readonly #io: Io;
  #taken = false;
  readonly #atExit = () => this.restore();
  readonly #atHangup = () => process.exit(hangupExit);

  constructor(io: Io) {
    this.#io = io;
  }

  get size(): TerminalSize {
    const { stdout, stderr } = this.#io.streams;
    const shown = [stdout, stderr].find((stream) => stream.isTTY);
    return { columns: shown?.columns || 80, rows: shown?.rows || 24 };
  }

  take(): void {
    if (this.#taken) return;
    this.#taken = true;
    process.once('exit', this.#atExit);
    process.once('SIGHUP', this.#atHangup);
    this.#io.streams.stdin.setRawMode(true);
  }

  restore(): void {
    if (!this.#taken) return;
    this.#taken = false;
    process.off('exit', this.#atExit);
    process.off('SIGHUP', this.#atHangup);
    this.#io.streams.stdin.setRawMode(false);
  }
}

const ctrlP = 0x10;
const ctrlQ = 0x11;

/** Ctrl-P Ctrl-Q lets go of a task, which runs on. A Ctrl-P alone waits for the key after it. */
export class DetachKeys {
  #held = false;

  /** What of the keys is to be sent, and whether they say to let go. */
  press(keys: Buffer): { send: Buffer; detach: boolean } {
    const send: number[] = [];
    for (const key of keys) {
      if (this.#held) {
        this.#held = false;
        if (key === ctrlQ) return { send: Buffer.from(send), detach: true };
        send.push(ctrlP);
      }
      if (key === ctrlP) this.#held = true;
      else send.push(key);
    }
    return { send: Buffer.from(send), detach: false };
  }
}
