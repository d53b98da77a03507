import { spawn, type ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { run } from '../exec.ts';
import { createRuntime } from '../host-runtime.ts';
import type { ContainerRuntime, RuntimeOptions } from '../runtime.ts';
import { containerSpec, removeState, testOptions, until } from '../testing/host.ts';
import { baseLayer, startRegistry } from '../testing/registry.ts';
import type { TestRegistry } from '../testing/registry.ts';
import { wallsRemoved } from '../testing/weaken.ts';

vi.mock(import('../oci-config.ts'), async (original) =>
  (await import('../testing/weaken.ts')).weakened(await original()),
);

/** Public, and no longer anybody's: a network of the 6to4 relays. A namespace stands for the machine there. */
const far = '192.88.99.9';
let registry: TestRegistry;
let options: RuntimeOptions;
let runtime: ContainerRuntime;
let listener: ChildProcess;
let heard = '';

const sockaddr = (address: string, port: number) =>
  `pack("S n C4 x8", 2, ${port}, ${address.split('.').join(', ')})`;

beforeAll(async () => {
  registry = await startRegistry();
  options = testOptions([registry.host]);
  runtime = createRuntime(options);
  await runtime.reconcile();
  const name = `${options.vethPrefix}-far`;
  await run('ip', ['netns', 'add', name]);
  const link = `${options.vethPrefix}far`;
  const batch = [
    `link add ${link} type veth peer name far netns ${name}`,
    `address add 198.51.100.1/24 dev ${link}`,
    `link set ${link} up`,
    `route add ${far}/32 via 198.51.100.2`,
  ];
  const there = [
    'link set lo up',
    'address add 198.51.100.2/24 dev far',
    'link set far up',
    'route add default via 198.51.100.1',
    `address add ${far}/32 dev lo`,
  ];
  await run('ip', ['-netns', name, 'link', 'show']);
  await run('ip', ['-batch', '-'], { input: batch.join('\n') });
  await run('ip', ['-netns', name, '-batch', '-'], { input: there.join('\n') });
  const script = `$| = 1; socket(S, 2, 2, 17); bind(S, ${sockaddr('0.0.0.0', 7)}) or die; print "$b\\n" while defined recv(S, $b, 99, 0);`;
  listener = spawn('ip', ['netns', 'exec', name, 'perl', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  listener.stdout?.on('data', (part: Buffer) => (heard += part.toString()));
});

afterAll(async () => {
  listener.kill('SIGKILL');
  await runtime.destroy();
  await run('ip', ['netns', 'delete', `${options.vethPrefix}-far`]);
  await registry.close();
  removeState(options);
});

it('root with every capability over its network sends from no address but its own', async () => {
  const image = await registry.push('test/base', [baseLayer]);
  await runtime.ensureImage(image);
  const victim = containerSpec(image, ['sleep', '1000'], { tenantId: 'tenant-b' });
  const { address: neighbour } = await runtime.start(victim);
  const sources = { neighbour, stranger: '203.0.113.77' };
  const send = (name: string, from: string | null) =>
    `socket(S, 2, 2, 17); ${from === null ? '' : `bind(S, ${sockaddr(from, 0)}) or die "bind $!";`} send(S, "${name}", 0, ${sockaddr(far, 7)}); close(S);`;
  const take = Object.values(sources).map(
    (each) => `system("ip address add ${each}/32 dev eth0") and die;`,
  );
  const sends = Object.entries(sources).map(([name, from]) => send(name, from));
  const mac = `system("ip link set eth0 address 02:00:00:00:00:77") and die;`;
  const attacker = containerSpec(image, [
    'perl',
    '-e',
    `${take.join('')} for (1..50) { ${send('own', null)} ${sends.join(' ')} select(undef, undef, undef, 0.1) } ${mac} for (;;) { ${send('other-mac', null)} ${sends.join(' ')} select(undef, undef, undef, 0.1) }`,
  ]);
  wallsRemoved.set(attacker.id, ['capabilities', 'seccomp']);
  await runtime.start(attacker);
  // A link of two ends has no use for another address of hardware: it is the same container still.
  await until('its own packets arrive', () => /own[^]*other-mac/.test(heard), 20_000);
  expect(heard).not.toMatch(/neighbour|stranger/);

  // The control: without the one rule that knows whose address it is, the neighbour's arrive.
  const list = async () =>
    (await run('nft', ['-a', 'list', 'chain', 'inet', options.nftTable, 'ingress'])).stdout;
  await until('the neighbour is heard', async () => {
    const handle = /missing drop # handle (\d+)/.exec(await list())?.[1];
    if (handle)
      await run('nft', ['delete', 'rule', 'inet', options.nftTable, 'ingress', 'handle', handle]);
    return heard.includes('neighbour');
  });
  expect(heard).not.toContain('stranger');
});
