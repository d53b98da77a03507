import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ReportedFailure, StepFailure, createSteps, runLogged } from './steps.mjs';
import { isInstalled } from './toolchain.mjs';

let logDir: string;
let output: string;
beforeEach(async () => {
  logDir = await mkdtemp(join(tmpdir(), 'bulkhead-steps-'));
  output = '';
});
afterEach(() => rm(logDir, { recursive: true }));
const steps = () => createSteps({ logDir, write: (text) => (output += text) });

test('a step says its name and its time, and gives back what it made', async () => {
  expect(await steps().step('Making tea', () => 42)).toBe(42);
  expect(output).toMatch(/^ {2}Making tea \.\.\. \d+\.\d s\n$/);
});

test('a failure names the step, the log with its last lines, and what to do', async () => {
  const failing = steps().step(
    'Making tea',
    async (step) => {
      await step.run('sh', ['-c', 'echo no water; exit 3']);
    },
    'fill the kettle.',
  );
  await expect(failing).rejects.toBeInstanceOf(ReportedFailure);
  expect(output).toContain('FAILED: Making tea');
  expect(output).toContain('exit code 3');
  expect(output).toContain(join(logDir, 'making-tea.log'));
  expect(output).toContain('no water');
  expect(output).toContain('What to do: fill the kettle.');
});

test("advice that comes with the failure is better than the step's", async () => {
  const failing = steps().step(
    'Tea',
    () => Promise.reject(new StepFailure('cold', 'wait.')),
    'other',
  );
  await expect(failing).rejects.toBeInstanceOf(ReportedFailure);
  expect(output).toContain('What to do: wait.');
});

test('logs are for their owner only, and quiet output is in none', async () => {
  await steps().step('Tea', (step) => step.run('echo', ['a secret'], { quiet: true }));
  const log = join(logDir, 'tea.log');
  expect((await stat(log)).mode & 0o777).toBe(0o600);
  expect((await readFile(log, 'utf8')).replace('$ echo a secret\n', '')).not.toContain('secret');
});

test('a program that does not end is ended at its deadline', async () => {
  await expect(runLogged(() => undefined, 'sleep', ['60'], { deadlineMs: 50 })).rejects.toThrow(
    'did not end',
  );
});

test('npm packages count as installed when each has its version', () => {
  const lock = {
    packages: {
      '': {},
      'apps/api': {},
      'node_modules/a': { version: '1.0.0', integrity: 'x' },
      'node_modules/other-system': { version: '1.0.0', optional: true },
    },
  };
  const a = { version: '1.0.0', integrity: 'x' };
  expect(isInstalled(lock, { packages: { 'node_modules/a': a } })).toBe(true);
  expect(isInstalled(lock, { packages: {} })).toBe(false);
  expect(isInstalled(lock, { packages: { 'node_modules/a': { ...a, version: '1.0.1' } } })).toBe(
    false,
  );
  expect(isInstalled(lock, { packages: { 'node_modules/a': { ...a, integrity: 'y' } } })).toBe(
    false,
  );
});
