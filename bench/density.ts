import { readdir, readFile } from 'node:fs/promises';
import { get } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { benchImage, type Bench } from './fixture.ts';
import { time, type Result } from './measure.ts';
import { available, settled } from './memory.ts';
import { inParallel, instanceName, server, specOf } from './start.ts';

/** Steps to climb; after the last one enough is shown. */
const steps = [1000, 2000, 3000, 4000];
const dockerCount = 100;
const atOnce = 8;
/** What the machine keeps for itself, MiB. */
const leastFree = 1024;
const idleMs = 60_000;

const say = (text: string): void => void process.stdout.write(`  ${text}\n`);

/** How many answering instances fit, what each costs, what the runtime costs while they idle, and how they end. */
export async function densityBench(bench: Bench): Promise<Result[]> {
  const runtime = await bench.runtime();
  const before = { available: await settled(), leftovers: await leftovers(bench.dir) };
  const addresses = new Map<string, string>();
  const facts = { memory: 0, pss: 0, cpu: 0 };
  let gave: string | null = null;

  for (const step of steps) {
    const ids = Array.from({ length: step - addresses.size }, (_, i) =>
      instanceName(100_000 + addresses.size + i),
    );
    const took = await time(() =>
      inParallel(atOnce, ids, async (id) => {
        if (gave !== null) return;
        try {
          if ((await available()) < leastFree)
            throw new Error(`less than ${leastFree} MiB are free`);
          addresses.set(id, (await runtime.start(specOf(id, bench))).address);
        } catch (error) {
          gave ??=
            error instanceof Error
              ? `${error.message} (${String(error.cause ?? '')})`
              : String(error);
        }
      }),
    );
    say(`${addresses.size} run; the last ${ids.length} took ${(took / 1000).toFixed(1)} s`);
    const silent = await countSilent([...addresses.values()]);
    say(`${addresses.size - silent} of them answer over HTTP`);
    if (silent > 0) gave ??= `${silent} do not answer`;
    if (step === steps[0]) {
      facts.memory = (before.available - (await settled())) / addresses.size;
      facts.pss = await pssOf(bench.dir, addresses.size);
      const cpu = process.cpuUsage();
      await delay(idleMs);
      const used = process.cpuUsage(cpu);
      facts.cpu = (used.user + used.system) / 1000 / idleMs;
      say(
        `idle for a minute: the runtime took ${(facts.cpu * 100).toFixed(2)} % of a core; ${facts.memory.toFixed(2)} MiB of MemAvailable and ${facts.pss.toFixed(2)} MiB of PSS each`,
      );
    }
    if (gave !== null) break;
  }
  say(
    gave === null
      ? `nothing gave up to ${addresses.size}`
      : `it gave at ${addresses.size}: ${gave}`,
  );

  const all = [...addresses.keys()];
  const stopped = await time(() => inParallel(32, all, (id) => runtime.remove(id)));
  const left = (await leftovers(bench.dir)).filter((each) => !before.leftovers.includes(each));
  say(
    `all ${all.length} stopped and removed in ${(stopped / 1000).toFixed(1)} s; left over: ${left.length}`,
  );
  for (const each of left.slice(0, 10)) say(each);
  if (left.length > 0) throw new Error(`${left.length} things were left over`);

  const docker = await bench.docker();
  const dockerBefore = await settled();
  const ids = Array.from({ length: dockerCount }, (_, i) => instanceName(200_000 + i));
  await inParallel(atOnce, ids, (id) => docker.createAndStart(id, benchImage, server));
  const theirs = {
    memory: (dockerBefore - (await settled())) / dockerCount,
    pss: await pssOf(docker.dir, dockerCount),
  };
  const theirStop = await time(() => docker.removeAll());

  const rival = `Docker (20.10) with ${dockerCount}, without its daemons`;
  const result = (work: string, unit: string, ours: number, other: number): Result => ({
    bench: 'density',
    work,
    rival,
    unit,
    ours: [ours],
    theirs: [other],
  });
  return [
    result(`MemAvailable per idle instance of ${steps[0]}`, 'MiB', facts.memory, theirs.memory),
    result(
      `PSS per idle instance of ${steps[0]}: server and supervisor`,
      'MiB',
      facts.pss,
      theirs.pss,
    ),
    result(
      `stop and remove all ${all.length}, per instance`,
      'ms',
      stopped / all.length,
      theirStop / dockerCount,
    ),
    {
      ...result(
        `CPU of the runtime while ${steps[0]} idle; ${all.length} ran at most${gave === null ? '' : `, then: ${gave}`}`,
        '% of a core',
        facts.cpu * 100,
        2,
      ),
      rival: 'the target',
    },
  ];
}

async function countSilent(addresses: readonly string[]): Promise<number> {
  let silent = 0;
  await inParallel(16, addresses, async (address) => {
    if (!(await answers(address))) silent += 1;
  });
  return silent;
}

/** Whether there is an HTTP answer, whatever it says. */
function answers(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host, port: 8080, path: '/', agent: false, timeout: 10_000 });
    request.on('response', (response) => {
      response.resume();
      response.on('close', () => resolve(response.statusCode !== undefined));
    });
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', () => resolve(false));
  });
}

/** MiB of memory that the servers and their supervisors have, shared pages by share, per instance. */
async function pssOf(dir: string, count: number): Promise<number> {
  let kibibytes = 0;
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const command = (await read(`/proc/${pid}/cmdline`)).split('\0');
    const isServer = server.every((word, index) => command[index] === word);
    const isSupervisor =
      /(conmon|containerd-shim\S*)$/.test(command[0] ?? '') &&
      command.some((word) => word.includes(dir));
    if (isServer || isSupervisor)
      kibibytes += Number(/^Pss:\s+(\d+)/m.exec(await read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0);
  }
  return kibibytes / 1024 / count;
}

/** What containers leave when they leave something. */
async function leftovers(dir: string): Promise<string[]> {
  const found: string[] = [];
  const list = (path: string) => readdir(path).catch(() => [] as string[]);
  for (const name of await list('/sys/class/net'))
    if (name.startsWith('bhb-')) found.push(`interface ${name}`);
  for (const controller of await list('/sys/fs/cgroup'))
    for (const tenant of await list(`/sys/fs/cgroup/${controller}/bhbench`))
      if (tenant === 'bench') found.push(`cgroup of a tenant in ${controller}`);
  for (const part of ['run/containers', 'run/crun', 'run/exits', 'run/sockets', 'containers'])
    for (const name of await list(`${dir}/runtime/${part}`))
      if (name.startsWith('ibench')) found.push(`${part}/${name}`);
  for (const pid of await list('/proc'))
    if (/^\d+$/.test(pid) && (await read(`/proc/${pid}/cmdline`)).includes(`${dir}/runtime`))
      found.push(`process ${pid}`);
  return found;
}

const read = (file: string): Promise<string> => readFile(file, 'utf8').catch(() => '');
