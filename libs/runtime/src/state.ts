import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { resources } from '@bulkhead/protocol';
import { z } from 'zod';

/**
 * What the runtime knows of each container, one file each, replaced whole by rename. A phase is
 * written before the side effects that it announces, so that after a crash `reconcile` knows what
 * may exist. Files are not synced: everything they speak of, but for directories, ends with the
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
      at: z.string(),
    })
    .nullable(),
});
export type ContainerRecord = z.infer<typeof containerRecord>;

/** Paths of one container; its directory is `0711`, so that mapped ids can pass to the root file system. */
export interface ContainerPaths {
  dir: string;
  record: string;
  bundle: string;
  rootfs: string;
  /** Upper and work directory of the overlay, new with every start; may be seen by the main thread and its children only (disk.ts). */
  layer: string;
  etc: string;
  logs: string;
}

export class ContainerStore {
  readonly #root: string;
  readonly #layers: string;
  constructor(root: string, layers: string) {
    this.#root = root;
    this.#layers = layers;
  }

  paths(id: string): ContainerPaths {
    const dir = `${this.#root}/${id}`;
    return {
      dir,
      record: `${dir}/record.json`,
      bundle: `${dir}/bundle`,
      rootfs: `${dir}/rootfs`,
      layer: `${this.#layers}/${id}`,
      etc: `${dir}/etc`,
      logs: `${dir}/logs`,
    };
  }

  /** Ids that have a directory, whatever is in it. */
  ids(): string[] {
    return readdirSync(this.#root);
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

  write(record: ContainerRecord): void {
    const { dir, record: file } = this.paths(record.id);
    mkdirSync(dir, { recursive: true, mode: 0o711 });
    writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }

  /** Removes the bundle of one run, with its environment. */
  async deleteBundle(id: string): Promise<void> {
    await rm(this.paths(id).bundle, { recursive: true, force: true });
  }

  async delete(id: string): Promise<void> {
    await rm(this.paths(id).dir, { recursive: true, force: true });
  }
}
