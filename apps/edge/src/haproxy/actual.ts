import { serverAddress } from './config.ts';

/** What a HAProxy worker says it has: parsers of its runtime API's tables. */
export interface ActualServer {
  readonly name: string;
  /** As `serverKey` says it. */
  readonly key: string;
  /** ready: gets requests; drain: no new ones; maint: none, free for another backend. */
  readonly mode: 'ready' | 'drain' | 'maint';
  /** Its part of the requests beside the others'. */
  readonly weight: number;
}

export interface ActualWorker {
  readonly map: ReadonlyMap<string, string>;
  /** Backend name -> servers. A backend without servers may be missing. */
  readonly servers: ReadonlyMap<string, readonly ActualServer[]>;
}

/** `get var proc.structure`; empty when the configuration is not ours. */
export const parseStructure = (text: string): string => /value=<([^>]*)>/.exec(text)?.[1] ?? '';

/** `show info`: connections of clients that it takes at a time. */
export function parseMaxconn(text: string): number {
  const value = /^Maxconn: (\d+)$/m.exec(text)?.[1];
  if (value === undefined) throw new Error(`HAProxy's "show info" answered: ${text.slice(0, 200)}`);
  return Number(value);
}

/** `show map <file>`: `0x55ff118f7e80 host value`. */
export function parseMap(text: string): Map<string, string> {
  const map = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, host, value] = line.split(' ');
    if (host !== undefined && value !== undefined) map.set(host, value);
  }
  return map;
}

/** `get map <file> <host>`: `type=str, case=sensitive, found=yes, ..., value="b7", type="str"`. */
export function parseMapEntry(text: string): string | null {
  if (/\bfound=no\b/.test(text)) return null;
  const value = /, value="([^"]*)"/.exec(text)?.[1];
  if (value === undefined) throw new Error(`HAProxy's "get map" answered: ${text.slice(0, 200)}`);
  return value;
}

// Bits of srv_admin_state, from HAProxy's management guide: forced, inherited and configured.
const maintBits = 0x01 | 0x02 | 0x04 | 0x20 | 0x40;
const drainBits = 0x08 | 0x10;

/** `show servers state [backend]`, version 1 of its format. */
export function parseServers(text: string): Map<string, ActualServer[]> {
  const backends = new Map<string, ActualServer[]>();
  const [version, header, ...lines] = text.split('\n');
  if (version?.trim() !== '1' || header === undefined) {
    throw new Error(`HAProxy's "show servers state" answered: ${text.slice(0, 200)}`);
  }
  const names = header.replace(/^# /, '').split(' ');
  const column = (name: string) => {
    const index = names.indexOf(name);
    if (index < 0) throw new Error(`HAProxy's "show servers state" has no column ${name}`);
    return index;
  };
  const [backend, server, addr, port, admin, weight] = [
    column('be_name'),
    column('srv_name'),
    column('srv_addr'),
    column('srv_port'),
    column('srv_admin_state'),
    column('srv_uweight'),
  ];
  for (const line of lines) {
    const fields = line.split(' ');
    const name = fields[backend];
    const host = fields[addr];
    if (name === undefined || host === undefined) continue;
    const state = Number(fields[admin]);
    const list = backends.get(name) ?? [];
    const serverName = fields[server] ?? '';
    const address = serverAddress({ host, port: Number(fields[port]) });
    list.push({
      name: serverName,
      key: `${serverName.charAt(0)} ${address}`,
      mode: state & maintBits ? 'maint' : state & drainBits ? 'drain' : 'ready',
      weight: Number(fields[weight]),
    });
    backends.set(name, list);
  }
  return backends;
}

/** `show stat`: one object per line, by column name; of all columns unless only some are asked for. */
export function parseStat(text: string, only?: readonly string[]): ReadonlyMap<string, string>[] {
  const [header, ...lines] = text.split('\n');
  const names = (header ?? '').replace(/^# /, '').split(',');
  const wanted = [...names.entries()].filter(([, name]) => only?.includes(name) ?? true);
  return lines
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(',');
      return new Map(wanted.map(([index, name]) => [name, fields[index] ?? '']));
    });
}

/** `show table` of an integer key with `http_req_cnt`: count by key. An older configuration has no such table. */
export function parseCounts(text: string): Map<number, number> {
  if (text.startsWith('No such table')) return new Map();
  if (!text.startsWith('# table: '))
    throw new Error(`HAProxy's "show table" answered: ${text.slice(0, 200)}`);
  const entry = /^0x\S+ key=(\d+) .*\bhttp_req_cnt=(\d+)/gm;
  return new Map([...text.matchAll(entry)].map(([, key, count]) => [Number(key), Number(count)]));
}
