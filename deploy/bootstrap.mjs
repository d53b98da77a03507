/**
 * `npm run up | join | down | test | test:vm | bench | build` on a machine with nothing but Node 18, npm and git:
 * installs what is missing, builds, and hands over to Node 24 and the TypeScript beside this file.
 * Each step looks first whether there is anything to do, so a second run is quick.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { assertDebianRoot, findMissingPackages, installPackages } from './bootstrap/debian.mjs';
import { ReportedFailure, StepFailure, createSteps } from './bootstrap/steps.mjs';
import * as toolchain from './bootstrap/toolchain.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const programs = {
  up: 'deploy/up.ts',
  join: 'deploy/join.ts',
  down: 'deploy/down.ts',
  test: 'deploy/test.ts',
  bench: 'bench/run.ts',
  vm: 'e2e/vm/run.ts',
};
const usage = `usage: npm run <command>

  up      install, build and start the platform, and deploy the sample app
  join    install, build, and make this host a node of a fleet: -- TOKEN
  down    stop everything and leave nothing running; -- --purge deletes the data as well
  test    lint, type check, and all tests
  bench   measure against Docker
  vm      the runtime's tests on another kernel with pure cgroup v2, in a virtual machine
  build   install and build only
`;

/** @param {string} command @param {string[]} rest */
async function main(command, rest) {
  // Services run as users of their own and read the clone: what is written here must be readable.
  process.umask(0o022);
  assertDebianRoot();
  const { step } = createSteps({ logDir: join(root, '.bulkhead/log') });

  if (command !== 'down') await prepare(step, command);
  else if (toolchain.needsNpmInstall(root)) {
    const stateDir = process.env['BULKHEAD_STATE'] || '/var/lib/bulkhead';
    if (!existsSync(join(stateDir, 'platform.json'))) {
      process.stdout.write(`Nothing was started in ${stateDir}, so nothing is to be stopped.\n`);
      return 0;
    }
    await prepare(step, command);
  }

  const program = programs[/** @type {keyof typeof programs} */ (command)];
  return program === undefined ? 0 : runNode24(program, rest);
}

/** @param {ReturnType<typeof createSteps>['step']} step @param {string} command */
async function prepare(step, command) {
  const missing = findMissingPackages(
    command === 'bench' || command === 'test' || command === 'vm' ? ['run', command] : ['run'],
  );
  if (missing.length > 0)
    await step(
      `Installing Debian packages (${missing.join(', ')})`,
      (s) => installPackages(s, missing),
      "see that apt-get works (network, /etc/apt/sources.list, another apt running; 'dpkg --configure -a' mends a broken one), then run the same command again.",
    );
  const npmAdvice =
    'see that the npm registry can be reached (npm ping), then run the same command again.';
  if (toolchain.needsNpmInstall(root))
    await step('Installing npm packages', (s) => toolchain.installNpmPackages(s, root), npmAdvice);
  if (toolchain.needsInstallScripts(root))
    await step('Fetching Node 24', (s) => toolchain.runInstallScripts(s, root), npmAdvice);
  if (toolchain.needsPrismaClient(root))
    await step('Generating the database client', (s) => toolchain.generatePrismaClient(s, root));
  await step(
    'Building',
    (s) => toolchain.build(s, root),
    'the TypeScript compiler says above what is wrong; a clean clone of a released version builds.',
  );
}

/** Replaces this process's role: same terminal, same signals, its exit code is ours. @param {string} program @param {string[]} args */
function runNode24(program, args) {
  const node = toolchain.nodeBinary(root);
  const file = join(root, program);
  if (!existsSync(file)) throw new Error(`${program} does not exist in this clone`);
  return new Promise((resolve, reject) => {
    const child = spawn(
      node,
      ['--conditions=@bulkhead/source', '--disable-warning=ExperimentalWarning', file, ...args],
      {
        stdio: 'inherit',
        env: {
          ...process.env,
          PATH: `${join(root, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
        },
      },
    );
    // Ctrl-C reaches the child by the terminal; we wait for it to clean up.
    process.on('SIGINT', () => undefined);
    process.on('SIGTERM', () => child.kill('SIGTERM'));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(signal === null ? code : 1));
  });
}

const [command = '', ...rest] = process.argv.slice(2);
if (!(command in programs) && command !== 'build') {
  process.stderr.write(usage);
  process.exitCode = 2;
} else {
  main(command, rest).then(
    (code) => {
      process.exitCode = Number(code);
    },
    (error) => {
      if (error instanceof StepFailure)
        process.stderr.write(`${error.message}\nWhat to do: ${error.advice}\n`);
      else if (!(error instanceof ReportedFailure))
        process.stderr.write(`${error instanceof Error ? error.stack : error}\n`);
      process.exitCode = 1;
    },
  );
}
