import { attribute, NetlinkSocket, NETLINK_NETFILTER, NLM_F_DUMP } from './netlink.ts';
import { SyscallError } from './syscalls.ts';

/**
 * The kernel's table of connections outlives containers: for up to five days it lets the answers to
 * what one opened back in to its address. Before an address is anybody else's, its entries go.
 */
const message = { get: (1 << 8) | 1, delete: (1 << 8) | 2 } as const; // NFNL_SUBSYS_CTNETLINK
const IPv4 = Buffer.from([2, 0, 0, 0]); // struct nfgenmsg
const original = 1;
const reply = 2;
const zone = 18;
const [tupleAddresses, source, destination] = [1, 1, 2];

/** Forgets every connection from or to one of the addresses. Walks the whole table: for many addresses at a time. */
export function forgetConnections(addresses: ReadonlySet<string>): void {
  const socket = new NetlinkSocket(NETLINK_NETFILTER);
  try {
    const entries = socket.request('list connections', message.get, NLM_F_DUMP, IPv4);
    for (const entry of entries) {
      const parts = attributesOf(entry.subarray(IPv4.length));
      const ends = [original, reply].flatMap((tuple) => endsOf(parts.get(tuple)));
      if (!ends.some((address) => addresses.has(address))) continue;
      const key = [original, zone].flatMap((type) => {
        const value = parts.get(type);
        return value === undefined
          ? []
          : [attribute(type === zone ? zone : type | nestedFlag, value)];
      });
      try {
        socket.request('forget a connection', message.delete, 0, IPv4, ...key);
      } catch (error) {
        // It ended by itself.
        if (!(error instanceof SyscallError && error.code === 'ENOENT')) throw error;
      }
    }
  } finally {
    socket.close();
  }
}

const nestedFlag = 0x8000;

function endsOf(tuple: Buffer | undefined): string[] {
  const addresses = tuple && attributesOf(tuple).get(tupleAddresses);
  if (!addresses) return [];
  const parts = attributesOf(addresses);
  return [source, destination].flatMap((type) => parts.get(type)?.join('.') ?? []);
}

function attributesOf(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = 0; at + 4 <= bytes.length;) {
    const length = bytes.readUInt16LE(at);
    found.set(bytes.readUInt16LE(at + 2) & 0x3fff, bytes.subarray(at + 4, at + length));
    at += Math.max(4, (length + 3) & ~3);
  }
  return found;
}
