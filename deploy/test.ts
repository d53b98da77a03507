/**
 * `npm test`: lint, format, types, then every test, the end-to-end ones last and one after another,
 * and at the end a look whether anything was left on the machine. Ends with a line for CI:
 * `N passed, N failed`; each check that is not a test counts as one.
 */
import { spawn } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ReportedFailure, StepFailure, createSteps } from './bootstrap/steps.mjs';
import { readTextIfThere } from './files.ts';
import {
  describe,
  difference,
  findProcessesWithEnvironment,
  isEmpty,
  takeInventory,
} from './leftovers.ts';
import { ensureNatsServer } from './nats/binary.ts';
import { type Tally, tallyOf } from './tally.ts';
import { until } from './until.ts';

const root = dirname(import.meta.dirname);
const work = join(root, '.bulkhead/test');
const { step, say } = createSteps({ logDir: join(root, '.bulkhead/log') });
// Every process of the run inherits this, however far it detaches itself.
const mark = `BULKHEAD_TEST_RUN=${process.pid}`;
const total: Tally = { passed: 0, failed: 0 };

/** A check that counts as one test; the others go on when it fails. */
async function check(
  title: string,
  work: Parameters<typeof step>[1],
  advice?: string,
): Promise<void> {
  try {
    await step(title, work, advice);
    total.passed += 1;
  } catch (error) {
    if (!(error instanceof ReportedFailure)) throw error;
    total.failed += 1;
  }
}

/** Runs vitest with its own output on the terminal, and counts from its report. */
async function vitest(
  title: string,
  deadlineMinutes: number,
  args: readonly string[],
): Promise<void> {
  say(`\n  ${title}`);
  const report = join(work, `${title.replaceAll(/\W+/g, '-')}.json`);
  await rm(report, { force: true });
  const child = spawn(
    'vitest',
    ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`, ...args],
    {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: {
        ...process.env,
        BULKHEAD_TEST_RUN: String(process.pid),
        FORCE_COLOR: process.stdout.isTTY ? '1' : '0',
      },
    },
  );
  const timer = setTimeout(() => child.kill('SIGTERM'), deadlineMinutes * 60_000);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('close', resolve).once('error', reject);
  });
  clearTimeout(timer);
  const tally = tallyOf(await readTextIfThere(report), code);
  total.passed += tally.passed;
  total.failed += tally.failed;
}

const nx = { cwd: root, env: { ...process.env, NX_DAEMON: 'false', NX_TUI: 'false' } };
await mkdir(work, { recursive: true });
await check('Fetching nats-server', async (s) => void (await ensureNatsServer(s, root)));
const before = await takeInventory();

await check(
  'Lint',
  async (s) => {
    // The rule about borders reads the graph of projects that Nx keeps.
    await s.run('nx', ['show', 'projects'], nx);
    await s.run('eslint', ['--max-warnings=0', '.'], { cwd: root });
  },
  'npx eslint --fix . mends some of it.',
);
await check(
  'Format',
  async (s) => void (await s.run('prettier', ['--check', '--log-level=warn', '.'], { cwd: root })),
  'npm run format mends it.',
);
await check('Types', async (s) => void (await s.run('tsc', ['-b'], { cwd: root })));
await vitest('Unit, store and service tests', 20, []);
await vitest('End-to-end tests', 20, ['--config=e2e/vitest.config.ts']);

await check(
  'Nothing is left on the machine',
  async () => {
    // What is on its way out (a supervisor that saw its test end) may take a moment.
    await until(
      async () => {
        const left = difference(before, await takeInventory());
        left.processes = await findProcessesWithEnvironment(mark);
        if (!isEmpty(left)) throw new StepFailure(describe(left).join('\n'));
      },
      15_000,
      'the tests left this behind',
    );
  },
  'find the test that made it; each test must clean up what it made.',
);

say(`\n${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed === 0 ? 0 : 1;
