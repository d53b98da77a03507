import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { defaultResources, defaultTenantLimits } from '@bulkhead/protocol';
import { run as runProgram } from '../exec.ts';
import { runDir } from '../run-dir.ts';
import type { ContainerRuntime, ContainerSpec, RuntimeOptions } from '../runtime.ts';
import type { TestImage } from './registry.ts';

/** Options of a runtime that shares nothing with another process's. */
export function testOptions(insecureRegistries: readonly string[]): RuntimeOptions {
  const stateDir = mkdtempSync(`${tmpdir()}/bulkhead-runtime-`);
  chmodSync(stateDir, 0o711);
  const number = (process.pid * 7 + count++) % 1500;
  const registryAuthFile = `${stateDir}/auth.json`;
  writeFileSync(registryAuthFile, '{"auths":{}}', { mode: 0o600 });
  return {
    stateDir,
    cgroup: `bulkhead-test-${number}`,
    nftTable: `bulkhead_test_${number}`,
    vethPrefix: `t${number.toString(36).padStart(3, '0')}`,
    network: `10.${240 + (number >> 8)}.${number & 255}.0/24`,
    diskPoolMiB: 512,
    // However full the disk of whoever runs the tests is.
    imageWaterMarks: { highPercent: 100, lowPercent: 100 },
    idBase: (16_384 + number * 32) * 65_536,
    insecureRegistries,
    registryAuthFile,
  };
}
let count = 0;

let specs = 0;
export const containerSpec = (
  image: TestImage,
  command: string[] | null,
  rest: Partial<ContainerSpec> = {},
): ContainerSpec => ({
  id: `i${(++specs).toString().padStart(4, '0')}`,
  tenantId: 'tenant-a',
  image,
  command,
  env: {},
  resources: { ...defaultResources, memoryMiB: 64 },
  tenantLimits: defaultTenantLimits,
  readOnlyRoot: false,
  idle: false,
  ...rest,
});

/** Runs a container to its end and returns what it wrote and how it ended. */
export async function runToEnd(runtime: ContainerRuntime, spec: ContainerSpec) {
  await runtime.start(spec);
  const exit = await runtime.waitExit(spec.id, AbortSignal.timeout(20_000));
  const { lines } = await runtime.readLogs(spec.id, null, 10_000);
  await runtime.remove(spec.id);
  return {
    exit,
    out: lines.filter((l) => l.stream === 'stdout').map((l) => l.text),
    err: lines.filter((l) => l.stream === 'stderr').map((l) => l.text),
  };
}

/** Everything on this host that bears the names of these options. Empty when nothing was left behind. */
export async function traces(options: RuntimeOptions): Promise<string[]> {
  const found: string[] = [];
  for (const name of readdirSync('/sys/class/net'))
    if (name.startsWith(`${options.vethPrefix}-`)) found.push(`interface ${name}`);
  for (const root of readdirSync('/sys/fs/cgroup')) {
    if (existsSync(`/sys/fs/cgroup/${root}/${options.cgroup}`)) found.push(`cgroup ${root}`);
  }
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    for (const file of ['mountinfo', 'cmdline']) {
      if (
        Number(pid) !== process.pid &&
        textOf(`/proc/${pid}/${file}`).includes(`${options.stateDir}/`)
      )
        found.push(`${file} of ${pid}`);
    }
  }
  if ((await runProgram('nft', ['list', 'tables'])).stdout.includes(options.nftTable))
    found.push('nftables table');
  if ((await runProgram('ip', ['rule'])).stdout.includes(options.network))
    found.push('policy rule');
  if ((await runProgram('ip', ['route'])).stdout.includes(options.network.replace(/0\/24$/, '')))
    found.push('route');
  for (const name of readdirSync('/sys/block')) {
    const file = textOf(`/sys/block/${name}/loop/backing_file`);
    if (file.startsWith(`${options.stateDir}/`)) found.push(`loop device ${name}`);
  }
  for (const name of ['pool.img', 'pool.img.new'])
    if (existsSync(`${options.stateDir}/${name}`)) found.push(name);
  if (existsSync(`${options.stateDir}/layers`))
    found.push(...readdirSync(`${options.stateDir}/layers`).map((name) => `layer of ${name}`));
  const run = runDir(options.stateDir);
  if (existsSync(run))
    found.push(
      ...readdirSync(`${run}/containers`).map((id) => `run of ${id}`),
      `run directory ${realpathSync(run)}`,
    );
  else if (lstatSync(run, { throwIfNoEntry: false })) found.push('link to no run directory');
  const containers = `${options.stateDir}/containers`;
  if (existsSync(containers))
    found.push(...readdirSync(containers).map((name) => `directory of ${name}`));
  return found;
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  deadlineMs = 15_000,
): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Not within ${deadlineMs} ms: ${what}`);
    await delay(10);
  }
}

export const removeState = (options: RuntimeOptions): void =>
  rmSync(options.stateDir, { recursive: true, force: true });
