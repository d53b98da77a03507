import { backendName, type HostTarget } from '../table.ts';
import { parseServers, parseStat, type ActualServer } from './actual.ts';
import { serverKey } from './config.ts';
import type { HaproxyMaster, HaproxyProcess } from './master.ts';

/**
 * A worker that a reload left behind. Its table is frozen (HAProxy refuses to change a stopping
 * worker) and it sends each new request on to its successor; here we only see what it still has in
 * flight. A slot is nobody else's while it has, so the slots of today's table are the right ones.
 */
export class OldWorker {
  readonly #master: HaproxyMaster;
  readonly #process: HaproxyProcess;
  #servers: ReadonlyMap<string, readonly ActualServer[]> | null = null;
  #busy = new Set<string>();

  constructor(master: HaproxyMaster, process: HaproxyProcess) {
    this.#master = master;
    this.#process = process;
  }

  /** Looks once for all hosts. */
  async look(): Promise<void> {
    this.#servers ??= parseServers(await this.#master.run(this.#process, 'show servers state'));
    const stats = parseStat(await this.#master.run(this.#process, 'show stat -1 4 -1'));
    this.#busy = new Set(
      stats
        .filter((stat) => stat.get('scur') !== '0')
        .map((stat) => `${stat.get('pxname')}/${stat.get('svname')}`),
    );
  }

  /** Whether, when last looked, a request was on a server that is not (or no longer) the host's. */
  isBusy({ slot, backends }: HostTarget): boolean {
    if (slot === null) return false;
    const backend = backendName(slot);
    const wanted = new Set(backends.map(serverKey));
    return (this.#servers?.get(backend) ?? []).some(
      ({ name, key }) => !wanted.has(key) && this.#busy.has(`${backend}/${name}`),
    );
  }
}
