/**
 * Which addresses a node's containers have. Every node of a fleet has a network of its own out of
 * 10.202.0.0 to 10.239.255.255, in pieces of 8,192 addresses: as many as an agent gives out. The
 * first host of a fleet has 10.201.0.0/16, which is set by hand.
 */
const prefixLength = 19;
const [firstSecond, lastSecond] = [202, 239];
const piecesPerSecond = 2 ** (prefixLength - 16);
const pieceSize = 256 / piecesPerSecond;

export const mostNetworks = (lastSecond - firstSecond + 1) * piecesPerSecond;

/** The first network that overlaps with none of these (IPv4, CIDR); null when all are taken. */
export function firstFreeNetwork(taken: Iterable<string>): string | null {
  const ranges = [...taken].map(rangeOf);
  for (let index = 0; index < mostNetworks; index++) {
    const second = firstSecond + Math.floor(index / piecesPerSecond);
    const network = `10.${second}.${(index % piecesPerSecond) * pieceSize}.0/${prefixLength}`;
    const [first, last] = rangeOf(network);
    if (ranges.every((range) => last < range[0] || range[1] < first)) return network;
  }
  return null;
}

/** First and last address, as numbers. */
function rangeOf(network: string): [number, number] {
  const [address = '', bits] = network.split('/');
  const first = address.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
  return [first, first + 2 ** (32 - Number(bits)) - 1];
}
