import { closeSync, openSync, readlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { idsPerContainer } from './addresses.ts';
import { cleanEnv, findProgram } from './exec.ts';
import { openPipe, spawnDetached } from './spawn.ts';
import { step } from './steps.ts';
import { closeFd } from './syscalls.ts';

const setpriv = findProgram('setpriv');
const unshare = findProgram('unshare');

/**
 * Opens a user namespace that maps 0-65535 to `idBase` and up, for a container and its layers. A
 * process is needed to make one; the descriptor keeps it when that has ended.
 *
 * The kernel adds up what no cgroup counts (pending signals, inotify instances and watches, locked
 * shared memory) for each user in a namespace and, all users together, for whoever made it. Were that
 * root, one container could take what all others and the host's own services have; so each is made by
 * its own `idBase`, a user that is nobody else.
 */
export async function openUserNamespace(idBase: number): Promise<number> {
  step('spawn-userns');
  const pipe = openPipe();
  try {
    // It ends when we close our end of its input.
    const args = [
      ...[`--reuid=${idBase}`, `--regid=${idBase}`, '--clear-groups'],
      // Some hosts let only root make one.
      ...['--inh-caps=+sys_admin', '--ambient-caps=+sys_admin'],
      ...[unshare, '--user', 'cat'],
    ];
    const { pid, ended } = spawnDetached(setpriv, args, {
      cwd: '/',
      env: cleanEnv(),
      stdin: pipe.read,
    });
    await untilItHasNamespace(pid, 'user', ended);
    const proc = `/proc/${pid}`;
    step('map-userns');
    writeFileSync(`${proc}/uid_map`, `0 ${idBase} ${idsPerContainer}`);
    writeFileSync(`${proc}/gid_map`, `0 ${idBase} ${idsPerContainer}`);
    step('open-userns');
    return openSync(`${proc}/ns/user`, 'r');
  } finally {
    closeFd(pipe.read);
    closeFd(pipe.write);
  }
}

/** Resolves when `unshare`, started as `pid`, has a namespace of its own. */
export async function untilItHasNamespace(
  pid: number,
  kind: 'user' | 'net',
  ended: Promise<void>,
): Promise<void> {
  let hasEnded = false;
  void ended.then(() => (hasEnded = true));
  const link = (process: string): string => readlinkSync(`/proc/${process}/ns/${kind}`);
  const ours = link('self');
  const deadline = performance.now() + 10_000;
  while (hasEnded || link(String(pid)) === ours) {
    if (hasEnded) throw new Error(`unshare --${kind} failed; are ${kind} namespaces allowed here?`);
    if (performance.now() > deadline)
      throw new Error(`unshare --${kind} made no namespace within 10 s`);
    await delay(1);
  }
}

const refillAfterMs = 50;
/** What was given up is not handed out for so long if anything else is free: an edge that was cut off may still send there. */
const restMs = 60_000;

/** A slot that nobody else has, with the user namespace of its ids. */
export interface Slot {
  readonly slot: number;
  readonly usernsFd: number;
}

export interface SlotPoolOptions {
  /** Highest slot; slots start at 1. */
  last: number;
  idBase: (slot: number) => number;
  /** Where to begin, from 0. */
  first: number;
  spares?: number;
  /** Has the kernel forget all connections of the slots' addresses; when it throws nothing is handed out. */
  forget: (slots: Iterable<number>) => void;
  now?: () => number;
}

/**
 * Hands out slots, never one twice while it is held. Slots go round, and one that was given up comes
 * back last, and never before the kernel has forgotten its connections. A few are kept ready,
 * because making a user namespace would cost a start several milliseconds.
 */
export class SlotPool {
  readonly #last: number;
  readonly #idBase: (slot: number) => number;
  readonly #spares: number;
  readonly #forget: (slots: Iterable<number>) => void;
  readonly #now: () => number;
  /** Given up and not forgotten yet, longest first, with when. */
  readonly #released = new Map<number, number>();
  readonly #held = new Set<number>();
  readonly #namespaces = new Map<number, number>();
  readonly #ready: Promise<Slot>[] = [];
  #next: number;
  #closed = false;
  #refill: NodeJS.Timeout | null = null;

  constructor({ last, idBase, first, spares = 4, forget, now = Date.now }: SlotPoolOptions) {
    this.#last = last;
    this.#idBase = idBase;
    this.#next = 1 + (first % last);
    this.#spares = spares;
    this.#forget = forget;
    this.#now = now;
  }

  /** How many are not to be handed out yet. */
  resting(): number {
    return [...this.#released.keys()].filter((slot) => this.#rests(slot)).length;
  }

  #rests(slot: number): boolean {
    return this.#now() - (this.#released.get(slot) ?? -Infinity) < restMs;
  }

  /** For an agent that does not know who had what before: forgets the connections of all that nobody holds. */
  forgetOthers(): void {
    const all = Array.from({ length: this.#last }, (_, index) => index + 1);
    this.#forget(all.filter((slot) => !this.#held.has(slot)));
    this.#released.clear();
  }

  /** Marks a slot found in use. False when somebody holds it already. */
  claim(slot: number): boolean {
    if (slot < 1 || slot > this.#last || this.#held.has(slot)) return false;
    this.#held.add(slot);
    return true;
  }

  /** Null when all slots are held. */
  async take(): Promise<Slot | null> {
    // A spare that is being made may fail yet; that is no reason for the start to.
    const ready = this.#ready.shift()?.catch(() => this.#prepare()) ?? this.#prepare();
    // Not while the taker starts its container: both want the processors.
    this.#refill ??= setTimeout(() => {
      this.#refill = null;
      this.fill();
    }, refillAfterMs).unref();
    return ready;
  }

  /** Makes spares, so that the next starts find them. */
  fill(): void {
    while (!this.#closed && this.#ready.length < this.#spares) {
      const slot = this.#prepare();
      if (slot === null) return;
      this.#ready.push(slot);
      // Tried again when the next slot is taken.
      slot.catch(() => {
        const at = this.#ready.indexOf(slot);
        if (at >= 0) void this.#ready.splice(at, 1);
      });
    }
  }

  /** The user namespace of a slot that is held. */
  async namespaceOf(slot: number): Promise<number> {
    const known = this.#namespaces.get(slot);
    if (known !== undefined) return known;
    const fd = await openUserNamespace(this.#idBase(slot));
    this.#namespaces.set(slot, fd);
    return fd;
  }

  /** Gives a slot back. Only when nothing with its ids, address or interface lives. */
  release(slot: number): void {
    const fd = this.#namespaces.get(slot);
    if (fd !== undefined) closeSync(fd);
    this.#namespaces.delete(slot);
    this.#held.delete(slot);
    this.#released.delete(slot);
    this.#released.set(slot, this.#now());
  }

  async close(): Promise<void> {
    this.#closed = true;
    const ready = await Promise.allSettled(this.#ready.splice(0));
    for (const result of ready) if (result.status === 'fulfilled') this.release(result.value.slot);
    for (const slot of [...this.#namespaces.keys()]) this.release(slot);
  }

  #prepare(): Promise<Slot> | null {
    const slot = this.#nextFree();
    if (slot === null) return null;
    try {
      this.#forgetReleased(slot);
    } catch (error) {
      return Promise.reject(error as Error);
    }
    this.claim(slot);
    return this.namespaceOf(slot).then(
      (usernsFd) => ({ slot, usernsFd }),
      (error: unknown) => {
        this.release(slot);
        throw error;
      },
    );
  }

  /** The next that does not rest; when all that are free do, the one that has for longest. */
  #nextFree(): number | null {
    for (let tried = 0; tried < this.#last; tried++) {
      const slot = this.#next;
      this.#next = 1 + (slot % this.#last);
      if (!this.#held.has(slot) && !this.#rests(slot)) return slot;
    }
    for (const slot of this.#released.keys()) if (!this.#held.has(slot)) return slot;
    return null;
  }

  /** All at once, since that costs what one does. Those that rest on may still be sent to, and are forgotten again. */
  #forgetReleased(wanted: number): void {
    if (!this.#released.has(wanted)) return;
    this.#forget(this.#released.keys());
    for (const slot of [...this.#released.keys()])
      if (slot === wanted || !this.#rests(slot)) this.#released.delete(slot);
  }
}
