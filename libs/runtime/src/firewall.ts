import { readFileSync, writeFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { CommandError, run } from './exec.ts';
import {
  attribute,
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NetlinkSocket,
  NLM_F_CREATE,
  NLM_F_DUMP,
} from './netlink.ts';
import { step } from './steps.ts';

/**
 * The walls between containers, the host and the rest: one nftables table of ours, written whole in
 * one transaction. Its rules name no container, so starts and stops do not touch it.
 *
 * A container may reach the public internet through NAT and the resolvers, nothing else: no other
 * container (of its own tenant neither, in this version), no private or link-local network, not the
 * host itself. Only this host connects to a container, and in a fleet the hosts with an edge.
 *
 * Should the table vanish, the policy rules of `ip rule` prohibit everything from containers, to the
 * host itself too, and all forwarding to them, because they want a mark that only the table sets:
 * closed, not open, until `ensure` has put the table back; starts and a timer call it.
 */
export interface FirewallOptions {
  table: string;
  network: string;
  vethPrefix: string;
  /** Called when rules that somebody changed are whole again. */
  onHealed?: () => void;
}

/** The bit of the packet mark that says "seen by the table"; other bits belong to others. */
const seen = '0x02000000';
const privateNetworks = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
];

/** Connections that a container may have under way, of those that the kernel follows for the whole machine. */
const flowsOfContainer = 4096;

/** Where our policy rules stand, but for the first: behind the local table, before the main one. */
const firstPriority = 31_000;

/**
 * From the network unmarked: nothing, and that before the kernel's rule for this host's own addresses
 * (`Firewall.apply` sees to the order). Into it: only from this host or marked, and by the routes of
 * living containers, so that packets to one that has gone do not follow the default route out. From
 * it: only marked.
 */
export function policyRules(network: string): string[][] {
  const mark = ['fwmark', `${seen}/${seen}`];
  const living = ['lookup', 'main', 'suppress_prefixlength', '0'];
  const behind = [
    ['iif', 'lo', 'to', network, ...living],
    [...mark, 'to', network, ...living],
    ['to', network, 'prohibit'],
    [...mark, 'from', network, 'lookup', 'main'],
    ['from', network, 'prohibit'],
  ];
  return [
    ['pref', '0', 'fwmark', `0/${seen}`, 'from', network, 'prohibit'],
    ...behind.map((rule, index) => ['pref', String(firstPriority + index), ...rule]),
  ];
}

/** Of linux/fib_rules.h and linux/rtnetlink.h. */
const fib = {
  ...{ newRule: 32, deleteRule: 33, getRule: 34 },
  ...{ to: 1, from: 2, priority: 6, toTable: 1, localTable: 255 },
} as const;
const ruleHeader = (table: number, action: number) =>
  Buffer.from([2, 0, 0, 0, table, 0, 0, action, 0, 0, 0, 0]); // AF_INET

export function firewallRules(
  options: FirewallOptions,
  resolvers: readonly string[],
  edges: readonly string[] = [],
): string {
  const ours = `"${options.vethPrefix}-*"`;
  const fromEdges =
    edges.length > 0 ? `ip saddr { ${edges.join(', ')} } oifname ${ours} ct state new accept` : '';
  // Answers only: what a container begins goes through the rules below.
  const toEdges = edges.length > 0 ? 'ct direction reply ct state established accept' : '';
  const dns =
    resolvers.length > 0
      ? `ip daddr { ${resolvers.join(', ')} } meta l4proto { tcp, udp } th dport 53 accept`
      : '';
  return `table inet ${options.table}
delete table inet ${options.table}
table inet ${options.table} {
  set flows {
    type ipv4_addr; size 65536; flags dynamic
  }
  chain ingress {
    type filter hook prerouting priority raw - 5; policy accept;
    iifname != ${ours} return
    meta nfproto ipv6 drop
    meta mark set meta mark | ${seen}
    ip saddr != ${options.network} drop
    fib saddr . mark . iif oif missing drop
  }
  chain inbound {
    type filter hook prerouting priority dstnat + 50; policy accept;
    ip daddr ${options.network} meta mark set meta mark | ${seen}
  }
  chain input {
    type filter hook input priority filter - 5; policy accept;
    iifname ${ours} ct state established,related accept
    iifname ${ours} drop
  }
  chain forward {
    type filter hook forward priority filter - 5; policy accept;
    iifname ${ours} oifname ${ours} drop
    iifname ${ours} jump outbound
    oifname ${ours} ct state established,related accept
    ${fromEdges}
    oifname ${ours} drop
  }
  chain outbound {
    meta nfproto ipv6 drop
    ct state invalid drop
    ${toEdges}
    ct state new add @flows { ip saddr ct count over ${flowsOfContainer} } drop
    ${dns}
    ip daddr { ${privateNetworks.join(', ')} } drop
  }
  chain output {
    type filter hook output priority filter - 5; policy accept;
    oifname ${ours} meta nfproto ipv6 drop
  }
  chain nat {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${options.network} oifname != ${ours} masquerade
  }
}
`;
}

/** Value of an attribute of a policy rule's message. */
function findAttribute(message: Buffer, wanted: number): Buffer | null {
  for (let at = 12; at + 4 <= message.length;) {
    const length = message.readUInt16LE(at);
    if (message.readUInt16LE(at + 2) === wanted) return message.subarray(at + 4, at + length);
    at += Math.max(4, (length + 3) & ~3);
  }
  return null;
}

/** Name servers that a container can use: the host's, without those that only the host reaches. */
export function findResolvers(): string[] {
  // systemd-resolved keeps the real ones here, its own address in /etc/resolv.conf.
  for (const file of ['/run/systemd/resolve/resolv.conf', '/etc/resolv.conf']) {
    const servers = parseResolvers(readIfThere(file));
    if (servers.length > 0) return servers;
  }
  return [];
}

export const parseResolvers = (text: string): string[] =>
  [...text.matchAll(/^\s*nameserver\s+(\d{1,3}(?:\.\d{1,3}){3})\s*$/gm)]
    .map((match) => match[1] ?? '')
    .filter(
      (address) =>
        !address.startsWith('127.') && address.split('.').every((part) => Number(part) <= 255),
    )
    .slice(0, 3);

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

export class Firewall {
  readonly #options: FirewallOptions;
  #socket: NetlinkSocket | null = null;
  #routing: NetlinkSocket | null = null;
  /** The kernel's count of rule set changes when the table was last known whole. */
  #generation = -1;
  /** How the kernel lists the table when it is whole. */
  #listing = '';
  #healing: Promise<void> | null = null;
  #edges: readonly string[] = [];
  resolvers: string[] = [];

  constructor(options: FirewallOptions) {
    if (!/^[a-z][a-z0-9_]{0,30}$/.test(options.table))
      throw new Error(
        `nftables table "${options.table}": use 1 to 31 of a-z, 0-9 and _, starting with a letter.`,
      );
    this.#options = options;
  }

  /** Writes everything anew. */
  async apply(): Promise<void> {
    this.resolvers = findResolvers();
    // Where a host checks the reverse path of its uplink (rp_filter), it must look with the mark.
    for (const name of ['ip_forward', 'conf/all/src_valid_mark'])
      if (readFileSync(`/proc/sys/net/ipv4/${name}`, 'utf8').trim() === '0')
        writeFileSync(`/proc/sys/net/ipv4/${name}`, '1');
    for (const rule of policyRules(this.#options.network)) {
      step('set-policy-rules');
      await addRule(rule);
    }
    this.#putFirst();
    const rules = firewallRules(this.#options, this.resolvers, this.#edges);
    for (let attempt = 0; attempt < 20; attempt++) {
      const before = this.#currentGeneration();
      step('load-rules');
      await run('nft', ['-f', '-'], { input: rules });
      const listing = await this.#list();
      // Only when the one change was ours is the listing surely that of our rules.
      if (this.#currentGeneration() !== before + 1) continue;
      this.#listing = listing;
      this.#generation = before + 1;
      return;
    }
    throw new Error(
      'Others change the nftables rules without pause; the walls cannot be verified.',
    );
  }

  /** IPv4 addresses of hosts that may connect to containers, beside this one. */
  async setEdges(edges: readonly string[]): Promise<void> {
    if (edges.some((edge) => !isIPv4(edge)))
      throw new Error('an edge is named by its IPv4 address');
    const sorted = [...edges].sort();
    if (sorted.join() === this.#edges.join()) return;
    this.#edges = sorted;
    await this.apply();
  }

  /** Makes sure that the table is whole; throws when it cannot be mended. Costs microseconds while nobody changed any rule. */
  async ensure(): Promise<void> {
    if (this.#currentGeneration() === this.#generation && this.#hasPolicyRules()) return;
    this.#healing ??= this.#heal().finally(() => (this.#healing = null));
    await this.#healing;
  }

  async #heal(): Promise<void> {
    const generation = this.#currentGeneration();
    if (this.#hasPolicyRules() && this.#listing !== '' && (await this.#list()) === this.#listing) {
      this.#generation = generation;
      return;
    }
    await this.apply();
    this.#options.onHealed?.();
  }

  async remove(): Promise<void> {
    // One that is under way would put the table back.
    await this.#healing?.catch(() => undefined);
    await run('nft', ['-f', '-'], {
      input: `table inet ${this.#options.table}\ndelete table inet ${this.#options.table}\n`,
    });
    for (const rule of policyRules(this.#options.network)) await removeRule(rule);
    this.#socket?.close();
    this.#routing?.close();
    this.#socket = this.#routing = null;
    this.#generation = -1;
  }

  #currentGeneration(): number {
    this.#socket ??= new NetlinkSocket(NETLINK_NETFILTER);
    const getGeneration = (10 << 8) | 16; // NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
    const [answer] = this.#socket.request('count rule changes', getGeneration, 0, Buffer.alloc(4));
    return answer?.readUInt32BE(8) ?? -2; // behind nfgenmsg and the header of NFTA_GEN_ID
  }

  async #list(): Promise<string> {
    try {
      return (
        await run('nft', ['--stateless', '--terse', 'list', 'table', 'inet', this.#options.table])
      ).stdout;
    } catch (error) {
      if (error instanceof CommandError && error.stderr.includes('No such file')) return '';
      throw error;
    }
  }

  #hasPolicyRules(): boolean {
    const kept = this.#keptRules();
    const wanted = policyRules(this.#options.network).map(([, priority]) => Number(priority));
    return wanted.every((priority) => kept.includes(priority)) && kept[0] === 0;
  }

  /**
   * Puts our rule of priority 0 before the kernel's: rules of one priority stand in the order of
   * their making, so a second one for local addresses is made behind ours, and then the first one
   * goes. The host is never without, not even when several agents do so at once, or one is killed.
   */
  #putFirst(): void {
    if (this.#keptRules()[0] === 0) return;
    const local = [ruleHeader(fib.localTable, fib.toTable), attribute(fib.priority, 0)];
    this.#routing!.request('repeat the local rule', fib.newRule, NLM_F_CREATE, ...local);
    this.#routing!.request('delete the first local rule', fib.deleteRule, 0, ...local);
  }

  /** Priorities of our rules in their order, with `local` where the kernel's own stands. */
  #keptRules(): (number | 'local')[] {
    this.#routing ??= new NetlinkSocket(NETLINK_ROUTE);
    const [network = '', length] = this.#options.network.split('/');
    const address = Buffer.from(network.split('.').map(Number));
    const kept: (number | 'local')[] = [];
    const header = ruleHeader(0, 0);
    for (const rule of this.#routing.request('list rules', fib.getRule, NLM_F_DUMP, header)) {
      const [to, from] = [findAttribute(rule, fib.to), findAttribute(rule, fib.from)];
      if (rule[4] === fib.localTable && !to && !from) kept.push('local');
      const isOurs = (to ?? from)?.equals(address) && rule[to ? 1 : 2] === Number(length);
      // The kernel leaves a priority of 0 out.
      if (isOurs) kept.push(findAttribute(rule, fib.priority)?.readUInt32LE() ?? 0);
    }
    return kept;
  }
}

/** One that is there stays: without it, if only for a moment, this host would not reach what runs. */
async function addRule(rule: readonly string[]): Promise<void> {
  try {
    await run('ip', ['rule', 'add', ...rule]);
  } catch (error) {
    if (error instanceof CommandError && error.stderr.includes('File exists')) return;
    throw error;
  }
}

async function removeRule(rule: readonly string[]): Promise<void> {
  try {
    await run('ip', ['rule', 'delete', ...rule]);
  } catch (error) {
    if (error instanceof CommandError && /No such file|does not exist/.test(error.stderr)) return;
    throw error;
  }
}
