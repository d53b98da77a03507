import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type Bench } from './fixture.ts';
import { withLayers } from './layout.ts';
import type { Result } from './measure.ts';
import { inParallel, instanceName, server, specOf } from './start.ts';

const layers = 50;
const count = 200;
const dockerCount = 50;
const atOnce = 16;

/**
 * Reads the mount table over and over in a process of its own, in the host's namespace, and tells the
 * longest read (ms) and the largest table (lines) when its input ends.
 */
const watcher = `
const { readFileSync } = require('node:fs');
let longest = 0, lines = 0, on = true;
process.stdin.on('end', () => { on = false; }).resume();
console.log('ready');
(function look() {
  const start = process.hrtime.bigint();
  const text = readFileSync('/proc/self/mountinfo', 'utf8');
  longest = Math.max(longest, Number(process.hrtime.bigint() - start) / 1e6);
  lines = Math.max(lines, text.split('\\n').length - 1);
  if (on) setTimeout(look, 1); else console.log(JSON.stringify({ longest, lines }));
})();
`;

interface Seen {
  longest: number;
  lines: number;
}

/** The main thread has a mount namespace of its own once a runtime is there; the others stay in the host's (host-thread.ts). */
async function hostNamespace(): Promise<string> {
  const main = await readlink(`/proc/self/task/${process.pid}/ns/mnt`);
  for (const thread of await readdir('/proc/self/task')) {
    const namespace = `/proc/${process.pid}/task/${thread}/ns/mnt`;
    if ((await readlink(namespace)) !== main) return namespace;
  }
  throw new Error("no thread is in the host's mount namespace");
}

async function watching(namespace: string, work: () => Promise<unknown>): Promise<Seen> {
  const child = spawn('nsenter', [`--mount=${namespace}`, process.execPath, '-e', watcher], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  const [ended] = await Promise.race([once(child.stdout, 'data'), closed]);
  if (typeof ended === 'number') throw new Error('the mount table cannot be watched');
  try {
    await work();
  } finally {
    child.stdin.end();
  }
  await closed;
  return JSON.parse(said.trim().split('\n').at(-1)!) as Seen;
}

/** A storm of starts of an image of many layers: does the host's mount table stall, or grow? */
export async function layersBench(bench: Bench): Promise<Result[]> {
  const runtime = await bench.runtime();
  const base = await bench.layout();
  const { layout, digest } = await withLayers(base.layout, join(bench.dir, 'many'), layers);
  const image = await bench.pull(runtime, 'many', layout, digest);
  const docker = await bench.docker();
  const name = 'bulkhead-bench-layers:1';
  await docker.load(layout, name, bench.dir);

  const pause = () => new Promise((resolve) => setTimeout(resolve, 5000));
  const host = await hostNamespace();
  const idle = await watching(host, pause);
  const specs = Array.from({ length: count }, (_, i) => ({
    ...specOf(instanceName(20_000 + i), bench),
    image,
  }));
  const ours = await watching(host, () => inParallel(atOnce, specs, (spec) => runtime.start(spec)));
  await inParallel(8, specs, (spec) => runtime.remove(spec.id));
  const ids = Array.from({ length: dockerCount }, (_, i) => instanceName(30_000 + i));
  const theirs = await watching(`/proc/${docker.pid}/ns/mnt`, () =>
    inParallel(8, ids, (id) => docker.createAndStart(id, name, server)),
  );
  await docker.removeAll();

  const rival = `Docker's API (20.10), ${dockerCount} starts, 8 at a time, in its own mount namespace`;
  return [
    {
      bench: 'layers',
      work: `longest read of the host's mount table while ${count} instances of an image of ${layers} layers start, ${atOnce} at a time`,
      rival: 'nothing going on',
      unit: 'ms',
      ours: [ours.longest],
      theirs: [idle.longest],
    },
    {
      bench: 'layers',
      work: 'the same',
      rival,
      unit: 'ms',
      ours: [ours.longest],
      theirs: [theirs.longest],
    },
    {
      bench: 'layers',
      work: "largest mount table of the host's namespace meanwhile",
      rival,
      unit: 'mounts',
      ours: [ours.lines],
      theirs: [theirs.lines],
    },
  ];
}
