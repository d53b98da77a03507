import { statfs } from 'node:fs/promises';
import { availableParallelism, cpus, freemem, loadavg, totalmem } from 'node:os';
import {
  subjects,
  type Heartbeat,
  type NodeCapacity,
  type NodeFacts,
  type NodeUse,
} from '@bulkhead/protocol';
import type { ContainerRuntime } from '@bulkhead/runtime';
import type { Logger } from 'pino';
import type { Bus } from './bus.ts';
import type { Settings } from './settings.ts';

const everyMs = 2000;
/** Images are listed anew after this many heartbeats. */
const imagesEvery = 10;
const mostImages = 200;
const mebibyte = 1024 * 1024;

/** What the host can give to instances: what it has, less what the host itself needs. */
export async function measureCapacity(
  settings: Settings,
  { diskPoolMiB }: NodeFacts,
): Promise<NodeCapacity> {
  // Inside a limited cgroup the limit is the memory there is; 0 means no limit.
  const limit = process.constrainedMemory();
  const memory = Math.floor(Math.min(totalmem(), limit > 0 ? limit : Infinity) / mebibyte);
  const reserve = Math.min(1024, Math.floor(memory / 10));
  const disk = await statfs(settings.NODE_DIR);
  // A tenth stays free: a btrfs filled to the last block has no room for its own books.
  const diskMiB = Math.floor((diskPoolMiB ?? (disk.blocks * disk.bsize) / mebibyte) * 0.9);
  return {
    cpuMillis: settings.AGENT_CPU_MILLIS ?? availableParallelism() * 1000,
    memoryMiB: settings.AGENT_MEMORY_MIB ?? memory - reserve,
    diskMiB: settings.AGENT_DISK_MIB ?? diskMiB,
    maxInstances: settings.AGENT_MAX_INSTANCES,
  };
}

export interface HeartbeatOptions {
  node: string;
  version: string;
  capacity: NodeCapacity;
  facts: NodeFacts;
  bus: Bus;
  runtime: ContainerRuntime;
  /** Instances that this node holds. */
  countInstances: () => number;
  log: Logger;
}

/** Tells the fleet every two seconds that this node lives and what it has. */
export class HeartbeatSender {
  readonly #options: HeartbeatOptions;
  #timer: NodeJS.Timeout | null = null;
  #images: string[] = [];
  #sent = 0;
  #ticks: CpuTicks | null = null;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => void this.beat(), everyMs);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  /** Sends one now. */
  async beat(): Promise<void> {
    const { bus, node } = this.#options;
    if (!bus.connected) return;
    if (this.#sent % imagesEvery === 0) await this.#listImages();
    this.#sent += 1;
    bus.publish(subjects.heartbeat(node), JSON.stringify(this.#message(new Date())));
  }

  #message(now: Date): Heartbeat {
    const { version, capacity, facts, countInstances } = this.#options;
    return {
      v: 1,
      at: now.toISOString(),
      agentVersion: version,
      capacity,
      facts,
      instances: countInstances(),
      use: this.#use(),
      images: this.#images,
    };
  }

  #use(): NodeUse | null {
    const before = this.#ticks;
    const now = (this.#ticks = readTicks());
    if (before === null || now.all <= before.all) return null;
    const share = (now.busy - before.busy) / (now.all - before.all);
    const pool = this.#options.runtime.diskPool();
    return {
      cpuMillis: Math.max(0, Math.round(share * cpus().length * 1000)),
      // What libuv calls free is what the kernel calls available.
      memoryMiB: Math.round((totalmem() - freemem()) / mebibyte),
      diskMiB: pool === null ? null : Math.round(pool.usedBytes / mebibyte),
      load: loadavg()[0] ?? 0,
    };
  }

  async #listImages(): Promise<void> {
    try {
      this.#images = (await this.#options.runtime.listImages()).slice(0, mostImages);
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the images could not be listed');
    }
  }
}

/** Of all processors since the boot. */
interface CpuTicks {
  busy: number;
  all: number;
}

function readTicks(): CpuTicks {
  const ticks = { busy: 0, all: 0 };
  for (const { times } of cpus()) {
    const all = Object.values(times).reduce((sum, each) => sum + each, 0);
    ticks.all += all;
    ticks.busy += all - times.idle;
  }
  return ticks;
}
