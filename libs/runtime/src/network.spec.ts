import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from './exec.ts';
import { createRuntime } from './host-runtime.ts';
import type { ContainerRuntime, ContainerStatus, RuntimeOptions } from './runtime.ts';
import { containerSpec, removeState, runToEnd, testOptions, until } from './testing/host.ts';
import { baseLayer, startRegistry } from './testing/registry.ts';
import type { TestImage, TestRegistry } from './testing/registry.ts';

let registry: TestRegistry;
let options: RuntimeOptions;
let runtime: ContainerRuntime;
let image: TestImage;
let server: ContainerStatus;
let onHost: Server;
const hostAddress =
  Object.values(networkInterfaces())
    .flat()
    .find((a) => a?.family === 'IPv4' && !a.internal)?.address ?? '127.0.0.1';

const events: string[] = [];

beforeAll(async () => {
  registry = await startRegistry();
  options = {
    ...testOptions([registry.host]),
    onEvent: ({ type }) => events.push(type),
  };
  runtime = createRuntime(options);
  await runtime.reconcile();
  image = await registry.push('test/base', [baseLayer]);
  await runtime.ensureImage(image);
  server = await runtime.start(
    containerSpec(image, ['sh', '-c', 'echo hello > /index.html; httpd -f -p 80 -h /'], {
      tenantId: 'tenant-b',
    }),
  );
  onHost = createServer((socket) => socket.end('host\n')).listen(0, '0.0.0.0');
});

afterAll(async () => {
  onHost.close();
  await runtime.destroy();
  await registry.close();
  removeState(options);
});

const fetchText = (): Promise<string> =>
  fetch(`http://${server.address}/index.html`, { signal: AbortSignal.timeout(2000) }).then(
    (r) => r.text(),
    String,
  );

/** A try from inside; each network that must be closed drops, so nc's own limit ends it. */
async function reach(address: string, port: number, tenantId = 'tenant-a'): Promise<string> {
  const script = `nc -w 1 ${address} ${port} < /dev/null && echo reached || echo refused`;
  return (
    (await runToEnd(runtime, containerSpec(image, ['sh', '-c', script], { tenantId }))).out.at(
      -1,
    ) ?? ''
  );
}

describe('a container', () => {
  it('is reached by the host', async () => {
    await until('it answers', async () => (await fetchText()) === 'hello\n');
  });

  it('reaches itself', async () => {
    const script = 'httpd -p 80 -h /etc; wget -q -O - http://localhost/hostname';
    const spec = containerSpec(image, ['sh', '-c', script]);
    expect((await runToEnd(runtime, spec)).out).toEqual([spec.id]);
  });

  it('reaches no container, of another tenant or its own', async () => {
    expect(await reach(server.address, 80)).toBe('refused');
    expect(await reach(server.address, 80, 'tenant-b')).toBe('refused');
  });

  it('does not reach the host, by any of its addresses', async () => {
    const { port } = onHost.address() as AddressInfo;
    for (const address of ['169.254.1.1', hostAddress])
      expect(await reach(address, port)).toBe('refused');
  });

  it('reaches neither metadata nor private networks, though there is a host behind', async () => {
    // A network namespace stands for another machine that the host can reach.
    const name = `${options.vethPrefix}-peer`;
    const closed = [
      '169.254.169.254',
      '10.255.254.253',
      '192.168.254.253',
      '192.0.2.9',
      '198.51.100.9',
      '203.0.113.9',
    ];
    // Of the network of the 6to4 relays: public, and no longer anybody's.
    const open = '192.88.99.9';
    const far = [...closed, open];
    await run('ip', ['netns', 'add', name]);
    try {
      await run('ip', [
        'link',
        'add',
        `${options.vethPrefix}far`,
        'type',
        'veth',
        'peer',
        'name',
        'far',
        'netns',
        name,
      ]);
      const batch = [
        'link set lo up',
        'link set far up',
        'address add 198.51.100.2/24 dev far',
        'route add default via 198.51.100.1',
        ...far.map((address) => `address add ${address}/32 dev lo`),
      ];
      await run('ip', ['-netns', name, '-batch', '-'], { input: batch.join('\n') });
      await run('ip', ['-batch', '-'], {
        input: [
          `address add 198.51.100.1/24 dev ${options.vethPrefix}far`,
          `link set ${options.vethPrefix}far up`,
          ...far.map((address) => `route add ${address}/32 via 198.51.100.2`),
        ].join('\n'),
      });
      const listener = spawn('ip', ['netns', 'exec', name, 'busybox', 'httpd', '-f', '-p', '7'], {
        stdio: 'ignore',
      });
      try {
        await until('the far machine answers', () => canConnect(open, 7));
        for (const address of far) {
          await until(`${address} answers the host`, () => canConnect(address, 7));
          expect([address, await reach(address, 7)]).toEqual([
            address,
            address === open ? 'reached' : 'refused',
          ]);
        }
        // Where a host is strict about the way that answers come, they still come.
        for (const strictness of ['1', '2']) {
          const file = `/proc/sys/net/ipv4/conf/${options.vethPrefix}far/rp_filter`;
          writeFileSync(file, strictness);
          expect(await reach(open, 7)).toBe('reached');
        }
      } finally {
        listener.kill('SIGKILL');
      }
    } finally {
      await run('ip', ['netns', 'delete', name]);
    }
  });

  it('cannot send from another address, nor change its own', async () => {
    const spec = containerSpec(image, [
      'sh',
      '-c',
      'ip address add 10.9.9.9/32 dev eth0; ip link set eth0 down; ip link show eth0 | grep -q UP && echo up',
    ]);
    const { out, err } = await runToEnd(runtime, spec);
    expect(err.join('\n').match(/Operation not permitted/g)).toHaveLength(2);
    expect(out).toEqual(['up']);
  });

  it('has no IPv6', async () => {
    const { out } = await runToEnd(
      runtime,
      containerSpec(image, ['sh', '-c', 'cat /proc/net/if_inet6 | wc -l']),
    );
    expect(out).toEqual(['0']);
  });
});

describe('when somebody flushes the rules', () => {
  it('forwards nothing meanwhile and puts them back', async () => {
    await run('nft', ['delete', 'table', 'inet', options.nftTable]);
    await until('they are back', async () =>
      (await run('nft', ['list', 'tables'])).stdout.includes(options.nftTable),
    );
    await run('ip', ['rule', 'delete', 'pref', '31002', 'to', options.network]);
    await until('the policy rule is back', async () =>
      (await run('ip', ['rule'])).stdout.includes(
        `31002:\tfrom all to ${options.network} prohibit`,
      ),
    );
    await run('nft', ['flush', 'chain', 'inet', options.nftTable, 'input']);
    // A start does not wait for the timer.
    const { port } = onHost.address() as AddressInfo;
    expect(await reach(hostAddress, port)).toBe('refused');
    expect(events).toContain('firewall-healed');
  });
});

const canConnect = (host: string, port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 300 });
    socket.once('connect', () => (socket.destroy(), resolve(true)));
    for (const event of ['error', 'timeout'])
      socket.once(event, () => (socket.destroy(), resolve(false)));
  });
