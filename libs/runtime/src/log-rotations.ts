import { addWatch, closeFd, openWatches, readNow, SyscallError } from './syscalls.ts';

/** The first is only there to keep the second apart: like events in a row are one to the kernel. */
const [IN_MOVED_FROM, IN_MOVED_TO] = [0x40, 0x80];
const IN_IGNORED = 0x8000;
/** struct inotify_event without its name. */
const headerSize = 16;

/**
 * Counts how often conmon has renamed a new file over the log's old one. The kernel queues each
 * rename, so that the count is right however late it is asked for: of files that nobody saw at least
 * the number is known. `fs.watch` would bring the news of every write, too, which costs more than
 * the lines; this descriptor is only read when somebody asks.
 */
export class LogRotations {
  #fd: number | null = null;
  readonly #dirs = new Map<number, string>();
  readonly #counts = new Map<string, number>();

  /** Counts in this directory from now on, until it is removed; again does nothing. */
  watch(dir: string): void {
    try {
      this.#fd ??= openWatches();
      this.#dirs.set(addWatch(this.#fd, dir, IN_MOVED_FROM | IN_MOVED_TO), dir);
    } catch (error) {
      // No more watches for root: doctor tells, and one rotation between two reads still loses nothing.
      if (!(error instanceof SyscallError) || !['ENOSPC', 'EMFILE'].includes(error.code))
        throw error;
    }
  }

  /** Since it was last asked. */
  take(dir: string): number {
    this.#count();
    const count = this.#counts.get(dir) ?? 0;
    this.#counts.delete(dir);
    return count;
  }

  /** Where there were some that nobody has taken yet. */
  dirs(): string[] {
    this.#count();
    return [...this.#counts.keys()];
  }

  close(): void {
    if (this.#fd !== null) closeFd(this.#fd);
    this.#fd = null;
    this.#dirs.clear();
    this.#counts.clear();
  }

  #count(): void {
    if (this.#fd === null) return;
    for (;;) {
      const size = readNow(this.#fd, events);
      if (size === null) return;
      for (let at = 0; at < size;) {
        const watched = events.readInt32LE(at);
        const mask = events.readUInt32LE(at + 4);
        const next = at + headerSize + events.readUInt32LE(at + 12);
        const dir = this.#dirs.get(watched);
        if (dir !== undefined && mask & IN_IGNORED) {
          this.#dirs.delete(watched);
          this.#counts.delete(dir);
        } else if (dir !== undefined && mask & IN_MOVED_TO)
          this.#counts.set(dir, (this.#counts.get(dir) ?? 0) + 1);
        at = next;
      }
    }
  }
}
const events = Buffer.alloc(64 * 1024);
