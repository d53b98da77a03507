import { rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { ReadStream } from 'node:tty';
import type { TerminalSize } from '@bulkhead/protocol';
import { acceptNow, closeFd, ioctl, listenAt, receiveDescriptor } from './syscalls.ts';

/**
 * A container's terminal: crun opens a pseudo-terminal inside, where it is the process's own, and
 * sends us its other end over a socket. Node cannot receive descriptors, so the socket is looked at
 * every few milliseconds for as long as crun takes.
 */
const lookEveryMs = 2;
const deadlineMs = 10_000;

export class ConsoleSocket {
  readonly path: string;
  readonly #listening: number;

  constructor(path: string) {
    this.path = path;
    this.#listening = listenAt(path);
  }

  /** Null when `given up` comes first: crun ended without a terminal. */
  async terminal(givenUp: AbortSignal): Promise<Terminal | null> {
    const deadline = performance.now() + deadlineMs;
    let connection: number | null = null;
    try {
      for (;;) {
        // Looked at before: what ended at once may have sent its terminal all the same.
        const last = givenUp.aborted || performance.now() > deadline;
        connection ??= acceptNow(this.#listening);
        const fd = connection === null ? null : receiveDescriptor(connection);
        if (fd !== null) return new Terminal(fd);
        if (last) return null;
        await delay(lookEveryMs);
      }
    } finally {
      if (connection !== null) closeFd(connection);
    }
  }

  close(): void {
    closeFd(this.#listening);
    rmSync(this.path, { force: true });
  }
}

/** Our end of a terminal: what is written is typed, what is read is shown. Destroying it hangs up. */
export class Terminal {
  readonly stream: ReadStream;
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
    this.stream = new ReadStream(fd);
    // The last process at the other end is gone: for a reader that is the end.
    this.stream.on('error', () => undefined);
  }

  resize({ columns, rows }: TerminalSize): void {
    if (this.stream.destroyed) return;
    const TIOCSWINSZ = 0x5414;
    const size = Buffer.alloc(8); // struct winsize
    size.writeUInt16LE(rows, 0);
    size.writeUInt16LE(columns, 2);
    ioctl('TIOCSWINSZ', this.#fd, TIOCSWINSZ, size);
  }
}
