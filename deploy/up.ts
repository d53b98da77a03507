import { dirname } from 'node:path';
import { ReportedFailure } from './bootstrap/steps.mjs';
import { ensureSignedIn } from './cli.ts';
import type { Credentials } from './credentials.ts';
import { startPlatform, type Platform } from './platform.ts';
import { ensureSample, sampleUrl } from './sample.ts';
import { SettingsError, optionsFromEnvironment } from './settings.ts';

const usage = 'usage: npm run up [-- --infrastructure | --without-sample]';

async function main(args: readonly string[]): Promise<void> {
  const known = ['--infrastructure', '--without-sample'];
  if (args.some((arg) => !known.includes(arg))) throw new SettingsError(usage);
  const options = optionsFromEnvironment(dirname(import.meta.dirname), process.env);
  const parts = args.includes('--infrastructure') ? 'infrastructure' : 'all';
  const platform = await startPlatform({ ...options, parts });
  const { credentials } = platform;
  if (parts === 'infrastructure' || credentials === null) return;
  if (!args.includes('--without-sample')) await ensureSample(platform, credentials.demo);
  const signedIn = await ensureSignedIn(platform, credentials.demo);
  platform.steps.say(farewell(platform, credentials, signedIn));
}

/** Where everything is, who may use it, and what to try next. */
function farewell(platform: Platform, { operator, demo }: Credentials, signedIn: boolean): string {
  const login = `npx bulkhead login ${platform.apiUrl} --email ${demo.email}`;
  const { host, ports } = platform.settings;
  return `
Bulkhead is up.

  API         ${platform.apiUrl}/graphql
  Edge        http://${host}:${ports.edge}
  Sample app  ${sampleUrl(platform)}
  Registry    ${platform.registryHost}   (the same email and password; images are ${platform.registryHost}/demo/<name>)

  Operator    ${operator.email}   ${operator.password}
  Demo user   ${demo.email}   ${demo.password}   (owner of the tenant "demo")
              Both are kept in ${platform.paths.credentialsFile}, which only root can read.

Try next${signedIn ? ' (npx bulkhead is signed in as the demo user)' : `, after "${login}"`}:

  curl ${sampleUrl(platform)}
  npx bulkhead ps --app hello
  npx bulkhead scale web=3 --app hello
`;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof SettingsError) process.stderr.write(`${error.message}\n`);
  else if (!(error instanceof ReportedFailure)) throw error;
  process.exitCode = 1;
}
