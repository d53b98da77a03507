import { closeSync, existsSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { CommandError, run } from './exec.ts';
import { inNetworkOf } from './host-thread.ts';
import {
  attribute,
  nested,
  NetlinkSocket,
  NETLINK_ROUTE,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
} from './netlink.ts';
import { step } from './steps.ts';
import { interfaceIndex } from './syscalls.ts';
import { idsPerContainer } from './addresses.ts';
import type { Addresses } from './addresses.ts';

/**
 * A container's network: a veth pair, the host's end named after the slot, the other one `eth0`
 * inside, and a route to the container's /32. Both ends know each other by permanent neighbour
 * entries, so nothing of ARP is asked or believed. A token bucket at each end limits what the other
 * one receives; root inside cannot remove it without CAP_NET_ADMIN. All of it dies with the
 * container's namespace.
 */

/** The other end of every container's default route, and the host's address as containers see it. */
const gateway = '169.254.1.1';
const hostMac = Buffer.from('ee0000000001', 'hex');

const RTM = { newLink: 16, newAddr: 20, newRoute: 24, newNeigh: 28, newQdisc: 36 } as const;
const AF_INET = 2;
const IFF_UP = 1;
const NUD_PERMANENT = 0x80;
const RTNH_F_ONLINK = 4;
const scope = { universe: 0, link: 253 } as const;

/** Makes and configures the network of the container whose first process is `pid`. It must not run yet. */
export function connectNetwork(
  pid: number,
  slot: number,
  addresses: Addresses,
  bytesPerSecond: number,
): void {
  const name = addresses.interfaceName(slot);
  const address = addresses.address(slot);
  const mac = containerMac(slot);
  const host = new NetlinkSocket(NETLINK_ROUTE);
  try {
    const netns = openSync(`/proc/${pid}/ns/net`, 'r');
    try {
      step('create-interface');
      createVeth(host, name, netns, mac);
    } finally {
      closeSync(netns);
    }
    // The firewall marks what it has seen and the policy rules want the mark: the kernel's own
    // check of the reverse path, where a host has it on, must look with the mark too.
    sysctl(`net/ipv6/conf/${name}/disable_ipv6`, '1');
    sysctl(`net/ipv4/conf/${name}/src_valid_mark`, '1');
    const index = interfaceIndex(name);
    addAddress(host, index, gateway, 32);
    step('limit-interface');
    limitRate(host, index, bytesPerSecond);
    bringUp(host, index);
    step('add-route');
    addRoute(host, index, address, null);
    addNeighbour(host, index, address, mac);
    step('configure-inside');
    inNetworkOf(pid, () => configureInside(address, addresses.idBase(slot), bytesPerSecond));
  } finally {
    host.close();
  }
}

/** Changes the bandwidth of a container's network, in and out. */
export function limitNetwork(
  pid: number,
  slot: number,
  addresses: Addresses,
  bytesPerSecond: number,
): void {
  const limit = (name: string): void => {
    const socket = new NetlinkSocket(NETLINK_ROUTE);
    try {
      limitRate(socket, interfaceIndex(name), bytesPerSecond);
    } finally {
      socket.close();
    }
  };
  limit(addresses.interfaceName(slot));
  inNetworkOf(pid, () => limit('eth0'));
}

function configureInside(address: string, idBase: number, bytesPerSecond: number): void {
  sysctl('net/ipv6/conf/all/disable_ipv6', '1');
  sysctl('net/ipv6/conf/default/disable_ipv6', '1');
  // No capability is needed for port 80 or for ping: the namespace is the container's alone.
  sysctl('net/ipv4/ip_unprivileged_port_start', '0');
  sysctl('net/ipv4/ping_group_range', `${idBase} ${idBase + idsPerContainer - 1}`);
  const inside = new NetlinkSocket(NETLINK_ROUTE);
  try {
    const index = interfaceIndex('eth0');
    bringUp(inside, interfaceIndex('lo'));
    addAddress(inside, index, address, 32);
    limitRate(inside, index, bytesPerSecond);
    bringUp(inside, index);
    addNeighbour(inside, index, gateway, hostMac);
    addRoute(inside, index, null, gateway);
  } finally {
    inside.close();
  }
}

const containerMac = (slot: number): Buffer =>
  Buffer.from([0x02, 0xbb, 0, 0, slot >> 8, slot & 255]);

function sysctl(name: string, value: string): void {
  try {
    writeFileSync(`/proc/sys/${name}`, value);
  } catch (error) {
    // A kernel without IPv6 needs none switched off.
    if (name.startsWith('net/ipv6/') && (error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
}

const ip4 = (address: string): Buffer => Buffer.from(address.split('.').map(Number));

function linkHeader(index: number, flags: number, change: number): Buffer {
  const header = Buffer.alloc(16); // struct ifinfomsg
  header.writeInt32LE(index, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(change, 12);
  return header;
}

function createVeth(host: NetlinkSocket, name: string, netnsFd: number, mac: Buffer): void {
  const [address, ifname, linkInfo, nsFd] = [1, 3, 18, 28];
  const [kind, data, peer] = [1, 2, 1];
  const peerLink = [
    linkHeader(0, 0, 0),
    attribute(ifname, 'eth0'),
    attribute(address, mac),
    attribute(nsFd, netnsFd),
  ];
  host.request(
    `create interface ${name}`,
    RTM.newLink,
    NLM_F_CREATE | NLM_F_EXCL,
    linkHeader(0, 0, 0),
    attribute(ifname, name),
    attribute(address, hostMac),
    nested(linkInfo, attribute(kind, 'veth'), nested(data, nested(peer, ...peerLink))),
  );
}

const bringUp = (socket: NetlinkSocket, index: number): void =>
  void socket.request('bring interface up', RTM.newLink, 0, linkHeader(index, IFF_UP, IFF_UP));

function addAddress(socket: NetlinkSocket, index: number, address: string, bits: number): void {
  const header = Buffer.from([
    AF_INET,
    bits,
    0,
    address === gateway ? scope.link : scope.universe,
    0,
    0,
    0,
    0,
  ]);
  header.writeUInt32LE(index, 4); // struct ifaddrmsg
  const [whole, local] = [1, 2];
  socket.request(
    `add address ${address}`,
    RTM.newAddr,
    NLM_F_CREATE | NLM_F_REPLACE,
    header,
    attribute(whole, ip4(address)),
    attribute(local, ip4(address)),
  );
}

/** A route to `destination` (null: the default route) by interface, through `via` when given. */
function addRoute(
  socket: NetlinkSocket,
  index: number,
  destination: string | null,
  via: string | null,
): void {
  const header = Buffer.alloc(12); // struct rtmsg: family, destination bits, .., table main, static, scope, unicast
  header.set([AF_INET, destination ? 32 : 0, 0, 0, 254, 4, via ? scope.universe : scope.link, 1]);
  header.writeUInt32LE(via ? RTNH_F_ONLINK : 0, 8);
  const [to, oif, through] = [1, 4, 5];
  socket.request(
    `add route to ${destination ?? 'everywhere'}`,
    RTM.newRoute,
    NLM_F_CREATE | NLM_F_REPLACE,
    header,
    ...(destination ? [attribute(to, ip4(destination))] : []),
    attribute(oif, index),
    ...(via ? [attribute(through, ip4(via))] : []),
  );
}

function addNeighbour(socket: NetlinkSocket, index: number, address: string, mac: Buffer): void {
  const header = Buffer.alloc(12); // struct ndmsg
  header.writeUInt8(AF_INET, 0);
  header.writeInt32LE(index, 4);
  header.writeUInt16LE(NUD_PERMANENT, 8);
  const [destination, linkLayer] = [1, 2];
  socket.request(
    `add neighbour ${address}`,
    RTM.newNeigh,
    NLM_F_CREATE | NLM_F_REPLACE,
    header,
    attribute(destination, ip4(address)),
    attribute(linkLayer, mac),
  );
}

/**
 * Puts a token bucket (TBF) on what leaves by the interface, or changes the one there. The bucket
 * holds 20 ms of the rate, so that senders in bursts come to all of it; what waits is 50 ms at most,
 * so that a full pipe stays a quick one. Segments that the bucket could not hold are cut by the kernel.
 */
function limitRate(socket: NetlinkSocket, index: number, bytesPerSecond: number): void {
  const burst = Math.max(16 * 1024, Math.round(bytesPerSecond * 0.02));
  const header = Buffer.alloc(20); // struct tcmsg: family, index, handle, parent, info
  header.writeInt32LE(index, 4);
  const root = 0xffffffff;
  header.writeUInt32LE(root, 12);
  // struct tc_tbf_qopt: rate and peak rate (struct tc_ratespec each), limit, buffer, mtu.
  const parameters = Buffer.alloc(36);
  const ethernet = 1; // The kernel counts by itself and wants no table of sizes.
  parameters.writeUInt8(ethernet, 1);
  parameters.writeUInt32LE(bytesPerSecond, 8);
  parameters.writeUInt32LE(Math.max(64 * 1024, Math.round(bytesPerSecond * 0.05)), 24);
  const [kind, options] = [1, 2];
  const [parms, burstBytes] = [1, 6];
  socket.request(
    `limit the rate of interface ${index}`,
    RTM.newQdisc,
    NLM_F_CREATE | NLM_F_REPLACE,
    header,
    attribute(kind, 'tbf'),
    nested(options, attribute(parms, parameters), attribute(burstBytes, burst)),
  );
}

/** Host-side interfaces of ours, by slot. */
export function listInterfaces(addresses: Addresses): Map<number, string> {
  const found = new Map<number, string>();
  for (const name of readdirSync('/sys/class/net')) {
    const slot = addresses.slotOfInterface(name);
    if (slot !== null) found.set(slot, name);
  }
  return found;
}

/** How long an interface may take to go with its namespace, ms. */
const vanishMs = 1000;

/**
 * Succeeds when there is none. The kernel removes it with the container's namespace, many together,
 * which costs a fraction of removing one; only what does not go by itself is deleted.
 */
export async function removeInterface(name: string): Promise<void> {
  const deadline = performance.now() + vanishMs;
  for (let wait = 1; existsSync(`/sys/class/net/${name}`); wait = Math.min(wait * 2, 20)) {
    if (performance.now() > deadline) return deleteInterface(name);
    await delay(wait);
  }
}

async function deleteInterface(name: string): Promise<void> {
  try {
    await run('ip', ['link', 'delete', 'dev', name]);
  } catch (error) {
    if (error instanceof CommandError && error.stderr.includes('Cannot find device')) return;
    throw error;
  }
}
