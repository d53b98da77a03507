import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { resources } from '@bulkhead/protocol';
import { z } from 'zod';

/**
 * What the runtime knows of each container, one file each. A phase is written before the side effects
 * that it announces, so that after a crash `reconcile` knows what may exist. Files are not synced: everything they speak of, but for directories, ends with the
 * machine, and a directory without a readable file is rubbish by definition.
 */
export const containerRecord = z.object({
  v: z.literal(1),
  id: z.string(),
  tenantId: z.string(),
  /**
   * making: its parts are being made; after a crash they are removed.
   * starting: all parts exist, its process is being let go or runs: the FIFO that it waits on tells.
   * running: it ran when last looked at.
   * stopped: its process ended and its live parts are gone; files and logs remain.
   * removing: everything is being removed.
   */
  phase: z.enum(['making', 'starting', 'running', 'stopped', 'removing']),
  /** To be held still while it runs. The freezer alone cannot say so: kills use it too, and an agent may die in one. */
  paused: z.boolean().default(false),
  slot: z.number().int(),
  /** Boot that the process belongs to: after another one nothing of it lives. */
  bootId: z.string(),
  digest: z.string(),
  stopSignal: z.string().nullable(),
  /** Limits of its present run. Null: made before they were kept. */
  resources: resources.nullable().default(null),
  /** Its first process, with the start time that tells it from a later process of the same number. */
  process: z.object({ pid: z.number().int(), startTime: z.string() }).nullable(),
  conmon: z.object({ pid: z.number().int(), startTime: z.string() }).nullable(),
  startedAt: z.string().nullable(),
  exit: z
    .object({
      exitCode: z.number().int().nullable(),
      signal: z.string().nullable(),
      oomKilled: z.boolean(),
      diskFull: z.boolean().default(false),
      rebooted: z.boolean().default(false),
      at: z.string(),
    })
    .nullable(),
});
export type ContainerRecord = z.infer<typeof containerRecord>;

/** Paths of one container. `run` and what is in it ends with the machine and is in memory (run-dir.ts). */
export interface ContainerPaths {
  dir: string;
  record: string;
  /** Mode `0711`, so that mapped ids can pass to the root file system. */
  run: string;
  bundle: string;
  rootfs: string;
  /** Upper and work directory of the overlay, new with every start; may be seen by the main thread and its children only (disk.ts). */
  layer: string;
  etc: string;
  logs: string;
}

/** Of a record's file, bytes: more than a record takes, so that its size does not change. */
const recordSize = 2048;

export class ContainerStore {
  readonly #root: string;
  readonly #run: string;
  readonly #layers: string;
  constructor(root: string, run: string, layers: string) {
    this.#root = root;
    this.#run = run;
    this.#layers = layers;
  }

  paths(id: string): ContainerPaths {
    const dir = `${this.#root}/${id}`;
    const run = `${this.#run}/${id}`;
    return {
      dir,
      record: `${dir}/record.json`,
      run,
      bundle: `${run}/bundle`,
      rootfs: `${run}/rootfs`,
      layer: `${this.#layers}/${id}`,
      etc: `${run}/etc`,
      logs: `${dir}/logs`,
    };
  }

  /** Ids that have a directory, whatever is in it. */
  ids(): string[] {
    return [...new Set([...readdirSync(this.#root), ...readdirSync(this.#run)])];
  }

  /** Null when there is none or it cannot be read. */
  find(id: string): ContainerRecord | null {
    try {
      return containerRecord.parse(JSON.parse(readFileSync(this.paths(id).record, 'utf8')));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      if (error instanceof SyntaxError || error instanceof z.ZodError) return null;
      throw error;
    }
  }

  /**
   * In place and in one call, so that a kill leaves either the old or the new one. Putting a new file
   * over the old has ext4 write it out at once (`auto_da_alloc`), and needs disk that may be full.
   */
  write(record: ContainerRecord): void {
    const { dir, record: path } = this.paths(record.id);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      const text = Buffer.from(JSON.stringify(record));
      // Spaces behind it cover whatever was there, and mean nothing in JSON.
      const padded = Buffer.alloc(Math.max(fstatSync(file).size, recordSize, text.length), ' ');
      text.copy(padded);
      writeSync(file, padded, 0, padded.length, 0);
    } finally {
      closeSync(file);
    }
  }

  /** Removes the files of one run, with its environment. In memory: quicker here than in the thread pool. */
  deleteRun(id: string): void {
    rmSync(this.paths(id).run, { recursive: true, force: true });
  }

  /**
   * The record's directory last: while it is there the rest is found by it. conmon may be opening its log as the
   * directory goes, so it is tried again.
   */
  async delete(id: string): Promise<void> {
    this.deleteRun(id);
    await rm(this.paths(id).dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
  }
}
