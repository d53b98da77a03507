/**
 * The sample app, deployed as the demo user through the same API and registry that every user has:
 * nothing here reaches around them.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StepFailure, type Step } from './bootstrap/steps.mjs';
import type { FirstUser } from './credentials.ts';
import { GraphqlClient } from './graphql.ts';
import type { Platform } from './platform.ts';
import { until } from './until.ts';

const tenant = 'demo';
const app = 'hello';
const readyDeadlineMs = 120_000;

export const sampleUrl = ({ settings }: Platform) =>
  `http://${app}.${tenant}.${settings.domain}:${settings.ports.edge}`;

interface DeploymentView {
  status: 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'SUPERSEDED';
  failure: { message: string; lastLines: string[] } | null;
  events: { message: string }[];
}

/**
 * Deploys the sample unless the app has a release already, whichever it is: what its owner did to it
 * since stays as it is.
 */
export async function ensureSample(platform: Platform, user: FirstUser): Promise<void> {
  const { step } = platform.steps;
  const api = await step('Signing in as the demo user', () =>
    GraphqlClient.signIn(platform.apiUrl, user),
  );
  const found = await findApp(api);
  if (found?.currentRelease == null) {
    const image = `${platform.registryHost}/${tenant}/${app}:1`;
    await step('Building and pushing the sample image', (s) => pushSample(s, platform, user));
    await step('Deploying the sample app', async (s) => {
      if (found === null)
        await api.ask(`mutation($i: CreateAppInput!) { createApp(input: $i) { id } }`, {
          i: { tenant, name: app },
        });
      await deploy(s, api, image);
    });
  } else if (found.state !== 'ACTIVE') {
    platform.steps.say(`  The sample app is ${found.state.toLowerCase()}, and stays so.`);
    return;
  }
  await step('Waiting for the sample app to answer', () =>
    until(() => visit(platform), 60_000, `${sampleUrl(platform)} does not answer`),
  );
}

async function findApp(api: GraphqlClient) {
  type Answer = { app: { state: string; currentRelease: { version: number } | null } };
  const query = `query($tenant: String!, $name: String!) { app(tenant: $tenant, name: $name) { state currentRelease { version } } }`;
  try {
    return (await api.ask<Answer>(query, { tenant, name: app })).app;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'NOT_FOUND') return null;
    throw error;
  }
}

/** Credentials go in a file of their own: a command line can be read by everybody. */
async function pushSample(step: Step, platform: Platform, user: FirstUser): Promise<void> {
  const { settings, registryHost } = platform;
  const dir = await mkdtemp(join(tmpdir(), 'bulkhead-sample-'));
  try {
    const auth = Buffer.from(`${user.email}:${user.password}`).toString('base64');
    const authFile = join(dir, 'auth.json');
    const file = JSON.stringify({ auths: { [registryHost]: { auth } } });
    await writeFile(authFile, file, { mode: 0o600 });
    await step.run(join(settings.root, 'node_modules/.bin/node'), [
      ...[join(settings.root, 'examples/build.ts'), '--registry', registryHost],
      ...['--tenant', tenant, '--authfile', authFile, app],
    ]);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function deploy(step: Step, api: GraphqlClient, image: string): Promise<void> {
  const { deploy: started } = await api.ask<{ deploy: { id: string } }>(
    `mutation($i: DeployInput!) { deploy(input: $i) { id } }`,
    { i: { tenant, app, image, description: 'the sample app' } },
  );
  const view = await until(
    async () => {
      const { deployment } = await api.ask<{ deployment: DeploymentView }>(
        `query($id: ID!) { deployment(id: $id) { status failure { message lastLines } events { message } } }`,
        { id: started.id },
      );
      if (deployment.status === 'RUNNING')
        throw new Error(deployment.events.at(-1)?.message ?? 'it runs');
      return deployment;
    },
    readyDeadlineMs,
    'the deployment has not ended',
  );
  for (const { message } of view.events) step.log(message);
  if (view.status === 'SUCCEEDED') return;
  step.log(view.failure?.lastLines.join('\n') ?? '');
  throw new StepFailure(
    view.failure?.message ?? `the deployment ended as ${view.status}`,
    'read the logs of api and agent in the state directory, under log/, then run the same command again.',
  );
}

/** By its address, with the host name in the header: names below .localhost are not resolved by everybody. */
function visit({ settings }: Platform): Promise<void> {
  return new Promise((resolve, reject) => {
    const host = `${app}.${tenant}.${settings.domain}:${settings.ports.edge}`;
    const sent = request(
      { host: settings.host, port: settings.ports.edge, headers: { host }, timeout: 3_000 },
      (response) => {
        response.resume();
        if (response.statusCode === 200) resolve();
        else reject(new Error(`the edge answers ${response.statusCode}`));
      },
    );
    sent
      .on('error', reject)
      .on('timeout', () => sent.destroy(new Error('no answer in time')))
      .end();
  });
}
