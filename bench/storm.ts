import { dockerLimits, inParallel, instanceName, server, specOf } from './start.ts';
import { benchImage, type Bench } from './fixture.ts';
import { time, type Result } from './measure.ts';

const count = 100;
const dockerCount = 40;
const rounds = 3;

/** Starts as many as possible: for each the concurrency that suits it best, in turns; ms per start, so that less is better. */
export async function stormBench(bench: Bench): Promise<Result[]> {
  const runtime = await bench.runtime();
  const docker = await bench.docker();
  const crun = await bench.crun();
  let next = 10_000;
  const names = (n: number): string[] => Array.from({ length: n }, () => instanceName(next++));

  const ours = async (atOnce: number): Promise<number> => {
    const specs = names(count).map((id) => specOf(id, bench));
    const ms = await time(() => inParallel(atOnce, specs, (spec) => runtime.start(spec)));
    await inParallel(8, specs, (spec) => runtime.remove(spec.id));
    return ms / count;
  };
  const bare = async (atOnce: number): Promise<number> => {
    const ids = names(count);
    await crun.prepare(ids);
    const ms = await time(() => inParallel(atOnce, ids, (id) => crun.run(id)));
    await crun.removeAll();
    return ms / count;
  };
  const dockers = async (atOnce: number, how: 'api' | 'cli'): Promise<number> => {
    const ids = names(dockerCount);
    const ms = await time(() =>
      inParallel(atOnce, ids, (id) =>
        how === 'api'
          ? docker.createAndStart(id, benchImage, server)
          : docker.cli('run', '-d', ...dockerLimits, benchImage, ...server),
      ),
    );
    await docker.removeAll();
    return ms / dockerCount;
  };

  // The first of each pays for what is set up once, and tells which concurrency is best.
  const best = async (tries: readonly number[], work: (n: number) => Promise<number>) => {
    const results: { atOnce: number; ms: number }[] = [];
    for (const atOnce of tries) results.push({ atOnce, ms: await work(atOnce) });
    return results.sort((a, b) => a.ms - b.ms)[0]!.atOnce;
  };
  const at = {
    ours: await best([4, 8, 16], ours),
    bare: await best([2, 4, 8], bare),
    api: await best([4, 8], (n) => dockers(n, 'api')),
    cli: await best([4, 8], (n) => dockers(n, 'cli')),
  };
  const measured = {
    ours: [] as number[],
    bare: [] as number[],
    api: [] as number[],
    cli: [] as number[],
  };
  for (let round = 0; round < rounds; round++) {
    measured.ours.push(await ours(at.ours));
    measured.api.push(await dockers(at.api, 'api'));
    measured.bare.push(await bare(at.bare));
    measured.cli.push(await dockers(at.cli, 'cli'));
  }
  const result = (rival: string, theirs: readonly number[]): Result => ({
    bench: 'storm',
    work: `time per start, ${at.ours} at a time, ${count} in all`,
    rival,
    unit: 'ms',
    ours: measured.ours,
    theirs,
  });
  return [
    result(`docker run -d (20.10), ${at.cli} at a time`, measured.cli),
    result(`Docker's API, create and start (20.10), ${at.api} at a time`, measured.api),
    result(`bare crun run, ${at.bare} at a time`, measured.bare),
  ];
}
