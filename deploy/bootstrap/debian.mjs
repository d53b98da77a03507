/** Installs what is missing of the Debian packages in packages.json, and starts none of their services. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { StepFailure } from './steps.mjs';

const policyFile = '/usr/sbin/policy-rc.d';
const savedPolicy = `${policyFile}.before-bulkhead`;
const shieldMark = '# bulkhead: no service starts while its package is installed';

/** @typedef {'run' | 'bench' | 'test' | 'vm'} PackageGroup */

/** Throws unless this is Debian 12 (or newer) and we are root. */
export function assertDebianRoot() {
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const name = /^PRETTY_NAME="?([^"\n]*)/m.exec(release)?.[1] ?? 'an unknown system';
  const version = Number(/^VERSION_ID="?(\d+)/m.exec(release)?.[1] ?? 0);
  if (!/^ID=debian$/m.test(release) || version < 12)
    throw new StepFailure(
      `this is ${name}; Bulkhead sets itself up on Debian 12`,
      'use a Debian 12 machine.',
    );
  if (process.arch !== 'x64')
    throw new StepFailure(
      `this machine is ${process.arch}; only x64 is supported so far`,
      'use an x64 machine.',
    );
  if (process.getuid?.() !== 0)
    throw new StepFailure(
      'root is needed: for namespaces, networks and cgroups of containers, and for Debian packages',
      'run the same command as root, for example with sudo.',
    );
}

/** Names of the wanted packages that are not installed. @param {PackageGroup[]} groups @returns {string[]} */
export function findMissingPackages(groups) {
  const wanted = JSON.parse(
    readFileSync(fileURLToPath(new URL('../packages.json', import.meta.url)), 'utf8'),
  );
  const names = groups.flatMap((group) => Object.keys(wanted[group]));
  const query = spawnSync(
    'dpkg-query',
    ['-W', '-f', '${Package} ${db:Status-Status}\n', ...names],
    { encoding: 'utf8' },
  );
  const installed = new Set(
    query.stdout
      .split('\n')
      .filter((line) => line.endsWith(' installed'))
      .map((line) => line.split(' ')[0]),
  );
  return names.filter((name) => !installed.has(name));
}

/**
 * @param {import('./steps.mjs').Step} step
 * @param {string[]} missing
 */
export async function installPackages(step, missing) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' };
  const apt = (/** @type {string[]} */ args) =>
    step.run('apt-get', ['-q', '-y', '-o', 'DPkg::Lock::Timeout=300', ...args], {
      env,
      deadlineMs: 1_200_000,
    });
  const install = () => apt(['install', '--no-install-recommends', ...missing]);
  const known = spawnSync('apt-cache', ['show', '--no-all-versions', ...missing], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  const isKnown = (/** @type {string} */ name) => known.stdout.includes(`Package: ${name}\n`);

  const restore = raiseShield();
  try {
    if (!missing.every(isKnown)) await apt(['update']);
    // An old package list names files that the mirror no longer has: fetch it anew and try once more.
    await install().catch(async () => {
      await apt(['update']);
      await install();
    });
  } finally {
    restore();
  }
  disableUnits(missing);
}

/** Debian's own switch against starting services from packages. Whatever was there is put back. */
function raiseShield() {
  const isOurs = existsSync(policyFile) && readFileSync(policyFile, 'utf8').includes(shieldMark);
  if (existsSync(policyFile) && !isOurs) renameSync(policyFile, savedPolicy);
  writeFileSync(policyFile, `#!/bin/sh\n${shieldMark}\nexit 101\n`);
  chmodSync(policyFile, 0o755);
  const restore = () => {
    rmSync(policyFile, { force: true });
    if (existsSync(savedPolicy)) renameSync(savedPolicy, policyFile);
  };
  const onSignal = () => {
    restore();
    process.exit(130);
  };
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  return () => {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    restore();
  };
}

/**
 * Debian enables a service together with its package: at the next boot haproxy would start, and
 * docker-registry would listen on every address. Only packages that we brought are touched.
 * @param {string[]} installed
 */
function disableUnits(installed) {
  const units = ['haproxy', 'docker-registry', 'docker'].filter((unit) =>
    installed.some((name) => name === unit || name === `${unit}.io`),
  );
  for (const unit of units) {
    if (existsSync('/usr/bin/systemctl'))
      spawnSync(
        'systemctl',
        ['disable', `${unit}.service`, ...(unit === 'docker' ? ['docker.socket'] : [])],
        { stdio: 'ignore' },
      );
    if (existsSync('/usr/sbin/update-rc.d'))
      spawnSync('update-rc.d', [unit, 'disable'], { stdio: 'ignore' });
  }
}
