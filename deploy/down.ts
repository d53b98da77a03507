import { dirname } from 'node:path';
import { ReportedFailure } from './bootstrap/steps.mjs';
import { optionsFromEnvironment, SettingsError } from './settings.ts';
import { stopPlatform } from './stop.ts';

const args = process.argv.slice(2);
try {
  if (process.getuid?.() !== 0)
    throw new SettingsError(
      '`npm run down` needs root, as `npm run up` did: run it again with sudo.',
    );
  if (args.some((arg) => arg !== '--purge'))
    throw new SettingsError('usage: npm run down [-- --purge]');
  const { stateDir } = optionsFromEnvironment(dirname(import.meta.dirname), process.env);
  await stopPlatform({
    root: dirname(import.meta.dirname),
    stateDir,
    purge: args.includes('--purge'),
  });
} catch (error) {
  if (error instanceof SettingsError) process.stderr.write(`${error.message}\n`);
  else if (!(error instanceof ReportedFailure)) throw error;
  process.exitCode = 1;
}
