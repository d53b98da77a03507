import { readFileSync } from 'node:fs';
import { cleanEnv, findProgram, run } from '../exec.ts';
import { firewallRules, policyRules, type FirewallOptions } from '../firewall.ts';
import { openPipe, spawnDetached } from '../spawn.ts';
import { closeFd } from '../syscalls.ts';
import { untilItHasNamespace } from '../userns.ts';
import { degraded, missing, ok, type Finding } from './findings.ts';
import { errorText } from './trial.ts';

type InNetwork = (program: string, args: readonly string[], input?: string) => Promise<unknown>;

/** Runs `work` with a network namespace of its own, which ends with it. */
async function inThrowAwayNetwork<T>(work: (inside: InNetwork) => Promise<T>): Promise<T> {
  const pipe = openPipe();
  try {
    // It ends when we close our end of its input.
    const { pid, ended } = spawnDetached(findProgram('unshare'), ['--net', 'cat'], {
      ...{ cwd: '/', env: cleanEnv(), stdin: pipe.read },
    });
    await untilItHasNamespace(pid, 'net', ended);
    return await work((program, args, input) =>
      run('nsenter', [`--net=/proc/${pid}/ns/net`, program, ...args], {
        deadlineMs: 30_000,
        ...(input === undefined ? {} : { input }),
      }),
    );
  } finally {
    closeFd(pipe.read);
    closeFd(pipe.write);
  }
}

/** Our very rules, policy rules included, and a veth with a token bucket. */
export async function examineNetwork(options: FirewallOptions): Promise<Finding[]> {
  try {
    return await inThrowAwayNetwork(async (inside) => [
      await tryFirewall(inside, options),
      await tryLimit(inside),
    ]);
  } catch (error) {
    return [noFirewall(errorText(error)), noLimit(errorText(error))];
  }
}

async function tryFirewall(inside: InNetwork, options: FirewallOptions): Promise<Finding> {
  try {
    await inside('nft', ['-f', '-'], firewallRules(options, ['192.0.2.1']));
    for (const rule of policyRules(options.network)) await inside('ip', ['rule', 'add', ...rule]);
    return ok(
      'firewall',
      'loaded all rules in a network namespace: nftables, conntrack, fib, NAT, policy rules',
    );
  } catch (error) {
    return noFirewall(errorText(error));
  }
}

const noFirewall = (found: string): Finding =>
  missing('firewall', {
    found,
    fallback: 'the agent does not start',
    meaning: 'Containers could reach each other, the host and private networks.',
    todo: 'Install nftables and iproute2; a kernel with nf_tables, conntrack, fib, masquerade and policy routing.',
  });

async function tryLimit(inside: InNetwork): Promise<Finding> {
  try {
    await inside('ip', ['link', 'add', 'bhd0', 'type', 'veth', 'peer', 'name', 'bhd1']);
    const bucket = ['tbf', 'rate', '1mbit', 'burst', '32kbit', 'latency', '50ms'];
    await inside('tc', ['qdisc', 'add', 'dev', 'bhd0', 'root', ...bucket]);
    return ok('network-limit', 'made a veth pair with a token bucket (tbf)');
  } catch (error) {
    return noLimit(errorText(error));
  }
}

const noLimit = (found: string): Finding =>
  missing('network-limit', {
    found,
    fallback: 'no container starts',
    meaning: 'One container could take the bandwidth of all.',
    todo: 'A kernel with veth and sch_tbf.',
  });

export function examineForwarding(instances: number): Finding[] {
  const number = (path: string): number | null => {
    try {
      return Number(readFileSync(`/proc/sys/net/${path}`, 'utf8'));
    } catch {
      return null;
    }
  };
  const forward = number('ipv4/ip_forward');
  const most = number('netfilter/nf_conntrack_max');
  const wanted = instances * 64;
  return [
    ok('ip-forward', forward === 1 ? 'on' : 'off; the agent switches it on when it starts'),
    most === null || most >= wanted
      ? ok('conntrack', most === null ? 'not loaded yet' : `${most} connections at most`)
      : degraded('conntrack', {
          found: `${most} connections at most, for ${instances} instances`,
          fallback: 'new connections are dropped when the table is full',
          meaning: 'An app with very many connections keeps others from opening theirs.',
          todo: `sysctl net.netfilter.nf_conntrack_max=${wanted}`,
        }),
    number('ipv6/conf/all/disable_ipv6') === null
      ? ok('ipv6', 'not in this kernel')
      : ok('ipv6', 'there; switched off in containers and dropped at their interfaces'),
  ];
}
