/**
 * Everything that is a container's own and numbered comes from one small integer, its slot: its
 * address, the name of its interface and its range of ids. One allocator keeps all three apart.
 */
export interface Addresses {
  /** Highest slot; slots start at 1. */
  readonly last: number;
  readonly network: string;
  address(slot: number): string;
  /** Name of the host's end of the container's interface, at most 15 characters. */
  interfaceName(slot: number): string;
  slotOfInterface(name: string): number | null;
  /** First host uid and gid of the slot's 65,536. */
  idBase(slot: number): number;
}

export const idsPerContainer = 65_536;

/** More than one host holds, and few enough that agents that share a host fit beside each other. */
const mostSlots = 8190;

export function planAddresses(network: string, idBase: number, vethPrefix: string): Addresses {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(network);
  const octets = match?.slice(1, 5).map(Number) ?? [];
  const bits = Number(match?.[5]);
  if (!match || octets.some((o) => o > 255) || bits < 16 || bits > 24)
    throw new Error(
      `Container network "${network}": give an IPv4 network from /16 to /24, like 10.201.0.0/16.`,
    );
  if (!/^[a-z][a-z0-9]{0,3}$/.test(vethPrefix))
    throw new Error(
      `Interface prefix "${vethPrefix}": use 1 to 4 of a-z and 0-9, starting with a letter.`,
    );
  if (!Number.isInteger(idBase) || idBase < idsPerContainer || idBase % idsPerContainer !== 0)
    throw new Error(
      `First id ${idBase}: give a multiple of ${idsPerContainer}, at least ${idsPerContainer}.`,
    );
  const hosts = 2 ** (32 - bits) - 2;
  const ranges = Math.floor((2 ** 32 - 1 - idBase) / idsPerContainer);
  const last = Math.min(hosts, ranges - 1, mostSlots);
  const first = octets.reduce((sum, octet) => sum * 256 + octet, 0);
  if (first % 2 ** (32 - bits) !== 0)
    throw new Error(`Container network "${network}" has bits set after /${bits}.`);
  return {
    last,
    network,
    address: (slot) => [24, 16, 8, 0].map((shift) => ((first + slot) >>> shift) & 255).join('.'),
    // The hyphen keeps the prefixes of two agents apart when one starts like the other.
    interfaceName: (slot) => `${vethPrefix}-${slot}`,
    slotOfInterface: (name) => {
      const slot = new RegExp(`^${vethPrefix}-([1-9]\\d{0,4})$`).exec(name)?.[1];
      return slot === undefined ? null : Number(slot);
    },
    idBase: (slot) => idBase + slot * idsPerContainer,
  };
}
