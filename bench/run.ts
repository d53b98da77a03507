/** `npm run bench [-- NAME ...]`: measures, prints, and appends to RESULTS.md. */
import { appendFile, readFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { createSteps } from '../deploy/bootstrap/steps.mjs';
import { ensureNatsServer } from '../deploy/nats/binary.ts';
import { applyBench } from './apply.ts';
import { densityBench } from './density.ts';
import { deployBench } from './deploy.ts';
import { edgeBench } from './edge.ts';
import { Bench } from './fixture.ts';
import { fleetBench } from './fleet.ts';
import { layersBench } from './layers.ts';
import { format, type Result } from './measure.ts';
import { memoryBench } from './memory.ts';
import { neighboursBench } from './neighbours.ts';
import { placementBench } from './placement.ts';
import { startBench } from './start.ts';
import { stormBench } from './storm.ts';

const benches: Record<string, (bench: Bench) => Promise<Result[]>> = {
  start: startBench,
  storm: stormBench,
  density: densityBench,
  layers: layersBench,
  deploy: deployBench,
  edge: edgeBench,
  memory: memoryBench,
  neighbours: neighboursBench,
  placement: placementBench,
  apply: applyBench,
  fleet: fleetBench,
};

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(benches);
const unknown = names.filter((name) => !Object.hasOwn(benches, name));
if (unknown.length > 0) {
  process.stderr.write(
    `there is no benchmark ${unknown.join(', ')}; there are ${Object.keys(benches).join(', ')}\n`,
  );
  process.exit(2);
}

const root = join(import.meta.dirname, '..');
const { step } = createSteps({ logDir: join(root, '.bulkhead/log') });
await step('Fetching nats-server', async (s) => void (await ensureNatsServer(s, root)));
const bench = await Bench.create();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void bench.close().finally(() => process.exit(130)));
try {
  const lines: string[] = [];
  for (const name of names) {
    process.stdout.write(`${name} ...\n`);
    for (const result of await benches[name]!(bench)) {
      lines.push(`| ${format(result)} |`);
      process.stdout.write(`${lines.at(-1)}\n`);
    }
  }
  const results = join(import.meta.dirname, 'RESULTS.md');
  const [cpu] = cpus();
  const { name, version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    name: string;
    version: string;
  };
  await appendFile(
    results,
    `
## ${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC, ${name} ${version}

${cpus().length} cores (${cpu?.model.trim()}), ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}

| bench | work | rival | ours: median (range) | rival: median (range) | ours / rival |
|---|---|---|---|---|---|
${lines.join('\n')}
`,
  );
  process.stdout.write(`\nadded to ${results}\n`);
} catch (error) {
  // Now: what the cleaning up has to say must not hide it.
  console.error(error);
  process.exitCode = 1;
} finally {
  await bench.close();
}
