import { closeSync, openSync, readlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { idsPerContainer } from './addresses.ts';
import { cleanEnv, findProgram } from './exec.ts';
import { openPipe, spawnDetached } from './spawn.ts';
import { step } from './steps.ts';
import { closeFd } from './syscalls.ts';

const unshare = findProgram('unshare');

/**
 * Opens a user namespace that maps 0-65535 to `idBase` and up. Only the mapping matters: layers are
 * idmapped by it. A process is needed to make one; the descriptor keeps it when that has ended.
 */
export async function openUserNamespace(idBase: number): Promise<number> {
  step('spawn-userns');
  const pipe = openPipe();
  try {
    // It ends when we close our end of its input.
    const { pid, ended } = spawnDetached(unshare, ['--user', 'cat'], {
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
  const deadline = Date.now() + 10_000;
  while (hasEnded || link(String(pid)) === ours) {
    if (hasEnded) throw new Error(`unshare --${kind} failed; are ${kind} namespaces allowed here?`);
    if (Date.now() > deadline) throw new Error(`unshare --${kind} made no namespace within 10 s`);
    await delay(1);
  }
}

const refillAfterMs = 50;

/** A slot that nobody else has, with the user namespace of its ids. */
export interface Slot {
  readonly slot: number;
  readonly usernsFd: number;
}

/**
 * Hands out slots, never one twice while it is held. Slots go round, so that an address that was
 * just given up (and may still be in somebody's connection table) comes back last. A few are kept
 * ready, because making a user namespace would cost a start several milliseconds.
 */
export class SlotPool {
  readonly #last: number;
  readonly #idBase: (slot: number) => number;
  readonly #spares: number;
  readonly #held = new Set<number>();
  readonly #namespaces = new Map<number, number>();
  readonly #ready: Promise<Slot>[] = [];
  #next: number;
  #closed = false;
  #refill: NodeJS.Timeout | null = null;

  constructor(last: number, idBase: (slot: number) => number, first: number, spares = 4) {
    this.#last = last;
    this.#idBase = idBase;
    this.#next = 1 + (first % last);
    this.#spares = spares;
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
  }

  async close(): Promise<void> {
    this.#closed = true;
    const ready = await Promise.allSettled(this.#ready.splice(0));
    for (const result of ready) if (result.status === 'fulfilled') this.release(result.value.slot);
    for (const slot of [...this.#namespaces.keys()]) this.release(slot);
  }

  #prepare(): Promise<Slot> | null {
    for (let tried = 0; tried < this.#last; tried++) {
      const slot = this.#next;
      this.#next = 1 + (slot % this.#last);
      if (!this.claim(slot)) continue;
      return this.namespaceOf(slot).then(
        (usernsFd) => ({ slot, usernsFd }),
        (error: unknown) => {
          this.release(slot);
          throw error;
        },
      );
    }
    return null;
  }
}
