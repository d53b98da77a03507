import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerRuntime } from '@bulkhead/runtime';
import type { Logger } from 'pino';
import type { Bus } from './bus.ts';
import { JsonFolder } from './files.ts';
import { logPosition, LogSource, type LogOwner, type LogPosition } from './log-source.ts';
import type { AgentMetrics } from './metrics.ts';
import { KeyedQueue, Semaphore } from './work-queue.ts';

/** New output waits this long for more to share a batch with, ms. */
const gatherMs = 100;
const retryMs = 1000;
/** How often cursors are written to disk, ms: after a kill -9, what was sent since is sent again. */
const saveEveryMs = 1000;
/** Sources that are read and sent at once. */
const pumpsAtOnce = 4;
/** A source that is being limited is read no more often than this, ms, so that it cannot take the agent's time. */
const limitedEveryMs = 100;
/** Without the runtime's notifications: from this, slower while nothing comes, up to that. */
const pollMs = { fastest: 200, slowest: 2000 };

interface Watched {
  source: LogSource;
  /** One sender at a time: the chunk being sent is nobody else's. */
  turn: Semaphore;
  gather: NodeJS.Timeout | null;
  /** Its container runs. */
  following: boolean;
  /** It is to be finished with by then, ms since 1970. */
  deadline: number | null;
  /** Ends the watch for new output; null while there is none. */
  unwatch: (() => void) | null;
}

/**
 * Sends what containers write to JetStream. The runtime's log files are the buffer: nothing is read
 * while NATS is away, and the cursor moves when a batch was acknowledged.
 */
export class LogShipper {
  readonly #options: ShipperOptions;
  readonly #folder: JsonFolder<LogPosition>;
  readonly #watched = new Map<string, Watched>();
  readonly #queue = new KeyedQueue((instance) => this.#pump(instance));
  readonly #places = new Semaphore(pumpsAtOnce);
  readonly #unsaved = new Set<string>();
  #saver: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(options: ShipperOptions) {
    this.#options = options;
    this.#folder = new JsonFolder(join(options.nodeDir, 'logs'), { durable: false });
  }

  async load(): Promise<void> {
    const positions = await this.#folder.load(
      (value) => logPosition.parse(value),
      (instance, error) =>
        this.#options.log.warn({ instance, err: error }, 'a log cursor is unreadable'),
    );
    for (const [instance, position] of positions) this.#add(instance, position, true);
  }

  /** Makes an instance known; again, it may have another rate. */
  track(instance: string, owner: LogOwner, bytesPerSecond: number): void {
    const known = this.#watched.get(instance);
    if (known && !known.source.limitTo(bytesPerSecond)) return;
    if (!known) this.#add(instance, { owner, cursor: null, bytesPerSecond }, false);
    this.#saveSoon(instance);
  }

  /** The container runs: follow what it writes. Again does nothing. */
  follow(instance: string): void {
    const watched = this.#watched.get(instance);
    if (watched === undefined || watched.following || this.#stopped) return;
    watched.following = true;
    this.nudge(instance);
  }

  /** The container ended: take what is left and stop looking. */
  unfollow(instance: string): void {
    const watched = this.#watched.get(instance);
    if (watched === undefined) return;
    watched.following = false;
    unwatch(watched);
    this.nudge(instance);
  }

  /** Adds a line of the platform's own to the instance's log. */
  say(instance: string, text: string, at = new Date()): void {
    this.#watched.get(instance)?.source.say(text, at);
    this.nudge(instance);
  }

  async lastLines(instance: string, since: Date): Promise<string[]> {
    const watched = this.#watched.get(instance);
    if (watched === undefined) return [];
    return watched.source.lastLines(since);
  }

  /** NATS is there (again): send what has gathered. */
  resume(): void {
    for (const instance of this.#watched.keys()) this.nudge(instance);
  }

  nudge(instance: string): void {
    const watched = this.#watched.get(instance);
    if (watched === undefined || watched.gather !== null || this.#stopped) return;
    watched.gather = setTimeout(() => {
      watched.gather = null;
      // Before the read, so that what is written during it is heard of.
      if (watched.following && watched.unwatch === null) watched.unwatch = this.#watch(instance);
      this.#queue.nudge(instance);
    }, gatherMs);
  }

  /** Sends the rest, waiting for NATS until the deadline, and forgets the instance: its log is about to be removed. */
  async finish(instance: string, deadlineMs: number): Promise<void> {
    const watched = this.#watched.get(instance);
    if (watched === undefined) return;
    this.unfollow(instance);
    const deadline = performance.now() + deadlineMs;
    watched.deadline = deadline;
    let sent = false;
    while (!sent && !this.#stopped && performance.now() < deadline) {
      sent = await this.#sendAll(watched).catch(() => false);
      if (!sent) await delay(50);
    }
    if (!sent) this.#options.log.warn({ instance }, 'the last log lines could not be sent in time');
    if (watched.gather !== null) clearTimeout(watched.gather);
    this.#watched.delete(instance);
    this.#unsaved.delete(instance);
    await this.#folder.put(instance, null);
  }

  /** Ends in good order: what is being sent is acknowledged, cursors are on disk. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const watched of this.#watched.values()) {
      unwatch(watched);
      if (watched.gather !== null) clearTimeout(watched.gather);
    }
    await this.#queue.stop();
    if (this.#saver !== null) clearTimeout(this.#saver);
    await this.#save();
    await this.#folder.flush();
  }

  #add(instance: string, position: LogPosition, resumed: boolean): void {
    const { node, runtime } = this.#options;
    const source = new LogSource({ instance, node, position, resumed }, runtime);
    const turn = new Semaphore(1);
    this.#watched.set(instance, {
      source,
      turn,
      gather: null,
      following: false,
      deadline: null,
      unwatch: null,
    });
  }

  /** Tells once: the kernel's news of every single write would cost more than the lines. */
  #watch(instance: string): () => void {
    const { runtime } = this.#options;
    const onChange = () => {
      const watched = this.#watched.get(instance);
      if (watched !== undefined) unwatch(watched);
      this.nudge(instance);
    };
    if (runtime.watchLogs !== undefined) return runtime.watchLogs(instance, onChange);
    return this.#poll(instance);
  }

  #poll(instance: string): () => void {
    let wait = pollMs.fastest;
    let cursor = this.#watched.get(instance)?.source.cursor;
    const look = () => {
      this.#queue.nudge(instance);
      const now = this.#watched.get(instance)?.source.cursor;
      wait = now === cursor ? Math.min(pollMs.slowest, wait * 1.5) : pollMs.fastest;
      cursor = now;
      timer = setTimeout(look, wait);
    };
    let timer = setTimeout(look, wait);
    return () => clearTimeout(timer);
  }

  async #pump(instance: string): Promise<void> {
    const watched = this.#watched.get(instance);
    if (watched === undefined) return;
    try {
      await this.#sendAll(watched);
      if (watched.source.owesNotice) this.#nudgeIn(instance, retryMs);
    } catch (error) {
      this.#options.log.debug({ instance, err: error }, 'log lines were not acknowledged');
      this.#nudgeIn(instance, retryMs);
    }
  }

  #nudgeIn(instance: string, ms: number): void {
    setTimeout(() => this.nudge(instance), ms).unref();
  }

  /** Whether everything that was there is acknowledged. */
  #sendAll(watched: Watched): Promise<boolean> {
    return watched.turn.run(async () => {
      for (;;) {
        if (!this.#options.bus.connected) return false;
        const chunk = await this.#places.run(() => this.#sendChunk(watched.source));
        if (chunk === null || chunk.caughtUp) return true;
        const isLate = watched.deadline !== null && performance.now() > watched.deadline;
        if (this.#stopped || isLate) return false;
        if (chunk.dropped > 0 && watched.deadline === null)
          await delay(limitedEveryMs, undefined, { ref: false });
      }
    });
  }

  async #sendChunk(source: LogSource): Promise<LogSource['chunk']> {
    const { bus, metrics } = this.#options;
    // A chunk that failed half-way is sent to its end before anything else is read.
    const chunk = source.chunk ?? (await source.read(Date.now()));
    if (chunk === null) return null;
    for (let message = chunk.messages[0]; message !== undefined; message = chunk.messages[0]) {
      await bus.publishAcked(source.subject, message.payload, message.id);
      chunk.messages.shift();
    }
    metrics.logLinesDropped.inc(chunk.dropped);
    metrics.logBytesDropped.inc(chunk.droppedBytes);
    metrics.logBytesLost.inc(chunk.lostBytes);
    metrics.logLinesShipped.inc(chunk.lines);
    source.cursor = chunk.cursor;
    source.chunk = null;
    this.#saveSoon(source.instance);
    return chunk;
  }

  #saveSoon(instance: string): void {
    this.#unsaved.add(instance);
    if (this.#stopped || this.#saver !== null) return;
    this.#saver = setTimeout(() => {
      this.#saver = null;
      void this.#save();
    }, saveEveryMs);
  }

  async #save(): Promise<void> {
    const instances = [...this.#unsaved];
    this.#unsaved.clear();
    await Promise.allSettled(
      instances.map((instance) => {
        const source = this.#watched.get(instance)?.source;
        if (source === undefined) return Promise.resolve();
        return this.#folder.put(instance, source.position);
      }),
    );
  }
}

function unwatch(watched: Watched): void {
  watched.unwatch?.();
  watched.unwatch = null;
}

export interface ShipperOptions {
  node: string;
  nodeDir: string;
  runtime: ContainerRuntime;
  bus: Bus;
  metrics: AgentMetrics;
  log: Logger;
}
