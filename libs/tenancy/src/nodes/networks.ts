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

/** The first network that nobody has; null when all are taken. */
export function firstFreeNetwork(taken: ReadonlySet<string>): string | null {
  for (let index = 0; index < mostNetworks; index++) {
    const second = firstSecond + Math.floor(index / piecesPerSecond);
    const network = `10.${second}.${(index % piecesPerSecond) * pieceSize}.0/${prefixLength}`;
    if (!taken.has(network)) return network;
  }
  return null;
}
