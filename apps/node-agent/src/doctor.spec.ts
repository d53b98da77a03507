import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Finding } from '@bulkhead/runtime';
import { expect, test } from 'vitest';
import { temporaryDirectory } from './testing.ts';

const main = fileURLToPath(new URL('./main.ts', import.meta.url));

interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

function run(
  program: string,
  args: readonly string[],
  env: Record<string, string>,
): Promise<Result> {
  return new Promise((resolve) => {
    const all = { PATH: process.env['PATH'] ?? '', ...env };
    execFile(program, args, { env: all }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

const agent = (...args: string[]): [string, ...string[]] => [
  process.execPath,
  '--conditions=@bulkhead/source',
  main,
  ...args,
];

/** What doctor finds in a mount namespace of its own, after `script` took something away. */
async function examineWithout(script: string): Promise<{ code: number; missing: string[] }> {
  const nodeDir = await temporaryDirectory();
  const { code, stdout, stderr } = await run(
    'unshare',
    [
      ...['--mount', '--propagation', 'private', 'sh', '-c', `${script} && exec "$@"`, 'sh'],
      ...agent('doctor', '--json'),
    ],
    { NODE_DIR: nodeDir },
  );
  expect(stderr).toBe('');
  expect(readdirSync(nodeDir)).toEqual([]);
  return { code, missing: missingOf(JSON.parse(stdout) as Finding[]) };
}

const missingOf = (findings: Finding[]): string[] =>
  findings.filter(({ status }) => status === 'missing').map(({ check }) => check);

/** What a doctor that does not clean up after itself would add to. */
const hostState = () => ({
  mounts: readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes('bulkhead-doctor')),
  cgroups: readdirSync('/sys/fs/cgroup', { recursive: false }).flatMap((root) => {
    try {
      return readdirSync(`/sys/fs/cgroup/${String(root)}`).filter((name) =>
        name.startsWith('bulkhead-doctor'),
      );
    } catch {
      return [];
    }
  }),
  loops: readdirSync('/sys/block').filter((name) => {
    try {
      return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').includes(
        'bulkhead-doctor',
      );
    } catch {
      return false;
    }
  }),
  interfaces: readdirSync('/sys/class/net').filter((name) => name.startsWith('bhd')),
});
const nothing = { mounts: [], cgroups: [], loops: [], interfaces: [] };

test('a whole host has every wall, by trying, and nothing is left behind', async () => {
  const nodeDir = await temporaryDirectory();
  const { code, stdout } = await run(...split(agent('doctor', '--json')), { NODE_DIR: nodeDir });
  const findings = JSON.parse(stdout) as Finding[];
  expect(findings.filter(({ wall, status }) => wall && status !== 'ok')).toEqual([]);
  expect(code).toBe(0);
  expect(readdirSync(nodeDir)).toEqual([]);
  expect(hostState()).toEqual(nothing);
  const text = await run(...split(agent('doctor')), { NODE_DIR: nodeDir });
  expect(text.stdout).toContain('Every wall between tenants stands.');
});

const split = ([program, ...args]: [string, ...string[]]): [string, string[]] => [program, args];

test('a cgroup controller that is not mounted is a limit that is missing', async () => {
  const blkio = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .find((fields) => fields.at(-1)?.split(',').includes('blkio'))?.[4];
  const found = await examineWithout(`umount -l ${blkio ?? '/sys/fs/cgroup'}`);
  expect(found.code).toBe(1);
  expect(found.missing).toContain('io-limit');
  expect(found.missing).not.toContain('firewall');
});

test('without nft, mkfs.btrfs or crun it says what that leaves open', async () => {
  const hide = ['nft', 'mkfs.btrfs', 'crun'].map(
    (program) => `mount --bind /dev/null "$(command -v ${program})"`,
  );
  const { code, missing } = await examineWithout(hide.join(' && '));
  expect(code).toBe(1);
  expect(missing.sort()).toEqual(['crun', 'disk-limit', 'firewall']);
});

test('without the capability to mount, nothing of a container can be made', async () => {
  const { code, missing } = await examineWithout(
    'set -- setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$@"',
  );
  expect(code).toBe(1);
  expect(missing).toEqual(expect.arrayContaining(['privileges', 'idmapped-layers', 'disk-limit']));
  expect(hostState()).toEqual(nothing);
});

test('wrong usage and a wrong environment are code 2', async () => {
  for (const args of [['doctor', '--yaml'], ['doctor', 'now'], ['heal']])
    expect((await run(...split(agent(...args)), {})).code).toBe(2);
  expect((await run(...split(agent('doctor')), { AGENT_METRICS_PORT: 'x' })).code).toBe(2);
});

test('the agent does not start without a wall, and says which and what to do', async () => {
  const nodeDir = await temporaryDirectory();
  await writeFile(`${nodeDir}/node.json`, JSON.stringify({ id: 'n000000000001', name: 'node-1' }));
  const key = { kty: 'OKP', crv: 'X25519', x: 'x', d: 'd' };
  await writeFile(`${nodeDir}/sealing.jwk.json`, JSON.stringify(key));
  const env = { NODE_DIR: nodeDir, AGENT_DISK_POOL_MIB: '0' };
  const refused = await run(...split(agent()), env);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain('disk-limit: AGENT_DISK_POOL_MIB is 0');
  expect(refused.stderr).toContain('AGENT_ALLOW_MISSING_WALLS=disk-limit');
  // Nothing was begun.
  expect(readdirSync(nodeDir).filter((name) => name === 'runtime')).toEqual([]);
  // What no container can do without cannot be waived, nor can everything.
  for (const name of ['seccomp', 'all', '*', 'disk-limit,firewall']) {
    const { code, stderr } = await run(...split(agent()), {
      ...env,
      AGENT_ALLOW_MISSING_WALLS: name,
    });
    expect(code).toBe(1);
    expect(stderr).toContain('AGENT_ALLOW_MISSING_WALLS');
  }
});
