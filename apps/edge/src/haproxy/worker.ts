import type { HostTarget } from '../table.ts';
import { backendName } from '../table.ts';
import {
  parseMap,
  parseMapEntry,
  parseMaxconn,
  parseServers,
  parseStat,
  parseStructure,
  type ActualServer,
  type ActualWorker,
} from './actual.ts';
import { capacityOf, serverKey } from './config.ts';
import type { HaproxyMaster, HaproxyProcess } from './master.ts';
import { setState, type Step } from './plan.ts';

/** Past this many hosts the whole tables are read instead of each host's part. */
const manyHosts = 16;

/**
 * The HAProxy worker that takes connections: reads what it has, runs steps, and takes servers out once they are empty.
 * Everything is read anew each time; the only memory is how long a server has been draining.
 */
export class HaproxyWorker {
  readonly process: HaproxyProcess;
  readonly #master: HaproxyMaster;
  readonly #drains = new Map<string, { since: number; emptyReads: number }>();

  constructor(master: HaproxyMaster, process: HaproxyProcess) {
    this.#master = master;
    this.process = process;
  }

  async structure(): Promise<string> {
    return parseStructure(await this.#run('get var proc.structure'));
  }

  /** Tells a new worker how many connections it can have, which its rules of fairness go by; gives that number. */
  async tellCapacity(): Promise<number> {
    const connections = parseMaxconn(await this.#run('show info'));
    for (const [name, value] of Object.entries(capacityOf(connections))) {
      const command = `set var ${name} int(${value})`;
      const answer = (await this.#master.runExperimental(this.process, command)).trim();
      if (answer !== '') throw new Error(`HAProxy refused ${name}: ${answer}`);
    }
    return connections;
  }

  /** `targets` null: everything. */
  async read(mapFile: string, targets: readonly HostTarget[] | null): Promise<ActualWorker> {
    if (targets === null || targets.length > manyHosts) {
      const map = parseMap(await this.#run(`show map ${mapFile}`));
      return { map, servers: parseServers(await this.#run('show servers state')) };
    }
    const map = new Map<string, string>();
    const servers = new Map<string, readonly ActualServer[]>();
    for (const { host, slot } of targets) {
      const destination = parseMapEntry(await this.#run(`get map ${mapFile} ${host}`));
      if (destination !== null) map.set(host, destination);
      if (slot !== null) servers.set(backendName(slot), await this.#servers(slot));
    }
    return { map, servers };
  }

  async apply(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      const answer = await this.#run(step.command);
      const good = step.good ? step.good.test(answer) : answer === '';
      if (!good) throw new Error(`HAProxy refused "${step.command}" (${step.why}): ${answer}`);
    }
  }

  /**
   * Takes servers that no longer belong to the host out of its backend once no request is on them.
   * At `limitMs`, or when they are out of reach, their connections are cut. True when none is left.
   */
  async reap(target: HostTarget, now: number, limitMs: number): Promise<boolean> {
    const { slot } = target;
    if (slot === null) return true;
    const backend = backendName(slot);
    const leaving = leavingServers(await this.#servers(slot), target);
    if (leaving.length === 0) return true;
    // The route changed a moment ago: drained by the next pass, not cut by this one.
    if (leaving.some(({ mode }) => mode === 'ready')) return false;
    const stats = parseStat(await this.#run(`show stat ${backend} 4 -1`));
    let left = leaving.length;
    for (const { name } of leaving) {
      const key = `${backend}/${name}`;
      const stat = stats.find((each) => each.get('svname') === name);
      const drain = this.#drains.get(key) ?? { since: now, emptyReads: 0 };
      this.#drains.set(key, drain);
      drain.emptyReads = stat?.get('scur') === '0' ? drain.emptyReads + 1 : 0;
      // Nothing answers there, not even with a refusal: no request on it will end.
      const cutOff = stat?.get('check_status') === 'L4TOUT';
      const late = cutOff || now - drain.since >= limitMs;
      // Two reads: a request that chose the server a moment before it drained counts by the second.
      if (drain.emptyReads < 2 && !late) continue;
      if (late) await this.#run(`shutdown sessions server ${key}`);
      await this.apply([
        setState(backend, name, 'maint', late ? 'cut off, or drained for too long' : 'drained'),
      ]);
      this.#drains.delete(key);
      left -= 1;
    }
    return left === 0;
  }

  async #servers(slot: number): Promise<readonly ActualServer[]> {
    const backend = backendName(slot);
    return parseServers(await this.#run(`show servers state ${backend}`)).get(backend) ?? [];
  }

  #run(command: string): Promise<string> {
    return this.#master.run(this.process, command);
  }
}

/** Servers of the target's backend that still may have requests and are not (or no longer) its own. */
export function leavingServers(
  servers: readonly ActualServer[],
  target: HostTarget,
): ActualServer[] {
  const wanted = new Set(target.backends.map(serverKey));
  return servers.filter(({ mode, key }) => mode !== 'maint' && !wanted.has(key));
}
