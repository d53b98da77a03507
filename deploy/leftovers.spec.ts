import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { describe as suite, expect, onTestFinished, test } from 'vitest';
import {
  describe,
  difference,
  findLeftovers,
  findTakenNames,
  isEmpty,
  takeInventory,
  type Inventory,
} from './leftovers.ts';
import { makeSettings } from './settings.ts';
import { sweep } from './sweep.ts';

const execute = promisify(execFile);

const nothing: Inventory = {
  processes: [],
  mounts: [],
  networkNamespaces: [],
  cgroups: [],
  interfaces: [],
  nftTables: [],
  policyRules: [],
  routes: [],
  loopDevices: [],
};

suite('difference', () => {
  test("what was there before is nobody's leftover", () => {
    const before = { ...nothing, mounts: ['/', '/proc'], interfaces: ['lo'] };
    expect(isEmpty(difference(before, before))).toBe(true);
    expect(isEmpty(difference(before, { ...nothing, mounts: ['/'] }))).toBe(true);
  });

  test('what is new is named', () => {
    const before = { ...nothing, mounts: ['/'] };
    const after = {
      ...nothing,
      mounts: ['/', '/x'],
      nftTables: ['inet bulkhead'],
      loopDevices: [{ device: '/dev/loop0', file: '/x/pool' }],
    };
    expect(describe(difference(before, after))).toEqual([
      'mount /x',
      'nftables table inet bulkhead',
      'loop device /dev/loop0 on /x/pool',
    ]);
  });

  test('a second mount on the same directory counts', () => {
    expect(
      difference({ ...nothing, mounts: ['/a'] }, { ...nothing, mounts: ['/a', '/a'] }).mounts,
    ).toEqual(['/a']);
  });
});

test("cgroups are ours at the top of a hierarchy and below what is new, not below another's", () => {
  const v1 = '/sys/fs/cgroup/memory';
  const before = { ...nothing, mounts: [v1], cgroups: [v1, `${v1}/theirs`] };
  const made = [`${v1}/ours`, `${v1}/ours/instance`];
  const after = { ...before, cgroups: [...before.cgroups, `${v1}/theirs/shell`, ...made] };
  expect(difference(before, after).cgroups).toEqual(made);
});

test("policy rules of the platform's network are swept away, those of others stay", async () => {
  const network = '10.247.0.0/16';
  const mark = ['fwmark', '0x02000000/0x02000000'];
  const living = ['lookup', 'main', 'suppress_prefixlength', '0'];
  // As libs/runtime/src/firewall.ts writes them.
  const ours = [
    ['pref', '0', 'fwmark', '0/0x02000000', 'from', network, 'prohibit'],
    ['pref', '31000', 'iif', 'lo', 'to', network, ...living],
    ['pref', '31001', ...mark, 'to', network, ...living],
    ['pref', '31002', 'to', network, 'prohibit'],
    ['pref', '31003', ...mark, 'from', network, 'lookup', 'main'],
    ['pref', '31004', 'from', network, 'prohibit'],
  ];
  const foreign = [
    // Another platform's network, a rule of the operator's, and part of the network.
    ['pref', '31002', 'to', '10.246.0.0/16', 'prohibit'],
    ['pref', '30999', 'to', network, 'lookup', 'main'],
    ['pref', '31004', 'from', '10.247.0.0/24', 'lookup', 'main'],
  ];
  onTestFinished(async () => {
    for (const rule of [...ours, ...foreign])
      await execute('ip', ['rule', 'delete', ...rule]).catch(() => undefined);
  });
  const settings = makeSettings({
    root: '/srv/clone',
    stateDir: '/tmp/bulkhead-leftovers-spec',
    node: { network, cgroup: 'bhleftspec', nftTable: 'bhleftspec', vethPrefix: 'bhls' },
  });
  const rulesNow = async () =>
    (await takeInventory()).policyRules.filter((rule) => /10\.24[67]\./.test(rule));

  for (const rule of foreign) await execute('ip', ['rule', 'add', ...rule]);
  const before = await rulesNow();
  expect(before).toHaveLength(foreign.length);
  for (const rule of ours) await execute('ip', ['rule', 'add', ...rule]);

  const found = await findLeftovers(settings);
  expect(found.policyRules.map((rule) => rule.split(' ')[1])).toEqual(ours.map(([, at]) => at));
  expect(isEmpty(found)).toBe(false);
  await sweep(found);
  expect((await findLeftovers(settings)).policyRules).toEqual([]);
  expect(await rulesNow()).toEqual(before);
});

test("routes to other hosts' containers are swept away, another agent's stay", async () => {
  const settings = makeSettings({
    ...{ root: '/nowhere', stateDir: '/tmp/bulkhead-routes' },
    node: { cgroup: 'bhroutes', nftTable: 'bhroutes', vethPrefix: 'bhq', idBase: 3_999_989_760 },
  });
  const metric = 1_000_000 + settings.node.idBase / 65_536;
  const routes = [metric, metric + 1].map((each) => [
    ...['192.0.2.128/25', 'via', '198.51.100.2', 'dev', 'brbhroutes'],
    ...['proto', '201', 'metric', String(each)],
  ]);
  onTestFinished(async () => void (await execute('ip', ['link', 'delete', 'brbhroutes'])));
  await execute('ip', ['link', 'add', 'brbhroutes', 'type', 'bridge']);
  await execute('ip', ['addr', 'add', '198.51.100.1/30', 'dev', 'brbhroutes']);
  await execute('ip', ['link', 'set', 'brbhroutes', 'up']);
  for (const route of routes) await execute('ip', ['route', 'add', ...route]);
  const found = await findLeftovers(settings);
  expect(found.routes).toEqual([`192.0.2.128/25 via 198.51.100.2 proto 201 metric ${metric}`]);
  await sweep({ ...nothing, routes: found.routes });
  expect((await findLeftovers(settings)).routes).toEqual([]);
  expect((await takeInventory()).routes).toContain(
    `192.0.2.128/25 via 198.51.100.2 proto 201 metric ${metric + 1}`,
  );
});

suite('names of another platform', () => {
  test('are taken when they are equal, a network when it overlaps', async () => {
    const other = {
      ...{ BULKHEAD_SERVICE: 'agent', BULKHEAD_STATE: '/tmp/other', AGENT_VETH_PREFIX: 'other' },
      ...{ AGENT_CGROUP: 'bh-names', AGENT_NETWORK: '10.77.128.0/17' },
    };
    const agent = spawn('sleep', ['60'], { env: { ...other, PATH: process.env['PATH'] } });
    onTestFinished(async () => {
      agent.kill();
      await once(agent, 'exit');
    });
    await once(agent, 'spawn');
    const taken = (network: string) => {
      const node = { cgroup: 'bh-names', vethPrefix: 'bhn', nftTable: 'bhnames', network };
      return findTakenNames(
        makeSettings({ root: '/', stateDir: '/tmp/ours', node: { ...node, idBase: 77 } }),
      );
    };
    for (const network of ['10.77.128.0/17', '10.77.0.0/16', '10.77.200.0/24'])
      expect(await taken(network)).toEqual(['AGENT_CGROUP', 'AGENT_NETWORK']);
    expect(await taken('10.77.0.0/17')).toEqual(['AGENT_CGROUP']);
  });
});
