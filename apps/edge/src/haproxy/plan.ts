import type { RouteBackend } from '@bulkhead/protocol';
import type { HostTarget } from '../table.ts';
import { backendName, isAppBackend } from '../table.ts';
import type { ActualServer, ActualWorker } from './actual.ts';
import { serverAddress, serverKey, serverKind, serverOptions } from './config.ts';

/** One command to a worker and why. */
export interface Step {
  readonly command: string;
  readonly why: string;
  /** What a good answer looks like; by default it is empty. */
  readonly good?: RegExp;
}

/**
 * The commands that make a worker serve `targets`; none when it does. Pure. Order matters: hosts
 * leave the map first, so that no request finds a backend whose servers are about to be another
 * host's; new servers come before old ones are drained; a host enters the map last.
 */
export function planWorker(
  actual: ActualWorker,
  targets: readonly HostTarget[],
  mapFile: string,
): Step[] {
  const leave: Step[] = [];
  const servers: Step[] = [];
  const enter: Step[] = [];
  for (const target of targets) {
    const { destination } = target;
    const current = actual.map.get(target.host) ?? null;
    if (current !== destination) {
      if (destination === null)
        leave.push({ command: `del map ${mapFile} ${target.host}`, why: 'no such host' });
      else if (current === null)
        enter.push({
          command: `add map ${mapFile} ${target.host} ${destination}`,
          why: 'new host',
        });
      else {
        const step = {
          command: `set map ${mapFile} ${target.host} ${destination}`,
          why: `was ${current}`,
        };
        // From one backend to another: gone in between, never to the wrong one.
        if (isAppBackend(destination)) enter.push(step);
        else leave.push(step);
        if (isAppBackend(destination) && isAppBackend(current)) {
          leave.push({
            command: `set map ${mapFile} ${target.host} starting`,
            why: `leaves ${current}`,
          });
        }
      }
    }
    if (target.slot !== null) servers.push(...planServers(actual, target, target.slot));
  }
  return [...leave, ...servers, ...enter];
}

/**
 * What a worker has and the whole table does not know: hosts, and servers in backends that are
 * nobody's. Only for a complete list of targets.
 */
export function planStrays(
  actual: ActualWorker,
  targets: readonly HostTarget[],
  mapFile: string,
): Step[] {
  const hosts = new Set(targets.map(({ host }) => host));
  const owned = new Set(targets.flatMap(({ slot }) => (slot === null ? [] : [backendName(slot)])));
  const steps: Step[] = [];
  for (const host of actual.map.keys()) {
    if (!hosts.has(host))
      steps.push({ command: `del map ${mapFile} ${host}`, why: 'nobody knows this host' });
  }
  for (const [backend, list] of actual.servers) {
    if (owned.has(backend) || !isAppBackend(backend)) continue;
    for (const server of list) {
      if (server.mode !== 'maint')
        steps.push(setState(backend, server.name, 'maint', 'the backend is nobody’s'));
    }
  }
  return steps;
}

function planServers(actual: ActualWorker, target: HostTarget, slot: number): Step[] {
  const backend = backendName(slot);
  const present = actual.servers.get(backend) ?? [];
  const wanted = new Map(target.backends.map((each) => [serverKey(each), each]));
  const free: ActualServer[] = [];
  const come: Step[] = [];
  const go: Step[] = [];
  for (const server of present) {
    const known = wanted.get(server.key);
    if (known) {
      wanted.delete(server.key);
      come.push(...weigh(backend, server.name, known, server.weight));
      if (server.mode !== 'ready')
        come.push(...makeReady(backend, server.name, `${server.key} is back`));
    } else if (server.mode === 'ready') {
      go.push(setState(backend, server.name, 'drain', `${server.key} left`));
    } else if (server.mode === 'maint') {
      free.push(server);
    }
  }
  let next = present.reduce((most, { name }) => Math.max(most, Number(name.slice(1)) || 0), 0) + 1;
  for (const target of wanted.values()) {
    const { host, port } = target;
    const address = serverAddress(target);
    const kind = serverKind(target);
    const reused = free.find(({ name }) => name.startsWith(kind));
    if (reused) {
      free.splice(free.indexOf(reused), 1);
      come.push({
        command: `set server ${backend}/${reused.name} addr ${host} port ${port}`,
        why: `${address} takes a free server`,
        good: /changed from|no need to change/,
      });
      come.push(...weigh(backend, reused.name, target, reused.weight));
      come.push(...makeReady(backend, reused.name, address));
    } else {
      // Never deleted again, only reused: deleting servers has crashed this line of HAProxy, and a
      // reload forgets those that are not used.
      const name = `${kind}${next}`;
      next += 1;
      come.push({
        command: `add server ${backend}/${name} ${address} ${serverOptions(target)}`,
        why: `${address} is new`,
        good: /New server registered/,
      });
      come.push({ command: `enable health ${backend}/${name}`, why: address });
      come.push(...weigh(backend, name, target, 1));
      come.push(setState(backend, name, 'ready', address));
    }
  }
  return [...come, ...go];
}

/** Takes effect with the next request, also on connections that are open. */
function weigh(backend: string, server: string, { weight = 1 }: RouteBackend, is: number): Step[] {
  if (weight === is) return [];
  const command = `set server ${backend}/${server} weight ${weight}`;
  return [{ command, why: `its part was ${is}` }];
}

/** Also forgets what checks found out about the address that the server had before. */
const makeReady = (backend: string, server: string, why: string): Step[] => [
  setState(backend, server, 'ready', why),
  { command: `set server ${backend}/${server} health up`, why },
];

export const setState = (
  backend: string,
  server: string,
  state: 'ready' | 'drain' | 'maint',
  why: string,
): Step => ({
  command: `set server ${backend}/${server} state ${state}`,
  why,
});
