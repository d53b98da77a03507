/**
 * `npm run join -- TOKEN`: makes this host a node of somebody else's fleet and runs its agent. Run it
 * again after a reboot or an upgrade, then without a token.
 */
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { ReportedFailure, StepFailure, createSteps } from './bootstrap/steps.mjs';
import { ensureDirectory, readTextIfThere } from './files.ts';
import { buildFingerprint } from './fingerprint.ts';
import { readSettings, writePlatformFile } from './platform-file.ts';
import { assertNamesFree } from './platform.ts';
import { agentCommand, agentEnvironment, agentService } from './services/agent.ts';
import { SettingsError, layout, optionsFromEnvironment } from './settings.ts';
import { startServices } from './start-services.ts';

const usage =
  'usage: npm run join -- TOKEN [--name NAME] [--address IPV4]; the token may be in BULKHEAD_JOIN_TOKEN instead, which no other process sees';

async function main(args: string[]): Promise<void> {
  const { values, positionals } = readArguments(args);
  const token = positionals[0] ?? process.env['BULKHEAD_JOIN_TOKEN'];
  const root = dirname(import.meta.dirname);
  let settings = await readSettings(optionsFromEnvironment(root, process.env));
  const paths = layout(settings.stateDir);
  await ensureDirectory(settings.stateDir, 0o711);
  const steps = createSteps({ logDir: paths.setupLog });
  const isNode = async () => (await readTextIfThere(join(paths.node, 'node.json'))) !== null;
  await steps.step('Preparing the state directory', async () => {
    for (const dir of [paths.clone, paths.bin, paths.service]) await ensureDirectory(dir, 0o755);
    for (const dir of [paths.run, paths.log, paths.node]) await ensureDirectory(dir, 0o711);
  });
  if (token !== undefined || !(await isNode()))
    await steps.step('Joining the fleet', async (step) => {
      if (token === undefined) throw new StepFailure('this host is no node yet', usage);
      const [program = '', ...rest] = agentCommand(root);
      const options = Object.entries(values).flatMap(([name, value]) => [`--${name}`, value]);
      const said = await step.run(program, [...rest, 'join', ...options], {
        env: {
          PATH: process.env['PATH'],
          ...agentEnvironment(settings, paths),
          BULKHEAD_JOIN_TOKEN: token,
        },
      });
      const { name, network } = JSON.parse(said) as { name: string; network: string };
      settings = { ...settings, node: { ...settings.node, name, network } };
      return name;
    });
  await steps.step('Remembering it', async () => {
    await assertNamesFree(settings);
    await writePlatformFile(settings);
  });
  await startServices(steps, settings, paths, [
    agentService(settings, paths, await buildFingerprint(root), 'renewed by the agent itself'),
  ]);
  steps.say('\n  This host is a node of the fleet. On the other side: npx bulkhead nodes\n');
}

function readArguments(args: string[]) {
  try {
    const parsed = parseArgs({
      args,
      allowPositionals: true,
      options: { name: { type: 'string' }, address: { type: 'string' } },
    });
    if (parsed.positionals.length <= 1) return parsed;
  } catch {
    // Said below.
  }
  throw new SettingsError(usage);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof SettingsError) process.stderr.write(`${error.message}\n`);
  else if (!(error instanceof ReportedFailure)) throw error;
  process.exitCode = 1;
}
