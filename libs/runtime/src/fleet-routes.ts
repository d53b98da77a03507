/**
 * Where the containers of other hosts are: on a host with an edge, one route for each other host's
 * network. A protocol number marks them as an agent's, the metric as this one's: agents that share a
 * host have other ids. Hosts without an edge have no business there, and have none.
 */
import { networkInterfaces } from 'node:os';
import { idsPerContainer } from './addresses.ts';
import { CommandError, run } from './exec.ts';
import type { FleetPlaces } from './runtime.ts';

/** Any number that no routing daemon has (/etc/iproute2/rt_protos). */
const protocol = '201';
const firstMetric = 1_000_000;

/** Makes the routes what they should be; `idBase` is the runtime's. What cannot be reached yet is tried again with the next call. */
export async function ensureRoutes(idBase: number, { edges, places }: FleetPlaces): Promise<void> {
  const mark = ['proto', protocol, 'metric', String(firstMetric + idBase / idsPerContainer)];
  const wanted = new Map(
    isOwn(edges) ? places.map(({ network, address }) => [network, address]) : [],
  );
  const present = await readRoutes(mark);
  for (const [network, via] of present)
    if (wanted.get(network) !== via) await ip('route', 'del', network, ...mark);
  for (const [network, via] of wanted)
    if (present.get(network) !== via) await ip('route', 'replace', network, 'via', via, ...mark);
}

/** Whether this host is one of those with an edge. */
const isOwn = (edges: readonly string[]): boolean =>
  Object.values(networkInterfaces())
    .flat()
    .some((entry) => entry !== undefined && edges.includes(entry.address));

async function readRoutes(mark: readonly string[]): Promise<Map<string, string>> {
  const { stdout } = await run('ip', ['-4', '-o', 'route', 'show', ...mark]);
  return new Map(
    [...stdout.matchAll(/^(\S+) via (\S+)/gm)].map(([, network = '', via = '']) => [network, via]),
  );
}

async function ip(...args: string[]): Promise<void> {
  try {
    await run('ip', ['-4', ...args]);
  } catch (error) {
    // Somebody else removed it; or the way to that host is not there yet.
    if (
      error instanceof CommandError &&
      /No such process|unreachable|invalid gateway/i.test(error.stderr)
    )
      return;
    throw error;
  }
}
