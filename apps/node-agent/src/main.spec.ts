import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { lockDirectory } from './lock.ts';
import { temporaryDirectory } from './testing.ts';

/** Runs the real program from its source. */
async function runMain(env: Record<string, string>, ...args: string[]) {
  const main = fileURLToPath(new URL('./main.ts', import.meta.url));
  const child = spawn(process.execPath, ['--conditions=@bulkhead/source', main, ...args], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
  });
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  child.stderr.on('data', (data: Buffer) => (output += data.toString()));
  const code = await new Promise((resolve) => child.once('close', resolve));
  return { code, output };
}

test('a wrong environment is named, variable by variable', async () => {
  const { code, output } = await runMain({ NODE_DIR: 'relative', AGENT_METRICS_PORT: '99999999' });
  expect(code).toBe(1);
  expect(output).toContain('NODE_DIR: must be an absolute path');
  expect(output).toContain('AGENT_METRICS_PORT');
  expect(output).not.toContain('    at ');
});

test('a second agent on the same state directory ends with a clear message', async () => {
  const directory = await temporaryDirectory();
  const lock = await lockDirectory(directory);
  onTestFinished(() => lock.release());
  for (const args of [[], ['destroy']]) {
    const { code, output } = await runMain({ NODE_DIR: directory }, ...args);
    expect(code).toBe(1);
    expect(output).toContain(`Another agent runs on ${directory}`);
  }
});

test('a node that has not joined says so', async () => {
  const { code, output } = await runMain({ NODE_DIR: await temporaryDirectory() });
  expect(code).toBe(1);
  expect(output).toContain('has this node joined the fleet?');
});
