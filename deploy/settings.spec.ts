import { expect, test } from 'vitest';
import { listeningInode } from './ports.ts';
import { defaultPorts, makeSettings, optionsFromEnvironment, portsFrom } from './settings.ts';

const root = '/srv/clone';

test('the defaults are the addresses that the README names', () => {
  const settings = makeSettings({ root });
  expect(settings).toMatchObject({
    stateDir: '/var/lib/bulkhead',
    host: '127.0.0.1',
    ports: defaultPorts,
  });
  expect(settings.ports).toMatchObject({ api: 4000, edge: 8080, registry: 5000 });
});

test('a port base gives every service a port of its own', () => {
  const ports = Object.values(portsFrom(15_000));
  expect(new Set(ports).size).toBe(Object.keys(defaultPorts).length);
  expect(Math.min(...ports)).toBe(15_000);
});

test.each([
  [{ stateDir: '/' }, 'one of its own'],
  [{ stateDir: '/srv' }, 'one of its own'],
  [{ stateDir: root }, 'one of its own'],
  [{ stateDir: '/tmp/a b' }, 'letters, digits'],
  [{ stateDir: "/tmp/a'b" }, 'letters, digits'],
  [{ portBase: 80 }, 'port base'],
  [{ portBase: 65_535 }, 'port base'],
  [{ apiReplicas: 0 }, 'BULKHEAD_API_REPLICAS'],
  [{ edges: 5 }, 'BULKHEAD_EDGES'],
])('%j is refused', (options, message) => {
  expect(() => makeSettings({ root, ...options })).toThrow(message);
});

test('the environment overrides, and an empty variable counts as unset', () => {
  const options = optionsFromEnvironment(root, {
    BULKHEAD_STATE: '/tmp/x',
    BULKHEAD_PORT_BASE: '15000',
    AGENT_CGROUP: 'other',
    AGENT_DISK_POOL_MIB: '4096',
    AGENT_ALLOW_MISSING_WALLS: 'io-limit',
    AGENT_NETWORK: '',
    SIGN_UP: 'closed',
    TRUSTED_PROXIES: '127.0.0.1',
    MAX_TENANTS_PER_USER: '0',
    REBALANCE_MOVES: '0',
    EDGE_ACCESS_LOG: 'all',
    EDGE_MAX_BODY_MB: '',
  });
  const settings = makeSettings(options);
  expect(settings).toMatchObject({
    stateDir: '/tmp/x',
    signUp: 'closed',
    trustedProxies: '127.0.0.1',
    maxTenantsPerUser: 0,
    rebalanceMoves: 0,
    edge: { EDGE_ACCESS_LOG: 'all' },
    ports: portsFrom(15_000),
  });
  expect(settings.node).toMatchObject({
    cgroup: 'other',
    network: '10.201.0.0/16',
    diskPoolMiB: 4096,
    allowMissingWalls: 'io-limit',
  });
});

test('what is not a number, or not a choice, is named', () => {
  expect(() => optionsFromEnvironment(root, { BULKHEAD_PORT_BASE: 'many' })).toThrow(
    'BULKHEAD_PORT_BASE',
  );
  expect(() => optionsFromEnvironment(root, { SIGN_UP: 'perhaps' })).toThrow('SIGN_UP');
});

test("the kernel's table names the socket that listens on a port, and no other", () => {
  const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1`;
  expect(listeningInode(table, '127.0.0.1', 8080)).toBe(4711);
  expect(listeningInode(table, '127.0.0.1', 8081)).toBeNull();
  expect(listeningInode(table, '10.0.0.1', 8080)).toBeNull();
  const all = '0: 00000000000000000000000000000000:1F90 0:0000 0A 0:0 00:0 0 0 0 4713 1';
  expect(listeningInode(all, '10.0.0.1', 8080)).toBe(4713);
});
