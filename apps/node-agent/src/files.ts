import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** Replaces a file in one step, mode 0600: after a crash it is the old one or the new one, whole. */
export async function writeAtomically(
  path: string,
  text: string,
  options: { durable: boolean },
): Promise<void> {
  const temporary = `${path}.${randomBytes(4).toString('hex')}.tmp`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(text);
    if (options.durable) await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  if (options.durable) await syncDirectory(dirname(path));
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

interface PendingWrite<T> {
  value: T | null;
  dirty: boolean;
  running: Promise<void>;
}

/**
 * One JSON file per instance in a folder. Writes of one instance follow each other; of several that
 * wait only the last is made.
 */
export class JsonFolder<T> {
  readonly #folder: string;
  readonly #durable: boolean;
  readonly #writes = new Map<string, PendingWrite<T>>();

  constructor(folder: string, options: { durable: boolean }) {
    this.#folder = folder;
    this.#durable = options.durable;
  }

  /** Everything readable, by name; `onBad` hears of files that are not JSON or that `parse` refuses. */
  async load(
    parse: (value: unknown) => T,
    onBad: (name: string, error: unknown) => void,
  ): Promise<Map<string, T>> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const found = new Map<string, T>();
    for (const file of await readdir(this.#folder)) {
      const path = join(this.#folder, file);
      if (file.endsWith('.tmp')) {
        await rm(path, { force: true });
      } else if (file.endsWith('.json')) {
        const name = file.slice(0, -'.json'.length);
        try {
          found.set(name, parse(JSON.parse(await readFile(path, 'utf8'))));
        } catch (error) {
          onBad(name, error);
        }
      }
    }
    return found;
  }

  /** Writes, or removes when `value` is null. Resolves when this value or a later one is on disk. */
  put(name: string, value: T | null): Promise<void> {
    const pending = this.#writes.get(name);
    if (pending !== undefined) {
      pending.value = value;
      pending.dirty = true;
      return pending.running;
    }
    const write: PendingWrite<T> = { value, dirty: true, running: Promise.resolve() };
    this.#writes.set(name, write);
    write.running = this.#writeAll(name, write);
    return write.running;
  }

  async #writeAll(name: string, write: PendingWrite<T>): Promise<void> {
    const path = join(this.#folder, `${name}.json`);
    try {
      while (write.dirty) {
        write.dirty = false;
        if (write.value === null) await rm(path, { force: true });
        else await writeAtomically(path, JSON.stringify(write.value), { durable: this.#durable });
      }
    } finally {
      this.#writes.delete(name);
    }
  }

  /** Resolves when nothing waits to be written. */
  async flush(): Promise<void> {
    await Promise.allSettled([...this.#writes.values()].map((w) => w.running));
  }
}
