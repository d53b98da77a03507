import { setTimeout as delay } from 'node:timers/promises';
import { HaproxyDown, type HaproxyMaster } from './master.ts';
import { OldWorker } from './old-worker.ts';
import { HaproxyWorker } from './worker.ts';

const reloadDeadlineMs = 15_000;
/** Longer than HAProxy takes to read ten thousand backends several times, ms. */
const askAgainMs = 2_000;

export interface CurrentWorker {
  readonly worker: HaproxyWorker;
  readonly structure: string;
  /** How many it can have; null: it is not ours. */
  readonly connections: number | null;
}

/** HAProxy's workers as they come and go: the one that takes connections, and what reloads left. */
export class HaproxyWorkers {
  readonly old = new Map<number, OldWorker>();
  readonly #master: HaproxyMaster;
  #current: CurrentWorker | null = null;

  constructor(master: HaproxyMaster) {
    this.#master = master;
  }

  /** As last found; null when HAProxy did not answer. */
  get current(): CurrentWorker | null {
    return this.#current;
  }

  forget(): void {
    this.#current = null;
  }

  /** The current worker, asked for again. Throws HaproxyDown when there is none. */
  async find(): Promise<CurrentWorker> {
    const processes = await this.#master.workers();
    const alive = new Set(processes.map(({ pid }) => pid));
    for (const pid of this.old.keys()) if (!alive.has(pid)) this.old.delete(pid);
    for (const process of processes) {
      if (process.role === 'old' && !this.old.has(process.pid)) {
        this.old.set(process.pid, new OldWorker(this.#master, process));
      }
    }
    const process = processes.find(({ role }) => role === 'current');
    if (!process) throw new HaproxyDown('HAProxy has no worker yet');
    if (this.#current?.worker.process.pid !== process.pid) {
      const worker = new HaproxyWorker(this.#master, process);
      const structure = await worker.structure();
      // Another's configuration, or an older one of ours, has no use for it.
      const connections = structure === '' ? null : await worker.tellCapacity();
      this.#current = { worker, structure, connections };
    }
    return this.#current;
  }

  /** Reloads and waits until the new worker, with this structure, has taken over. */
  async reload(structure: string, config: string): Promise<void> {
    const began = performance.now();
    let asked = -Infinity;
    for (;;) {
      // A master that has just begun, or is at a reload, does not hear the word.
      if (performance.now() - asked >= askAgainMs) {
        await this.#master.reload();
        asked = performance.now();
      }
      await delay(20);
      // The master refuses connections while it executes itself anew.
      const found = await this.find().catch((error: unknown) => {
        if (error instanceof HaproxyDown) return null;
        throw error;
      });
      if (found?.structure === structure) return;
      if (performance.now() - began > reloadDeadlineMs) {
        throw new Error(
          `HAProxy did not take its new configuration; see its log, or run: haproxy -c -f ${config}`,
        );
      }
    }
  }
}
