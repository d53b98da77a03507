import { visit } from '../e2e/support/client.ts';
import { TenantFixture } from '../e2e/support/tenant.ts';
import { benchImage, type Bench } from './fixture.ts';
import { time, type Result } from './measure.ts';
import { dockerLimits, server } from './start.ts';

/** `deploy` mutation to HTTP 200 through the edge, the image already on the node. */
export async function deployBench(bench: Bench): Promise<Result[]> {
  const docker = await bench.docker();
  const platform = await bench.platform();
  const tenant = await TenantFixture.create(platform.apiUrl);
  const image = await platform.push(tenant, 'static', 'static:1');
  const ours: number[] = [];
  const theirs: number[] = [];

  for (let i = 0; i < 11; i++) {
    const app = `bench${i}`;
    await tenant.createApp(app);
    let id = '';
    const deploy = await time(async () => {
      id = await tenant.deploy(app, image, [
        { name: 'web', port: 8080, memoryMiB: 64, command: [...server, '-h', '/site'] },
      ]);
      await firstAnswer(platform.edgePort, tenant.host(app));
    });
    const run = await time(() =>
      docker.cli('run', '-d', ...dockerLimits, benchImage, ...server, '-h', '/site'),
    );
    await tenant.succeeded(id);
    // The first of each pays for the pull and for what is set up once.
    if (i > 0) {
      ours.push(deploy);
      theirs.push(run);
    }
    await tenant.destroyApp(app);
  }
  return [
    {
      bench: 'deploy',
      work: 'deploy mutation to HTTP 200 through the edge, image cached',
      rival: 'docker run -d alone (20.10)',
      unit: 'ms',
      ours,
      theirs,
    },
  ];
}

/** Asks again without a pause: the measurement must not add waiting of its own. */
async function firstAnswer(edgePort: number, host: string): Promise<void> {
  for (let tries = 0; tries < 20_000; tries++) {
    if ((await visit(edgePort, host)).status === 200) return;
  }
  throw new Error(`${host} does not answer with 200`);
}
