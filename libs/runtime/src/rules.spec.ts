import { describe, expect, it } from 'vitest';
import { planAddresses } from './addresses.ts';
import { detectCgroups } from './cgroups.ts';
import { signalName, stopSignalNumber } from './dismantle.ts';
import { firewallRules, parseResolvers } from './firewall.ts';
import { hybridMounts } from './host-thread.ts';
import { resolveUser } from './image-user.ts';
import { processLimits } from './oci-config.ts';

describe('addresses', () => {
  it('keeps everything of a slot apart from every other slot', () => {
    const plan = planAddresses('10.201.0.0/16', 1_048_576, 'bh');
    expect([plan.address(1), plan.address(256), plan.interfaceName(256), plan.idBase(1)]).toEqual([
      '10.201.0.1',
      '10.201.1.0',
      'bh-256',
      1_048_576 + 65_536,
    ]);
    expect(plan.last).toBe(8190);
    expect(plan.slotOfInterface('bh-256')).toBe(256);
    for (const other of ['bha-256', 'bh-', 'bh-0', 'bh256', 'eth0'])
      expect(plan.slotOfInterface(other)).toBeNull();
    expect(plan.idBase(plan.last) + 65_536).toBeLessThan(2 ** 32);
  });

  it.each([
    ['10.201.0.0/15', 65_536, 'bh'],
    ['10.201.0.1/16', 65_536, 'bh'],
    ['10.300.0.0/16', 65_536, 'bh'],
    ['10.1.0.0', 65_536, 'bh'],
    ['10.201.0.0/24', 1000, 'bh'],
    ['10.201.0.0/24', 0, 'bh'],
    ['10.201.0.0/24', 65_536, 'toolong'],
    ['10.201.0.0/24', 65_536, 'b*'],
  ])('refuses %s, %d, %s', (network, idBase, prefix) => {
    expect(() => planAddresses(network, idBase, prefix)).toThrow();
  });
});

describe('the user of an image', () => {
  const files = new Map([
    [
      '/etc/passwd',
      'root:x:0:0::/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nbig:x:70000:1:::\n',
    ],
    ['/etc/group', 'root:x:0:\napp:x:1001:\nextra:x:1500:app,other\n'],
  ]);
  const read = (path: string): string | null => files.get(path) ?? null;

  it.each([
    ['', { uid: 0, gid: 0, additionalGids: [0], home: '/root' }],
    ['app', { uid: 1000, gid: 1001, additionalGids: [1001, 1500], home: '/home/app' }],
    ['1000', { uid: 1000, gid: 1001, additionalGids: [1001, 1500], home: '/home/app' }],
    ['app:extra', { uid: 1000, gid: 1500, additionalGids: [1500], home: '/home/app' }],
    ['5:7', { uid: 5, gid: 7, additionalGids: [7], home: '/' }],
    ['5', { uid: 5, gid: 0, additionalGids: [0], home: '/' }],
  ])('"%s"', (wanted, expected) => {
    expect(resolveUser(wanted, read)).toEqual(expected);
  });

  it.each(['ghost', 'app:ghost', '70000', 'big', '-1', '0x1'])('refuses "%s"', (wanted) => {
    expect(() => resolveUser(wanted, read)).toThrow('The image runs as');
  });

  it('needs no files for numbers', () => {
    expect(resolveUser('', () => null)).toEqual({ uid: 0, gid: 0, additionalGids: [0], home: '/' });
  });
});

describe('signals', () => {
  it.each([
    ['SIGTERM', 15],
    ['term', 15],
    ['9', 9],
    ['SIGRTMIN+3', 37],
    ['nonsense', 15],
    ['0', 15],
    [null, 15],
  ])('%s is %d', (name, number) => {
    expect(stopSignalNumber(name)).toBe(number);
  });
  it('are told from exit codes', () => {
    expect([
      signalName(137),
      signalName(143),
      signalName(1),
      signalName(128),
      signalName(255),
    ]).toEqual(['SIGKILL', 'SIGTERM', null, null, null]);
  });
});

describe('the layout of cgroups', () => {
  const v1 =
    '35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n';
  const v2 = (point: string): string => `41 31 0:38 / ${point} rw - cgroup2 cgroup2 rw\n`;

  it('is looked up, not assumed', () => {
    expect(hybridMounts(v1 + v2('/sys/fs/cgroup/unified'))).toEqual(['/sys/fs/cgroup/unified']);
    expect(hybridMounts(v2('/sys/fs/cgroup'))).toEqual([]);
    expect(detectCgroups(v2('/sys/fs/cgroup')).layout).toBe('v2');
    expect(() => detectCgroups('')).toThrow('No cgroup file system');
  });
});

it('takes name servers that a container can reach', () => {
  expect(
    parseResolvers(
      '# x\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver ::1\noptions edns0\n nameserver 10.0.0.2 \nnameserver 1.1.1.999',
    ),
  ).toEqual(['9.9.9.9', '10.0.0.2']);
});

it('lets a container ask its resolver wherever that stands, and no network that is not public', () => {
  const options = { table: 'bhspec', network: '10.201.0.0/16', vethPrefix: 'bhs' };
  const [, outbound = ''] = firewallRules(options, ['192.0.2.53', '10.0.0.2']).split('outbound {');
  const ask = 'ip daddr { 192.0.2.53, 10.0.0.2 } meta l4proto { tcp, udp } th dport 53 accept';
  const [denied] = /ip daddr \{[^}]*\} drop/.exec(outbound) ?? [];
  expect(outbound.indexOf(ask)).toBeGreaterThan(-1);
  expect(outbound.indexOf(ask)).toBeLessThan(outbound.indexOf(denied ?? 'no such rule'));
  expect(denied).toMatchInlineSnapshot(
    `"ip daddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.0.2.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3 } drop"`,
  );
});

it('gives processes no more than it may have itself', () => {
  const given =
    processLimits(`Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 20000                files
Max locked memory         65536                unlimited            bytes
Max msgqueue size         819200               819200               bytes
Max realtime priority     99                   99
`);
  expect(Object.fromEntries(given.map(({ type, hard, soft }) => [type, [soft, hard]]))).toEqual({
    RLIMIT_NOFILE: [20_000, 20_000],
    RLIMIT_NPROC: [65_536, 65_536],
    RLIMIT_SIGPENDING: [65_536, 65_536],
    RLIMIT_MEMLOCK: [8_388_608, 8_388_608],
    RLIMIT_CORE: [0, 0],
    RLIMIT_MSGQUEUE: [0, 0],
    RLIMIT_NICE: [0, 0],
    RLIMIT_RTPRIO: [0, 0],
  });
});
